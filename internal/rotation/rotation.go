// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package rotation is the life of a signing key as a pure machine: which version signs for which client, when a new
// version takes over, when an old one may be destroyed. It knows neither Vault nor HTTP, holds no private key, reads
// no clock and does no input or output: a Key, an Event and the time make the next Key.
//
// What the server takes it decides for each client by itself. So a version is destroyed only after every client that is
// configured was asked and took what it will sign with afterwards.
package rotation

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"slices"
	"time"
)

// State of a version, in the order of its life.
type State string

const (
	// Pending is published, and signs for the clients that have proven it.
	Pending State = "pending"
	// Active is what signs by default. A key that holds any version has exactly one, and at most one that is pending.
	Active State = "active"
	// Retired is still published and held, for clients whose server does not know its successor.
	Retired State = "retired"
	// Destroyed has no private key any more. Its public record stays for a while.
	Destroyed State = "destroyed"
)

// The bounds of a key's versions.
const (
	MaxHeld          = 10
	maxDestroyedKept = 100
)

// Version is the public record of one key pair.
type Version struct {
	Number   int    `json:"version"` // from 1, rising
	State    State  `json:"state"`
	KID      string `json:"kid"`
	Imported bool   `json:"imported"` // its private key has lived elsewhere
	// Forced is true for a version that an operator has promoted without proof. It signs for every client, except those
	// whose server rejects it.
	Forced bool `json:"forced,omitempty"`
	// GraceEnded is true for a retired version whose grace period an operator has ended.
	GraceEnded bool `json:"grace_ended,omitempty"`
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

// Digest stands for a client where many are stored. Names come from the configuration.
type Digest string

// Digest returns the client's digest.
func (c Client) Digest() Digest {
	sum := sha256.Sum256([]byte(c.ClientID + "\x00" + c.TokenURL))
	return Digest(base64.RawURLEncoding.EncodeToString(sum[:16]))
}

// Configured is a client that the configuration or a role resolves to.
type Configured struct {
	Client
	Enabled bool // by at least one role that is not disabled
}

// Configuration is whom a key signs for. It comes from what is configured, never from who was seen to use the key.
type Configuration struct {
	Clients []Configured
	// Incomplete is set when an entry can't be read: it may stand for any client.
	Incomplete bool
	// LeftTime is when a client was last taken out of the configuration. It may come back: Terraform replaces roles.
	LeftTime time.Time
}

// Stop is what stands in the way of destroying anything, whatever the clients say.
type Stop int

// What Configuration.Stop returns.
const (
	Go           Stop = iota
	NoClient          // nobody is configured: nobody can be asked
	Incomplete        // an entry is unreadable
	LeftRecently      // a client left less than a day ago
)

const day = 24 * time.Hour

// Stop returns what of the configuration stands in the way of destroying a version.
func (c Configuration) Stop(now time.Time) Stop {
	switch {
	case c.Incomplete:
		return Incomplete
	case len(c.Clients) == 0:
		return NoClient
	case !c.LeftTime.IsZero() && !elapsed(c.LeftTime, now, day):
		return LeftRecently
	}
	return Go
}

// elapsed reports whether so much time has passed. A time further in the future than that was stored by a clock that was
// ahead, and counts as long ago.
func elapsed(since, now time.Time, wait time.Duration) bool {
	passed := now.Sub(since)
	return passed >= wait || passed <= -wait
}

// freshFor is how long an answer of the server counts for a decision.
const freshFor = time.Hour

// fresh reports whether an answer still counts.
func fresh(t, now time.Time) bool { return !t.After(now) && now.Sub(t) < freshFor }

// Verdict is the server's last word on a version for a client, told apart from a client that it takes nothing from.
type Verdict struct {
	Version int       `json:"version"`
	Taken   bool      `json:"taken,omitempty"`
	Time    time.Time `json:"time"` // of a version that was taken: when the request began; else when its answer came
}

// Outcome is what came of asking the server about a client, when it did not take what it should.
type Outcome string

const (
	// Rejected is a version that the server does not take, while it takes another one.
	Rejected Outcome = "rejected"
	// Broken is a client that the server takes nothing from: a typo, or a disabled API key.
	Broken Outcome = "broken"
	// Unanswered is a question without an answer: the server is out of reach or overloaded.
	Unanswered Outcome = "unanswered"
)

// Probe is the history of asking the server about a client. It is zero unless something is left to ask.
type Probe struct {
	Version   int       `json:"version"` // that is to be taken
	Outcome   Outcome   `json:"outcome"`
	Count     int       `json:"count"`      // how often
	FirstTime time.Time `json:"first_time"` // of this outcome
	LastTime  time.Time `json:"last_time"`
	NextTime  time.Time `json:"next_time"`
	Answer    string    `json:"answer"` // the last one, fit to be shown
}

// Record is what is known of one client.
type Record struct {
	Verdicts []Verdict `json:"verdicts,omitempty"` // at most one per version, the oldest version first
	// Recorded is the version that was active when another one was promoted and nothing was proven for the client: it goes
	// on signing.
	Recorded int   `json:"recorded,omitempty"`
	Probe    Probe `json:"probe,omitzero"`
}

// verdict returns the server's word on a version, nil for none.
func (r Record) verdict(version int) *Verdict {
	for i := range r.Verdicts {
		if r.Verdicts[i].Version == version {
			return &r.Verdicts[i]
		}
	}
	return nil
}

// Proven reports whether the server has taken a version, and when.
func (r Record) Proven(version int) (at time.Time, proven bool) {
	if v := r.verdict(version); v != nil && v.Taken {
		return v.Time, true
	}
	return time.Time{}, false
}

// Rejects reports whether the server rejects a version from the client.
func (r Record) Rejects(version int) bool {
	v := r.verdict(version)
	return v != nil && !v.Taken
}

// with returns the record with one more verdict, which replaces the one on that version.
func (r Record) with(v Verdict) Record {
	r = r.without(v.Version)
	r.Verdicts = append(r.Verdicts, v)
	slices.SortFunc(r.Verdicts, func(a, b Verdict) int { return cmp.Compare(a.Version, b.Version) })
	return r
}

// without returns the record without the verdict on a version. It shares nothing that could change.
func (r Record) without(version int) Record {
	r.Verdicts = slices.DeleteFunc(slices.Clone(r.Verdicts), func(v Verdict) bool { return v.Version == version })
	return r
}

func (r Record) empty() bool {
	return len(r.Verdicts) == 0 && r.Recorded == 0 && r.Probe == Probe{}
}

// Clients is what is known of the clients of one key. It is stored apart from the key, and never changed: an event makes
// another one.
type Clients map[Digest]Record

// SameBut reports whether both know the same, but for the times at which versions were taken: those are worth no write.
func (c Clients) SameBut(other Clients) bool {
	return maps.EqualFunc(c, other, func(a, b Record) bool {
		return a.Recorded == b.Recorded && a.Probe == b.Probe && slices.EqualFunc(a.Verdicts, b.Verdicts, func(v, w Verdict) bool {
			return v.Version == w.Version && v.Taken == w.Taken
		})
	})
}

// Key is the versions of one signing key and what is known of its clients. It is a value: no method changes it, and
// nothing that a method returns shares memory with it that could change.
type Key struct {
	Versions []Version // oldest first
	Clients  Clients
	Grace    time.Duration // how long a retired version is held
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

// heldCount returns how many versions have a private key.
func (k Key) heldCount() int {
	held := 0
	for _, v := range k.Versions {
		if v.Held() {
			held++
		}
	}
	return held
}

// Of returns what is known of a client.
func (k Key) Of(client Client) Record { return k.Clients[client.Digest()] }

// chosen returns the newest held version that is proven or recorded for a client, 0 for none. One version can be left out.
func (k Key) chosen(r Record, without int) int {
	for i := len(k.Versions) - 1; i >= 0; i-- {
		v := k.Versions[i]
		if !v.Held() || v.Number == without {
			continue
		}
		_, proven := r.Proven(v.Number)
		if proven || r.Recorded == v.Number || v.Forced && !r.Rejects(v.Number) {
			return v.Number
		}
	}
	return 0
}

// signing returns the version that signs for a client: the newest held one that is proven or recorded, else the active
// one; 0 for none. One version can be left out.
func (k Key) signing(r Record, without int) int {
	if chosen := k.chosen(r, without); chosen != 0 {
		return chosen
	}
	if active := k.find(Active); active != nil && active.Number != without {
		return active.Number
	}
	return 0
}

// Signing returns the number of the version that signs for a client, 0 when none is held.
func (k Key) Signing(client Client) int { return k.signing(k.Of(client), 0) }

// Order returns the held versions to mint with for a client, best first: the one that signs, then the newest first.
func (k Key) Order(client Client) []int { return k.heldFrom(k.Signing(client)) }

// ProbeOrder returns the held versions to ask about: the wanted one, then the newest first.
func (k Key) ProbeOrder() []int {
	if wanted := k.wanted(); wanted != nil {
		return k.heldFrom(wanted.Number)
	}
	return nil
}

func (k Key) heldFrom(first int) []int {
	var order []int
	if v := k.get(first); v != nil && v.Held() {
		order = append(order, first)
	}
	for i := len(k.Versions) - 1; i >= 0; i-- {
		if v := k.Versions[i]; v.Held() && v.Number != first {
			order = append(order, v.Number)
		}
	}
	return order
}

// GraceOver reports whether a version is retired, and is to be destroyed as soon as nobody needs it.
func (k Key) GraceOver(v Version, now time.Time) bool {
	return v.State == Retired && (v.GraceEnded || elapsed(v.RetiredTime, now, k.Grace))
}

// Stays reports whether a version is held and not about to be destroyed.
func (k Key) Stays(number int, now time.Time) bool {
	v := k.get(number)
	return v != nil && v.Held() && !k.GraceOver(*v, now)
}

// doomed returns the numbers of the versions whose grace is over, oldest first.
func (k Key) doomed(now time.Time) []int {
	var doomed []int
	for _, v := range k.Versions {
		if k.GraceOver(v, now) {
			doomed = append(doomed, v.Number)
		}
	}
	return doomed
}

// Unsettled reports whether the server may have to be asked something.
func (k Key) Unsettled(now time.Time) bool { return k.find(Pending) != nil || len(k.doomed(now)) > 0 }

// Reason is why a client stands in the way.
type Reason int

const (
	// NotAsked is a client that was not asked within the last hour.
	NotAsked Reason = iota
	// IsRejected is a client whose server rejects the version.
	IsRejected
	// IsBroken is a client whose server takes no version from it.
	IsBroken
	// GaveNoAnswer is a client whose question the server has not answered.
	GaveNoAnswer
)

// Blocker is a client that stands in the way of a step.
type Blocker struct {
	Client
	Reason Reason
	Probe  Probe // the last one, zero when there is none
}

// probed returns the last probe of a client, if that was about the version that is wanted now.
func (k Key) probed(r Record) Probe {
	if wanted := k.wanted(); wanted != nil && r.Probe.Version == wanted.Number {
		return r.Probe
	}
	return Probe{}
}

// reason returns why a client stands in the way that has not taken a version.
func (k Key) reason(client Client, version int) Blocker {
	r := k.Of(client)
	b := Blocker{Client: client, Probe: k.probed(r)}
	switch {
	case b.Probe.Outcome == Broken:
		b.Reason = IsBroken
	case r.Rejects(version):
		b.Reason = IsRejected
	case b.Probe.Outcome == Unanswered:
		b.Reason = GaveNoAnswer
	}
	return b
}

// PromotionBlockers returns the enabled clients that keep the pending version from being promoted, and whether any has
// proven it. It is promoted when none does and one has. A client that is broken, or that gave no answer for a day, keeps
// nothing: a promotion takes nothing from it.
func (k Key) PromotionBlockers(c Configuration, now time.Time) (blockers []Blocker, proven bool) {
	pending := k.find(Pending)
	if pending == nil {
		return nil, false
	}
	for _, client := range c.Clients {
		if !client.Enabled {
			continue
		}
		if k.takes(client.Client, pending.Number, now) {
			proven = true
			continue
		}
		b := k.reason(client.Client, pending.Number)
		switch {
		case b.Reason == IsBroken && fresh(b.Probe.LastTime, now):
		case b.Reason == GaveNoAnswer && elapsed(b.Probe.FirstTime, now, day):
		default:
			blockers = append(blockers, b)
		}
	}
	return blockers, proven
}

// takes reports whether the server has taken a version from a client within the last hour.
func (k Key) takes(client Client, version int, now time.Time) bool {
	at, proven := k.Of(client).Proven(version)
	return proven && fresh(at, now)
}

// DestructionBlockers returns the clients that need a version: those that were not seen to take what they will sign with
// without it.
func (k Key) DestructionBlockers(version int, c Configuration, now time.Time) []Blocker {
	var blockers []Blocker
	for _, client := range c.Clients {
		if !k.safeWithout(client.Client, version, now) {
			blockers = append(blockers, k.reason(client.Client, k.signing(k.Of(client.Client), version)))
		}
	}
	return blockers
}

func (k Key) safeWithout(client Client, version int, now time.Time) bool {
	afterwards := k.signing(k.Of(client), version)
	return afterwards != 0 && k.takes(client, afterwards, now)
}

// content reports whether nothing is left to ask about an enabled client.
func (k Key) content(client Client, now time.Time) bool {
	pending := k.find(Pending)
	return (pending == nil || k.takes(client, pending.Number, now)) && !k.Needs(client, now)
}

// Needs reports whether a client keeps a version whose grace is over from being destroyed.
func (k Key) Needs(client Client, now time.Time) bool {
	return slices.ContainsFunc(k.doomed(now), func(number int) bool { return !k.safeWithout(client, number, now) })
}

// Due returns the clients to ask about now, those first that were asked least lately. Of a pending version the enabled
// ones are asked that have not taken it, before a version is destroyed all. But as long as it is known that one stands in
// the way, those are not asked again that did not.
func (k Key) Due(c Configuration, now time.Time) []Client {
	pending := k.find(Pending)
	destroying := len(k.doomed(now)) > 0 && c.Stop(now) == Go
	known := func(client Configured) bool { return k.probed(k.Of(client.Client)).Count > 0 }
	keepsPending := func(client Configured) bool {
		return pending != nil && client.Enabled && !k.takes(client.Client, pending.Number, now)
	}
	keepsDoomed := func(client Configured) bool { return destroying && k.Needs(client.Client, now) }
	pendingIsKept := slices.ContainsFunc(c.Clients, func(client Configured) bool {
		return keepsPending(client) && known(client) && k.probed(k.Of(client.Client)).Outcome != Broken
	})
	doomedIsKept := slices.ContainsFunc(c.Clients, func(client Configured) bool { return keepsDoomed(client) && known(client) })
	var due []Client
	for _, client := range c.Clients {
		askPending := keepsPending(client)
		if askPending && pendingIsKept && !known(client) {
			_, proven := k.Of(client.Client).Proven(pending.Number)
			askPending = !proven
		}
		askDoomed := keepsDoomed(client) && (!doomedIsKept || known(client))
		if (askPending || askDoomed) && k.pauseOver(k.Of(client.Client), now) {
			due = append(due, client.Client)
		}
	}
	slices.SortStableFunc(due, func(a, b Client) int {
		return k.probed(k.Of(a)).LastTime.Compare(k.probed(k.Of(b)).LastTime)
	})
	return due
}

// Undecided returns the clients that have to be asked before the pending version can be promoted and versions be destroyed
// whose grace is over, whatever the pauses.
func (k Key) Undecided(c Configuration, now time.Time) []Client {
	pending, destroying := k.find(Pending), c.Stop(now) == Go
	var undecided []Client
	for _, client := range c.Clients {
		if pending != nil && client.Enabled && !k.takes(client.Client, pending.Number, now) ||
			destroying && k.Needs(client.Client, now) {
			undecided = append(undecided, client.Client)
		}
	}
	return undecided
}

// The pauses between two probes of the same client. While a version is pending they stay short: somebody is about to
// register it.
const (
	minProbePause    = time.Minute
	brokenProbePause = 5 * time.Minute
	maxPendingPause  = 15 * time.Minute
	maxProbePause    = day
)

// pauseOver reports whether a client may be asked about again. A clock that was set back must not put that off.
func (k Key) pauseOver(r Record, now time.Time) bool {
	probe := k.probed(r)
	return !now.Before(probe.NextTime) || probe.NextTime.Sub(now) > k.longestPause()
}

func (k Key) longestPause() time.Duration {
	if k.find(Pending) != nil {
		return maxPendingPause
	}
	return maxProbePause
}
