// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// Event is what may happen to a key: an answer of the server (Accepted, Rejected), or a step that the engine or an
// operator takes (all others). Events are plain data.
type Event interface {
	// apply changes the draft, or returns what stands in the way. After an error the draft is of no use.
	apply(d *draft, now time.Time) error
}

// What stands in the way of an event. Each is to be told with what to do.
var (
	ErrPendingExists = errors.New("there is a pending version already")
	ErrNoPending     = errors.New("there is no pending version")
	ErrNoSuchVersion = errors.New("there is no such version")
	ErrPendingInUse  = errors.New("the pending version signs for a client already")
	ErrNotRetired    = errors.New("the version is not retired")
	ErrVersionInUse  = errors.New("the version signs for a client")
	ErrDestroyed     = errors.New("the version is destroyed already")
)

// NotAcceptedError stands in the way of Activate: the pending version was not accepted for all clients, or none is
// known.
type NotAcceptedError struct {
	Waiting []Client // none when no client is known
}

func (e *NotAcceptedError) Error() string {
	return "the pending version is not accepted for every client"
}

// Transition is one version's step from a state to the next.
type Transition struct {
	Version int
	KID     string
	From    State // empty for a new version
	To      State
	Cause   string
}

// Apply returns the key after an event, and what has changed of the versions' states. The key itself stays as it is,
// and the other one shares nothing with it. After an error the other one is empty.
func (k Key) Apply(e Event, now time.Time) (Key, []Transition, error) {
	return k.Replay([]At{{now, e}})
}

// At is an event and the time of it.
type At struct {
	Time  time.Time
	Event Event
}

// Replay is Apply for several events in their order. It ends at the first error.
func (k Key) Replay(events []At) (Key, []Transition, error) {
	d := draft{Key: k.clone()}
	for _, e := range events {
		if err := e.Event.apply(&d, e.Time); err != nil {
			return Key{}, nil, err
		}
	}
	return d.Key, d.transitions, nil
}

// draft is a copy of a key, for events to change.
type draft struct {
	Key
	transitions []Transition
}

// step moves a version of the draft on.
func (d *draft) step(v *Version, to State, now time.Time, cause string) {
	d.transitions = append(d.transitions, Transition{v.Number, v.KID, v.State, to, cause})
	v.State = to
	switch to {
	case Active:
		v.ActivatedTime = now
	case Retired:
		v.RetiredTime = now
	case Destroyed:
		v.DestroyedTime = now
	}
}

// promote makes the pending version active and retires the one before. There is a pending one.
func (d *draft) promote(now time.Time, cause string) {
	pending, active := d.find(Pending), d.find(Active)
	if active != nil {
		d.step(active, Retired, now, "succeeded by another version")
	}
	d.step(pending, Active, now, cause)
}

// retiredUseStep is how much later a retired version's last use must be to be recorded again: each record is a write.
const retiredUseStep = time.Hour

// Accepted is the server's answer that it takes a version from a client: a token was minted with it.
type Accepted struct {
	Client  Client
	Version int
}

func (e Accepted) apply(d *draft, now time.Time) error {
	standing := d.standing(e.Client)
	if standing == nil {
		d.Clients.Standings = append(d.Clients.Standings, Standing{Client: e.Client})
		standing = d.standing(e.Client)
	}
	if standing.Accepted != e.Version {
		standing.Accepted, standing.AcceptedTime = e.Version, now
	}
	if standing.Probe.Version == e.Version {
		standing.Probe = Probe{}
	}
	if v := d.get(e.Version); v != nil && v.State == Retired {
		if last, known := d.Clients.RetiredUse[v.Number]; !known || now.Sub(last) >= retiredUseStep || now.Before(last) {
			if d.Clients.RetiredUse == nil {
				d.Clients.RetiredUse = map[int]time.Time{}
			}
			d.Clients.RetiredUse[v.Number] = now
		}
	}
	return nil
}

// The pauses between two probes of the same version for the same client.
const (
	minProbePause = time.Minute
	maxProbePause = 15 * time.Minute
)

// Rejected is the server's answer that it does not take a version from a client, or that it could not be asked. It
// changes nothing for a client that is not known.
type Rejected struct {
	Client  Client
	Version int
	Answer  string // why, fit to be shown
}

func (e Rejected) apply(d *draft, now time.Time) error {
	standing := d.standing(e.Client)
	if standing == nil {
		return nil
	}
	probe := &standing.Probe
	if probe.Version != e.Version {
		*probe = Probe{Version: e.Version, FirstTime: now}
	}
	pause := min(minProbePause<<min(probe.Asked, 4), maxProbePause)
	probe.Asked++
	probe.LastTime, probe.NextTime, probe.Answer = now, now.Add(pause), e.Answer
	return nil
}

// Prune drops what would otherwise stay for ever: clients that nothing is configured for any more and that would hold
// a promotion up, and the use of versions that are not retired.
type Prune struct {
	Configured []Client // those that stay
}

func (e Prune) apply(d *draft, _ time.Time) error {
	configured := make(map[Client]bool, len(e.Configured))
	for _, client := range e.Configured {
		configured[client] = true
	}
	d.Clients.Standings = slices.DeleteFunc(d.Clients.Standings, func(s Standing) bool { return !configured[s.Client] })
	maps.DeleteFunc(d.Clients.RetiredUse, func(number int, _ time.Time) bool {
		v := d.get(number)
		return v == nil || v.State != Retired
	})
	return nil
}

// Add adds a version: pending, or active at once where nothing is active that it could take the place of.
type Add struct {
	Version Version // its KID, Imported and CreatedTime; the rest is set here
	Cause   string
}

func (e Add) apply(d *draft, _ time.Time) error {
	if d.find(Pending) != nil {
		return ErrPendingExists
	}
	v := e.Version
	v.Number, v.State = 1, Pending
	if len(d.Versions) > 0 {
		v.Number = d.Versions[len(d.Versions)-1].Number + 1
	}
	if d.find(Active) == nil {
		v.State, v.ActivatedTime = Active, v.CreatedTime
	}
	d.Versions = append(d.Versions, v)
	d.transitions = append(d.transitions, Transition{v.Number, v.KID, "", v.State, e.Cause})
	return nil
}

// Settle does what has become due. It promotes the pending version when it was accepted for every known client, and
// there is one; and it destroys retired versions whose grace is over and that no client needs.
type Settle struct{}

func (Settle) apply(d *draft, now time.Time) error {
	d.settle(now)
	return nil
}

func (d *draft) settle(now time.Time) {
	if d.find(Pending) != nil && len(d.Clients.Standings) > 0 && len(d.Waiting()) == 0 {
		d.promote(now, "accepted for every client")
	}
	for i := range d.Versions {
		v := &d.Versions[i]
		if v.State == Retired && !now.Before(d.GraceEnd(*v)) && len(d.Needs(v.Number)) == 0 {
			d.step(v, Destroyed, now, "the grace period is over")
		}
	}
}

// Activate is Settle for an operator who wants no version to be pending afterwards. The error is a NotAcceptedError.
type Activate struct{}

func (Activate) apply(d *draft, now time.Time) error {
	d.settle(now)
	if d.find(Pending) == nil {
		return nil
	}
	var waiting []Client
	for _, standing := range d.Waiting() {
		waiting = append(waiting, standing.Client)
	}
	return &NotAcceptedError{waiting}
}

// Force promotes the pending version without a proof. It counts as accepted for all known clients.
type Force struct{}

func (Force) apply(d *draft, now time.Time) error {
	pending := d.find(Pending)
	if pending == nil {
		return ErrNoPending
	}
	pending.Forced = len(d.Waiting()) > 0 || len(d.Clients.Standings) == 0
	d.promote(now, "forced by an operator")
	for i := range d.Clients.Standings {
		standing := &d.Clients.Standings[i]
		if standing.Accepted != pending.Number {
			standing.Accepted, standing.AcceptedTime, standing.Probe = pending.Number, now, Probe{}
		}
	}
	return nil
}

// Abandon destroys the pending version, unless a client needs it already.
type Abandon struct{}

func (Abandon) apply(d *draft, now time.Time) error {
	pending := d.find(Pending)
	switch {
	case pending == nil:
		return ErrNoPending
	case len(d.Needs(pending.Number)) > 0:
		return ErrPendingInUse
	}
	d.step(pending, Destroyed, now, "abandoned by an operator")
	return nil
}

const retiredByOperator = "retired by an operator"

// Retire ends the grace period of a retired version now, unless a client needs it.
type Retire struct{ Version int }

func (e Retire) apply(d *draft, now time.Time) error {
	v := d.get(e.Version)
	switch {
	case v == nil:
		return ErrNoSuchVersion
	case v.State == Destroyed:
		return ErrDestroyed
	case v.State != Retired:
		return ErrNotRetired
	case len(d.Needs(v.Number)) > 0:
		return ErrVersionInUse
	}
	d.step(v, Destroyed, now, retiredByOperator)
	return nil
}

// RetireAll is Retire for every retired version that no client needs. It is an error when there is none.
type RetireAll struct{}

func (RetireAll) apply(d *draft, now time.Time) error {
	destroyed, err := false, ErrNotRetired
	for i := range d.Versions {
		v := &d.Versions[i]
		switch {
		case v.State != Retired:
		case len(d.Needs(v.Number)) > 0:
			err = ErrVersionInUse
		default:
			d.step(v, Destroyed, now, retiredByOperator)
			destroyed = true
		}
	}
	if destroyed {
		return nil
	}
	return err
}

// Compromise destroys a version at once, whoever needs it, and marks it compromised. If it was the active one, a
// pending one takes its place unproved.
type Compromise struct{ Version int }

func (e Compromise) apply(d *draft, now time.Time) error {
	v := d.get(e.Version)
	switch {
	case v == nil:
		return ErrNoSuchVersion
	case v.State == Destroyed:
		return ErrDestroyed
	}
	wasActive := v.State == Active
	v.Compromised = true
	d.step(v, Destroyed, now, "marked compromised by an operator")
	if pending := d.find(Pending); wasActive && pending != nil {
		pending.Forced = true
		d.promote(now, "the active version was compromised")
	}
	return nil
}
