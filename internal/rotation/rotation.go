// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package rotation is the life of a signing key as a pure machine: which version signs for whom, when a new one takes
// over, when an old one may go. It knows neither Vault nor Redox, holds no private key, reads no clock and does no
// input or output: a record, an event and the time give the new record.
//
// Redox verifies per client, so what it accepts is kept per User. A new version is promoted only when every user has
// had it accepted, which is why replacing a key can't cause an outage.
package rotation

import (
	"maps"
	"slices"
	"time"
)

// State of a version, in the order of its life.
type State string

const (
	// Pending is published, and signs for the users that Redox has accepted it from.
	Pending State = "pending"
	// Active is what signs by default. A key has at most one, and at most one that is pending.
	Active State = "active"
	// Retired is still published and held, in case Redox does not take its successor after all.
	Retired State = "retired"
	// Destroyed has no private key any more. Its public record stays.
	Destroyed State = "destroyed"
)

// Version is the public record of one key pair.
type Version struct {
	Number   int    `json:"version"` // from 1, rising
	State    State  `json:"state"`
	KeyID    string `json:"kid"`
	Imported bool   `json:"imported"` // its private key has lived elsewhere
	// Forced says that it was promoted without Redox having accepted it for every user.
	Forced bool `json:"forced,omitempty"`
	// Compromised says that it was destroyed because its private key may be known to others.
	Compromised bool `json:"compromised,omitempty"`

	CreatedTime   time.Time `json:"created_time"`
	ActivatedTime time.Time `json:"activated_time,omitzero"`
	RetiredTime   time.Time `json:"retired_time,omitzero"`
	DestroyedTime time.Time `json:"destroyed_time,omitzero"`
}

// Held says whether there is a private key to sign with.
func (v *Version) Held() bool { return v.State != Destroyed }

// User is whom Redox verifies: a client at a token endpoint. Roles that share both are one user.
type User struct {
	ClientID string `json:"client_id"`
	TokenURL string `json:"token_url"`
}

// Standing is what is known of one user of the key. Users are known once Redox has accepted a version from them.
type Standing struct {
	User
	// Accepted is the version with which the user's last token was minted; it signs first.
	Accepted     int       `json:"accepted"`
	AcceptedTime time.Time `json:"accepted_time"` // when Accepted changed last
	// Trial is about the version that should be accepted next, if that was ever refused.
	Trial *Trial `json:"trial,omitempty"`
}

// Trial is the history of attempts to have a version accepted for a user.
type Trial struct {
	Version   int       `json:"version"`
	Tries     int       `json:"tries"`
	FirstTime time.Time `json:"first_time"`
	LastTime  time.Time `json:"last_time"`
	NextTime  time.Time `json:"next_time"`
	Answer    string    `json:"answer"` // the last refusal, fit to be shown
}

// Acceptance is what Redox has accepted of one key, and from whom. It is stored apart from the key: it changes with
// mints, and a proof must not discard the mint that brought it.
type Acceptance struct {
	Standings []Standing `json:"standings"`
	// RetiredUse is when each retired version minted last: its grace period begins again with that.
	RetiredUse map[int]time.Time `json:"retired_use,omitempty"`
}

// The pauses between two trials of the same version for the same user, as the periodic work makes them.
const (
	firstTrialPause = time.Minute
	mostTrialPause  = 15 * time.Minute
)

// Find gives the version in a state, nil when there is none. Of several retired ones it is the newest.
func Find(versions []Version, state State) *Version {
	for i := len(versions) - 1; i >= 0; i-- {
		if versions[i].State == state {
			return &versions[i]
		}
	}
	return nil
}

// Get gives a version by its number, nil when there is none.
func Get(versions []Version, number int) *Version {
	for i := range versions {
		if versions[i].Number == number {
			return &versions[i]
		}
	}
	return nil
}

// Order gives the versions to try for a user's mint, best first: the one that Redox accepted from the user last, then
// the newer ones, then the older ones. Without such a one: the active, the pending, the retired ones. All are held.
func Order(versions []Version, acceptance *Acceptance, user User) []int {
	var order []int
	add := func(v *Version) {
		if v != nil && v.Held() && !slices.Contains(order, v.Number) {
			order = append(order, v.Number)
		}
	}
	if standing := acceptance.standing(user); standing != nil {
		add(Get(versions, standing.Accepted))
	}
	if len(order) == 0 {
		add(Find(versions, Active))
		add(Find(versions, Pending))
	}
	for i := len(versions) - 1; i >= 0; i-- {
		add(&versions[i])
	}
	return order
}

// standing gives what is known of a user, nil when nothing is.
func (a *Acceptance) standing(user User) *Standing {
	for i := range a.Standings {
		if a.Standings[i].User == user {
			return &a.Standings[i]
		}
	}
	return nil
}

// retiredUseStep is how much later a retired version's last use must be to be recorded again: each record is a write.
const retiredUseStep = time.Hour

// Minted records that Redox accepted a version from a user. It says whether anything is to be stored.
func (a *Acceptance) Minted(versions []Version, user User, number int, now time.Time) (changed bool) {
	standing := a.standing(user)
	if standing == nil {
		a.Standings = append(a.Standings, Standing{User: user})
		standing = &a.Standings[len(a.Standings)-1]
	}
	if standing.Accepted != number {
		standing.Accepted, standing.AcceptedTime = number, now
		changed = true
	}
	if standing.Trial != nil && standing.Trial.Version == number {
		standing.Trial = nil
		changed = true
	}
	if v := Get(versions, number); v != nil && v.State == Retired {
		if last, known := a.RetiredUse[number]; !known || now.Sub(last) >= retiredUseStep || now.Before(last) {
			if a.RetiredUse == nil {
				a.RetiredUse = map[int]time.Time{}
			}
			a.RetiredUse[number] = now
			changed = true
		}
	}
	return changed
}

// Refused records that a version could not be proved for a known user: Redox refused it, or could not be asked.
// answer says why. It says whether anything is to be stored, which for an unknown user it is not.
func (a *Acceptance) Refused(user User, number int, answer string, now time.Time) (changed bool) {
	standing := a.standing(user)
	if standing == nil {
		return false
	}
	trial := standing.Trial
	if trial == nil || trial.Version != number {
		trial = &Trial{Version: number, FirstTime: now}
	} else {
		copied := *trial
		trial = &copied
	}
	pause := min(firstTrialPause<<min(trial.Tries, 4), mostTrialPause)
	trial.Tries++
	trial.LastTime, trial.NextTime, trial.Answer = now, now.Add(pause), answer
	standing.Trial = trial
	return true
}

// Wanted gives the version that every user should come to sign with: the pending one, else the active one, nil when
// there is neither.
func Wanted(versions []Version) *Version {
	if pending := Find(versions, Pending); pending != nil {
		return pending
	}
	return Find(versions, Active)
}

// Waiting gives the users that have not accepted the wanted version, in the order they are known.
func (a *Acceptance) Waiting(versions []Version) []Standing {
	wanted := Wanted(versions)
	if wanted == nil {
		return nil
	}
	var waiting []Standing
	for _, standing := range a.Standings {
		if standing.Accepted != wanted.Number {
			waiting = append(waiting, standing)
		}
	}
	return waiting
}

// Due gives the users for whom the periodic work should try the wanted version now.
func (a *Acceptance) Due(versions []Version, now time.Time) []User {
	wanted := Wanted(versions)
	var due []User
	for _, standing := range a.Waiting(versions) { // nobody waits when nothing is wanted
		trial := standing.Trial
		// A clock that was set back must not put trials off for longer than a pause.
		if trial == nil || trial.Version != wanted.Number || !now.Before(trial.NextTime) ||
			trial.NextTime.Sub(now) > mostTrialPause {
			due = append(due, standing.User)
		}
	}
	return due
}

// Prune drops what would otherwise stay for ever: users that keep does not name, those that nothing is configured for
// any more and that would hold a promotion up, and the use of versions that are not retired. It says whether anything
// is to be stored.
func (a *Acceptance) Prune(versions []Version, keep func(User) bool) (changed bool) {
	before := len(a.Standings) + len(a.RetiredUse)
	a.Standings = slices.DeleteFunc(a.Standings, func(s Standing) bool { return !keep(s.User) })
	maps.DeleteFunc(a.RetiredUse, func(number int, _ time.Time) bool {
		v := Get(versions, number)
		return v == nil || v.State != Retired
	})
	return len(a.Standings)+len(a.RetiredUse) != before
}

// Needs gives the users whose tokens a version mints.
func (a *Acceptance) Needs(number int) []User {
	var users []User
	for _, standing := range a.Standings {
		if standing.Accepted == number {
			users = append(users, standing.User)
		}
	}
	return users
}
