// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"errors"
	"slices"
	"time"
)

// Transition is one version's step from a state to the next.
type Transition struct {
	Version int
	KeyID   string
	From    State // empty for a new version
	To      State
	Cause   string
}

// What stands in the way of a change. Each is to be told with what to do.
var (
	ErrPendingExists = errors.New("there is a pending version already")
	ErrNoPending     = errors.New("there is no pending version")
	ErrNoSuchVersion = errors.New("there is no such version")
	ErrPendingInUse  = errors.New("the pending version signs for a client already")
	ErrNotRetired    = errors.New("the version is not retired")
	ErrVersionInUse  = errors.New("the version signs for a client")
	ErrDestroyed     = errors.New("the version is destroyed already")
)

// Add gives the versions with a new one: pending, or active at once where nothing is active that it could take the
// place of. v has its KeyID, Imported and CreatedTime; the rest is set here.
func Add(versions []Version, v Version, cause string) ([]Version, Transition, error) {
	if Find(versions, Pending) != nil {
		return nil, Transition{}, ErrPendingExists
	}
	v.Number, v.State = 1, Pending
	if len(versions) > 0 {
		v.Number = versions[len(versions)-1].Number + 1
	}
	if Find(versions, Active) == nil {
		v.State, v.ActivatedTime = Active, v.CreatedTime
	}
	return append(slices.Clone(versions), v), Transition{v.Number, v.KeyID, "", v.State, cause}, nil
}

// Settle does what has become due: it promotes the pending version when every known user has accepted it, and at
// least one has; and it destroys retired versions whose grace is over and that nobody needs. It gives the new versions
// and what has changed, nothing when nothing has.
func Settle(versions []Version, acceptance *Acceptance, grace time.Duration, now time.Time) ([]Version, []Transition) {
	settled := slices.Clone(versions)
	var transitions []Transition
	if pending := Find(settled, Pending); pending != nil &&
		len(acceptance.Standings) > 0 && len(acceptance.Waiting(settled)) == 0 {
		transitions = promote(settled, now, "accepted for every client")
	}
	for i := range settled {
		v := &settled[i]
		if v.State == Retired && !now.Before(GraceEnd(v, acceptance, grace)) && len(acceptance.Needs(v.Number)) == 0 {
			transitions = append(transitions, v.step(Destroyed, now, "the grace period is over"))
		}
	}
	return settled, transitions
}

// GraceEnd is when a retired version may be destroyed: the grace period after it was retired, or minted last.
func GraceEnd(v *Version, acceptance *Acceptance, grace time.Duration) time.Time {
	from := v.RetiredTime
	if last := acceptance.RetiredUse[v.Number]; last.After(from) {
		from = last
	}
	return from.Add(grace)
}

// promote makes the pending version active and retires the one before. There is a pending one.
func promote(versions []Version, now time.Time, cause string) []Transition {
	pending, active := Find(versions, Pending), Find(versions, Active)
	var transitions []Transition
	if active != nil {
		transitions = append(transitions, active.step(Retired, now, "succeeded by another version"))
	}
	return append(transitions, pending.step(Active, now, cause))
}

// Force promotes the pending version without a proof. It counts as accepted for all known users.
func Force(versions []Version, acceptance *Acceptance, now time.Time) ([]Version, []Transition, error) {
	forced := slices.Clone(versions)
	pending := Find(forced, Pending)
	if pending == nil {
		return nil, nil, ErrNoPending
	}
	pending.Forced = len(acceptance.Waiting(forced)) > 0 || len(acceptance.Standings) == 0
	number := pending.Number
	transitions := promote(forced, now, "forced by an operator")
	for i := range acceptance.Standings {
		standing := &acceptance.Standings[i]
		if standing.Accepted != number {
			standing.Accepted, standing.AcceptedTime, standing.Trial = number, now, nil
		}
	}
	return forced, transitions, nil
}

// Abandon drops the pending version, unless it signs for a client already.
func Abandon(versions []Version, acceptance *Acceptance, now time.Time) ([]Version, []Transition, error) {
	left := slices.Clone(versions)
	pending := Find(left, Pending)
	switch {
	case pending == nil:
		return nil, nil, ErrNoPending
	case len(acceptance.Needs(pending.Number)) > 0:
		return nil, nil, ErrPendingInUse
	}
	return left, []Transition{pending.step(Destroyed, now, "abandoned by an operator")}, nil
}

// Retire ends the grace period of a retired version now, unless a user needs it.
func Retire(versions []Version, acceptance *Acceptance, number int, now time.Time) ([]Version, []Transition, error) {
	left := slices.Clone(versions)
	v := Get(left, number)
	switch {
	case v == nil:
		return nil, nil, ErrNoSuchVersion
	case v.State == Destroyed:
		return nil, nil, ErrDestroyed
	case v.State != Retired:
		return nil, nil, ErrNotRetired
	case len(acceptance.Needs(number)) > 0:
		return nil, nil, ErrVersionInUse
	}
	return left, []Transition{v.step(Destroyed, now, "retired by an operator")}, nil
}

// RetireAll is Retire for every retired version that no user needs. It refuses when there is none.
func RetireAll(versions []Version, acceptance *Acceptance, now time.Time) ([]Version, []Transition, error) {
	left := slices.Clone(versions)
	var transitions []Transition
	refused := ErrNotRetired
	for i := range left {
		v := &left[i]
		switch {
		case v.State != Retired:
		case len(acceptance.Needs(v.Number)) > 0:
			refused = ErrVersionInUse
		default:
			transitions = append(transitions, v.step(Destroyed, now, "retired by an operator"))
		}
	}
	if len(transitions) == 0 {
		return nil, nil, refused
	}
	return left, transitions, nil
}

// Compromise destroys a version at once, whoever needs it, and marks it compromised. If it was the active one, a
// pending one takes its place unproved.
func Compromise(versions []Version, number int, now time.Time) ([]Version, []Transition, error) {
	left := slices.Clone(versions)
	v := Get(left, number)
	switch {
	case v == nil:
		return nil, nil, ErrNoSuchVersion
	case v.State == Destroyed:
		return nil, nil, ErrDestroyed
	}
	wasActive := v.State == Active
	v.Compromised = true
	transitions := []Transition{v.step(Destroyed, now, "marked compromised by an operator")}
	if pending := Find(left, Pending); wasActive && pending != nil {
		pending.Forced = true
		transitions = append(transitions, promote(left, now, "the active version was compromised")...)
	}
	return left, transitions, nil
}

// step moves the version on.
func (v *Version) step(to State, now time.Time, cause string) Transition {
	t := Transition{v.Number, v.KeyID, v.State, to, cause}
	v.State = to
	switch to {
	case Active:
		v.ActivatedTime = now
	case Retired:
		v.RetiredTime = now
	case Destroyed:
		v.DestroyedTime = now
	}
	return t
}
