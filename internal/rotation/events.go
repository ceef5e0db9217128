// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Event is what may happen to a key: an answer of the server (Answered, Probed), or a step that the engine or an
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
	ErrNotRetired    = errors.New("the version is not retired")
	ErrDestroyed     = errors.New("was destroyed")
	ErrTooManyHeld   = errors.New("it holds as many versions as a key can, and each is still needed")
)

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
	return k.Replay([]Event{e}, now)
}

// Replay is Apply for several events in their order. It ends at the first error.
func (k Key) Replay(events []Event, now time.Time) (Key, []Transition, error) {
	d := draft{Key: k}
	d.Versions = slices.Clone(k.Versions)
	for _, e := range events {
		if err := e.apply(&d, now); err != nil {
			return Key{}, nil, err
		}
	}
	d.trim()
	return d.Key, d.transitions, nil
}

// draft is a copy of a key, for events to change. Its clients are copied with the first change of them: there may be
// thousands.
type draft struct {
	Key
	ownsClients bool
	transitions []Transition
}

// trim drops what would otherwise grow without end: the records of versions that were destroyed long ago.
func (d *draft) trim() {
	destroyed := len(d.Versions) - d.heldCount()
	d.Versions = slices.DeleteFunc(d.Versions, func(v Version) bool {
		if v.Held() || destroyed <= maxDestroyedKept {
			return false
		}
		destroyed--
		return true
	})
}

// put replaces what is known of a client.
func (d *draft) put(digest Digest, r Record) {
	if !d.ownsClients {
		d.Clients, d.ownsClients = maps.Clone(d.Clients), true
		if d.Clients == nil {
			d.Clients = Clients{}
		}
	}
	if r.empty() {
		delete(d.Clients, digest)
		return
	}
	d.Clients[digest] = r
}

// step moves a version of the draft on.
func (d *draft) step(v *Version, to State, now time.Time, cause string) {
	d.transitions = append(d.transitions, Transition{v.Number, v.KID, v.State, to, cause})
	v.State = to
	switch to {
	case Active:
		v.ActivatedTime, v.RetiredTime, v.GraceEnded = now, time.Time{}, false
	case Retired:
		v.RetiredTime = now
	case Pending:
		v.RetiredTime, v.GraceEnded = time.Time{}, false
	case Destroyed:
		v.DestroyedTime = now
		d.forget(v.Number)
	}
}

// forget drops what was observed of a version.
func (d *draft) forget(version int) {
	for digest, r := range d.Clients {
		if r.verdict(version) == nil && r.Recorded != version {
			continue
		}
		r = r.without(version)
		if r.Recorded == version {
			r.Recorded = 0
		}
		d.put(digest, r)
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

// Answered is what the server has said of versions for a client: which it takes, and which it rejects while it takes
// another one.
type Answered struct {
	Client   Client
	Verdicts []Verdict
	// Doubted are versions that were rejected together with all others. That ends no proof, since the client may be broken;
	// but what was taken before is to be asked again.
	Doubted []int
}

// Rejections count together with a proof or not at all: without one, nothing tells them from a client that is broken.
func (e Answered) apply(d *draft, now time.Time) error {
	for _, version := range e.Doubted {
		r := d.Of(e.Client)
		if _, proven := r.Proven(version); proven {
			d.put(e.Client.Digest(), r.with(Verdict{Version: version, Taken: true}))
		}
	}
	proves := slices.ContainsFunc(e.Verdicts, func(v Verdict) bool { return v.Taken && d.holds(v.Version) })
	if !proves {
		return nil
	}
	r := d.Of(e.Client)
	for _, v := range e.Verdicts {
		if !d.holds(v.Version) {
			continue
		}
		r = r.with(v)
		if !v.Taken && r.Recorded == v.Version {
			r.Recorded = 0
		}
	}
	d.put(e.Client.Digest(), r)
	answers := slices.ContainsFunc(e.Verdicts, func(v Verdict) bool { return v.Taken && !v.Time.Before(r.Probe.LastTime) })
	if answers && r.Probe.Outcome != Rejected || d.content(e.Client, now) { // it is broken or mute no more, or nothing is left to ask
		r.Probe = Probe{}
		d.put(e.Client.Digest(), r)
	}
	return nil
}

func (d *draft) holds(version int) bool {
	v := d.get(version)
	return v != nil && v.Held()
}

// Probed says that the server was asked about a client, and what came of it. What it has said of versions is told by
// Answered before.
type Probed struct {
	Client  Client
	Outcome Outcome // empty when the server took what was to be taken
	Answer  string  // the last one, fit to be shown
}

func (e Probed) apply(d *draft, now time.Time) error {
	wanted := d.wanted()
	if wanted == nil {
		return nil
	}
	r := d.Of(e.Client)
	if e.Outcome == "" {
		r.Probe = Probe{}
		d.put(e.Client.Digest(), r)
		return nil
	}
	probe := d.probed(r)
	if probe.Outcome != e.Outcome {
		probe.Outcome, probe.FirstTime = e.Outcome, now
	}
	pause := min(minProbePause<<min(probe.Count, 11), d.longestPause())
	if e.Outcome == Broken {
		pause = max(pause, brokenProbePause)
	}
	probe.Version = wanted.Number
	probe.Count++
	probe.LastTime, probe.NextTime, probe.Answer = now, now.Add(pause), e.Answer
	r.Probe = probe
	d.put(e.Client.Digest(), r)
	return nil
}

// Add adds a version: pending, or active at once where none is held that it could take the place of.
type Add struct {
	Version Version // its KID, Imported and CreatedTime; the rest is set here
	Cause   string
}

func (e Add) apply(d *draft, _ time.Time) error {
	if d.find(Pending) != nil {
		return ErrPendingExists
	}
	if d.heldCount() >= MaxHeld {
		return ErrTooManyHeld
	}
	v := e.Version
	v.Number, v.State = 1, Pending
	if len(d.Versions) > 0 {
		v.Number = d.Versions[len(d.Versions)-1].Number + 1
	}
	if d.heldCount() == 0 {
		v.State, v.ActivatedTime = Active, v.CreatedTime
	}
	d.Versions = append(d.Versions, v)
	d.transitions = append(d.transitions, Transition{v.Number, v.KID, "", v.State, e.Cause})
	return nil
}

// Revive makes a retired version pending again. What is known of it stays.
type Revive struct {
	Version int
	Cause   string
}

func (e Revive) apply(d *draft, now time.Time) error {
	v := d.get(e.Version)
	switch {
	case v == nil:
		return ErrNoSuchVersion
	case v.State != Retired:
		return ErrNotRetired
	case d.find(Pending) != nil:
		return ErrPendingExists
	}
	d.step(v, Pending, now, e.Cause)
	return nil
}

// Settle does what may be done by now: it promotes the pending version, destroys versions whose grace is over and that
// nobody needs, and drops what is known of clients that left, and of versions that an operator has destroyed.
type Settle struct{ Configuration Configuration }

func (e Settle) apply(d *draft, now time.Time) error {
	c := e.Configuration
	if blockers, proven := d.PromotionBlockers(c, now); proven && len(blockers) == 0 {
		d.record(c)
		d.promote(now, "accepted by the server")
	}
	if stop := c.Stop(now); stop != Go {
		return nil
	}
	for _, number := range d.doomed(now) {
		if len(d.DestructionBlockers(number, c, now)) == 0 {
			d.step(d.get(number), Destroyed, now, "the grace period is over, and no client needs it")
		}
	}
	configured := make(map[Digest]bool, len(c.Clients))
	for _, client := range c.Clients {
		configured[client.Digest()] = true
	}
	for digest, r := range d.Clients {
		switch {
		case !configured[digest]:
			d.put(digest, Record{})
		case slices.ContainsFunc(r.Verdicts, func(v Verdict) bool { return !d.holds(v.Version) }):
			r.Verdicts = slices.DeleteFunc(slices.Clone(r.Verdicts), func(v Verdict) bool { return !d.holds(v.Version) })
			d.put(digest, r)
		}
	}
	return nil
}

// record notes the version that signs so far for the clients that nothing is known for, so that it goes on signing.
func (d *draft) record(c Configuration) {
	active := d.find(Active)
	if active == nil {
		return
	}
	for _, client := range c.Clients {
		if r := d.Of(client.Client); d.chosen(r, 0) == 0 {
			r.Recorded = active.Number
			d.put(client.Digest(), r)
		}
	}
}

const forcedByOperator = "forced by an operator"

// Force promotes the pending version without a proof. It signs for every client from then on.
type Force struct{}

func (Force) apply(d *draft, now time.Time) error {
	pending := d.find(Pending)
	if pending == nil {
		return ErrNoPending
	}
	pending.Forced = true
	d.promote(now, forcedByOperator)
	return nil
}

// Abandon makes the pending version a retired one whose grace is over.
type Abandon struct {
	Force bool // destroy it at once, whoever needs it
}

func (e Abandon) apply(d *draft, now time.Time) error {
	pending := d.find(Pending)
	if pending == nil {
		return ErrNoPending
	}
	d.step(pending, Retired, now, "abandoned by an operator")
	pending.GraceEnded = true
	if e.Force {
		d.step(pending, Destroyed, now, forcedByOperator)
	}
	return nil
}

// Retire ends the grace period of a retired version, or of all of them.
type Retire struct {
	Version int  // 0 for all
	Force   bool // destroy them at once, whoever needs them
}

func (e Retire) apply(d *draft, now time.Time) error {
	v := d.get(e.Version)
	switch {
	case e.Version == 0 && d.find(Retired) == nil:
		return ErrNotRetired
	case e.Version == 0:
	case v == nil:
		return ErrNoSuchVersion
	case v.State == Destroyed:
		return destroyedBefore(v)
	case v.State != Retired:
		return ErrNotRetired
	}
	for i := range d.Versions {
		v := &d.Versions[i]
		if v.State != Retired || e.Version != 0 && v.Number != e.Version {
			continue
		}
		v.GraceEnded = true
		if e.Force {
			d.step(v, Destroyed, now, forcedByOperator)
		}
	}
	return nil
}

// destroyedBefore says when a version was destroyed.
func destroyedBefore(v *Version) error {
	return fmt.Errorf("version %d %w on %s", v.Number, ErrDestroyed, v.DestroyedTime.UTC().Format(time.RFC3339))
}

// Compromise destroys a version at once, whoever needs it, and marks it compromised. If it was the active one, the
// pending one takes its place unproved, else the newest retired one.
type Compromise struct{ Version int }

func (e Compromise) apply(d *draft, now time.Time) error {
	v := d.get(e.Version)
	switch {
	case v == nil:
		return ErrNoSuchVersion
	case v.State == Destroyed:
		return destroyedBefore(v)
	}
	wasActive := v.State == Active
	v.Compromised = true
	d.step(v, Destroyed, now, "marked compromised by an operator")
	if !wasActive {
		return nil
	}
	next := d.find(Pending)
	if next == nil {
		next = d.find(Retired)
	}
	if next != nil {
		d.step(next, Active, now, "the active version was compromised")
	}
	return nil
}
