// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package rotation is the life of a signing key as a pure machine: which version signs for which client, when a new
// version takes over, when an old one may be destroyed. It knows neither Vault nor HTTP, holds no private key, reads
// no clock and does no input or output: a Key, an Event and the time make the next Key.
//
// The server verifies per client, so what it accepts is kept per Client. A new version is promoted only when it was
// accepted for every client, which is why replacing a key can't cause an outage.
package rotation

import (
	"maps"
	"slices"
	"time"
)

// State of a version, in the order of its life.
type State string

const (
	// Pending is published, and signs for the clients that it was accepted for.
	Pending State = "pending"
	// Active is what signs by default. A key has at most one, and at most one that is pending.
	Active State = "active"
	// Retired is still published and held, in case the server does not accept its successor after all.
	Retired State = "retired"
	// Destroyed has no private key any more. Its public record stays.
	Destroyed State = "destroyed"
)

// Version is the public record of one key pair.
type Version struct {
	Number   int    `json:"version"` // from 1, rising
	State    State  `json:"state"`
	KID      string `json:"kid"`
	Imported bool   `json:"imported"` // its private key has lived elsewhere
	// Forced is true for a version that was promoted without having been accepted for every client.
	Forced bool `json:"forced,omitempty"`
	// Compromised is true for a version that was destroyed because its private key may be known to others.
	Compromised bool `json:"compromised,omitempty"`

	CreatedTime   time.Time `json:"created_time"`
	ActivatedTime time.Time `json:"activated_time,omitzero"`
	RetiredTime   time.Time `json:"retired_time,omitzero"`
	DestroyedTime time.Time `json:"destroyed_time,omitzero"`
}

// Held reports whether there is a private key to sign with.
func (v Version) Held() bool { return v.State != Destroyed }

// Client is whom the server verifies: a client ID at a token endpoint. Roles that share both are one client.
type Client struct {
	ClientID string `json:"client_id"`
	TokenURL string `json:"token_url"`
}

// Standing is what is known of one client. Clients are known once the server has accepted a version from them.
type Standing struct {
	Client
	// Accepted is the version that the client's last token was minted with; it signs first.
	Accepted     int       `json:"accepted"`
	AcceptedTime time.Time `json:"accepted_time"` // when Accepted changed last
	// Probe is about the version that should be accepted next. It is zero unless that was ever rejected.
	Probe Probe `json:"trial,omitzero"`
}

// Probe is the history of asking the server to accept a version from a client.
type Probe struct {
	Version   int       `json:"version"` // 0: nothing was asked
	Asked     int       `json:"tries"`   // how often
	FirstTime time.Time `json:"first_time"`
	LastTime  time.Time `json:"last_time"`
	NextTime  time.Time `json:"next_time"`
	Answer    string    `json:"answer"` // the last rejection, fit to be shown
}

// Clients is what is known of the clients of one key. It is stored apart from the key: it changes with mints, and a
// proof must not discard the mint that brought it.
type Clients struct {
	Standings []Standing `json:"standings"`
	// RetiredUse is when each retired version minted last: its grace period begins again with that.
	RetiredUse map[int]time.Time `json:"retired_use,omitempty"`
}

// Equal reports whether both know the same.
func (c Clients) Equal(other Clients) bool {
	return slices.Equal(c.Standings, other.Standings) && maps.Equal(c.RetiredUse, other.RetiredUse)
}

// Key is the versions of one signing key and what is known of its clients. It is a value: no method changes it, and
// nothing that a method returns shares memory with it that could change.
type Key struct {
	Versions []Version // oldest first
	Clients  Clients
	Grace    time.Duration // how long a retired version is held
}

func (k Key) clone() Key {
	k.Versions = slices.Clone(k.Versions)
	k.Clients = Clients{slices.Clone(k.Clients.Standings), maps.Clone(k.Clients.RetiredUse)}
	return k
}

// Find returns the version in a state. Of several retired or destroyed ones it is the newest.
func (k Key) Find(state State) (v Version, found bool) { return copied(k.find(state)) }

// Get returns a version by its number.
func (k Key) Get(number int) (v Version, found bool) { return copied(k.get(number)) }

// Wanted returns the version that every client should come to sign with: the pending one, else the active one.
func (k Key) Wanted() (v Version, found bool) { return copied(k.wanted()) }

func copied(v *Version) (Version, bool) {
	if v == nil {
		return Version{}, false
	}
	return *v, true
}

// find is Find for the package itself: it returns a pointer into the key, nil for none.
func (k Key) find(state State) *Version {
	for i := len(k.Versions) - 1; i >= 0; i-- {
		if k.Versions[i].State == state {
			return &k.Versions[i]
		}
	}
	return nil
}

// get is to Get what find is to Find.
func (k Key) get(number int) *Version {
	for i := range k.Versions {
		if k.Versions[i].Number == number {
			return &k.Versions[i]
		}
	}
	return nil
}

// wanted is to Wanted what find is to Find.
func (k Key) wanted() *Version {
	if pending := k.find(Pending); pending != nil {
		return pending
	}
	return k.find(Active)
}

// standing returns a pointer to what is known of a client, nil when nothing is.
func (k Key) standing(client Client) *Standing {
	for i := range k.Clients.Standings {
		if k.Clients.Standings[i].Client == client {
			return &k.Clients.Standings[i]
		}
	}
	return nil
}

// Order returns the versions to sign with for a client, best first: the one that was accepted from it last, then the
// newer ones, then the older ones. Without such a one: the active, the pending, the retired ones. All are held.
func (k Key) Order(client Client) []int {
	var order []int
	add := func(v *Version) {
		if v != nil && v.Held() && !slices.Contains(order, v.Number) {
			order = append(order, v.Number)
		}
	}
	if standing := k.standing(client); standing != nil {
		add(k.get(standing.Accepted))
	}
	if len(order) == 0 {
		add(k.find(Active))
		add(k.find(Pending))
	}
	for i := len(k.Versions) - 1; i >= 0; i-- {
		add(&k.Versions[i])
	}
	return order
}

// Waiting returns the clients that the wanted version was not accepted for, in the order in which they are known.
func (k Key) Waiting() []Standing {
	wanted := k.wanted()
	if wanted == nil {
		return nil
	}
	var waiting []Standing
	for _, standing := range k.Clients.Standings {
		if standing.Accepted != wanted.Number {
			waiting = append(waiting, standing)
		}
	}
	return waiting
}

// Due returns the clients for which the server should be asked now whether it accepts the wanted version.
func (k Key) Due(now time.Time) []Client {
	wanted := k.wanted()
	var due []Client
	for _, standing := range k.Waiting() { // nobody waits when nothing is wanted
		probe := standing.Probe
		// A clock that was set back must not put the next probe off for longer than a pause.
		if probe.Version != wanted.Number || !now.Before(probe.NextTime) || probe.NextTime.Sub(now) > maxProbePause {
			due = append(due, standing.Client)
		}
	}
	return due
}

// Needs returns the clients whose tokens a version mints.
func (k Key) Needs(number int) []Client {
	var clients []Client
	for _, standing := range k.Clients.Standings {
		if standing.Accepted == number {
			clients = append(clients, standing.Client)
		}
	}
	return clients
}

// GraceEnd returns when a retired version may be destroyed: the grace period after it was retired, or minted last.
func (k Key) GraceEnd(v Version) time.Time {
	from := v.RetiredTime
	if last := k.Clients.RetiredUse[v.Number]; last.After(from) {
		from = last
	}
	return from.Add(k.Grace)
}
