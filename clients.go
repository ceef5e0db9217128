// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"maps"
	"sync"
	"time"

	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// What the server has said of each key's versions, and for which clients. Mints and probes hear it; they neither write
// storage nor wait for it: what they heard is kept in memory, counts from there at once, and the maintainer stores it
// where this node may write.

// storedClients is the entry of a key's clients.
type storedClients struct {
	header
	Clients rotation.Clients `json:"clients"`

	Registrations []registered `json:"registrations,omitempty"`

	former   bool // it was read from an entry of an earlier form
	unusable bool // it stands for an entry that can't be used
}

// heard is the server's word on a version: taken, at the moment before the request; or rejected, at the moment when the
// answer had come.
type heard struct {
	taken bool
	// doubted is set when the version was rejected later, together with all others: that ends no proof, but what was taken
	// is to be asked again.
	doubted bool
	at      tokencache.Instant
}

// heardOf is what a mint or a probe heard of the versions it tried for one client. Rejections without a version that was
// taken say nothing: the client may be broken.
type heardOf map[int]heard

// answered returns what was heard as an event. Its times say how long ago that was, whatever happened to the wall clock since.
func (h heardOf) answered(client rotation.Client, now tokencache.Instant) rotation.Answered {
	answered := rotation.Answered{Client: client}
	for version, heard := range h {
		verdict := rotation.Verdict{Version: version, Taken: heard.taken, Time: now.Wall.Add(-heard.at.Age(now)).UTC().Truncate(time.Second)}
		if heard.doubted {
			verdict.Time = time.Time{}
		}
		if heard.doubted && !heard.taken {
			answered.Doubted = append(answered.Doubted, version)
			continue
		}
		answered.Verdicts = append(answered.Verdicts, verdict)
	}
	return answered
}

// doubted returns what was heard of a client that nothing is taken from.
func (h heardOf) doubted() heardOf {
	doubted := heardOf{}
	for version, heard := range h {
		heard.doubted = true
		doubted[version] = heard
	}
	return doubted
}

// observations are what this node has heard since it started. That is newer than what is stored. They are bound to the key's
// creation: what is heard late is not taken for news of a later key of the same name. Their number is bounded by the
// clients that are configured.
type observations struct {
	mu    sync.Mutex
	byKey map[string]*observed
}

type observed struct {
	created time.Time // the key
	begun   bool      // the key was made here, so what is of another key is late
	clients map[rotation.Client]heardOf
}

// begin forgets what was heard of a former key of the name of one that is made now.
func (o *observations) begin(k *signingKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.set(k).begun = true
}

// set makes room for what will be heard of a key. The caller holds the lock.
func (o *observations) set(k *signingKey) *observed {
	if o.byKey == nil {
		o.byKey = map[string]*observed{}
	}
	of := &observed{created: k.CreatedTime, clients: map[rotation.Client]heardOf{}}
	o.byKey[k.name] = of
	return of
}

// note merges what was heard with what was heard before. Late news never undo newer ones. It reports whether a version is
// taken or rejected that was not known to be.
func (o *observations) note(k *signingKey, client rotation.Client, news heardOf) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := o.byKey[k.name]
	switch {
	case of == nil, !of.begun && !of.created.Equal(k.CreatedTime):
		of = o.set(k)
	case !of.created.Equal(k.CreatedTime):
		return false // of a key that was deleted meanwhile
	}
	known := of.clients[client]
	isLate := func(version int) bool {
		before, found := known[version]
		return found && before.at.Monotonic > news[version].at.Monotonic
	}
	for version, h := range news {
		if h.taken && isLate(version) && !known[version].taken {
			return false // the proof is void, so what was told apart by it is, too
		}
	}
	if known == nil {
		known = heardOf{}
		of.clients[client] = known
	}
	isNews := false
	for version, h := range news {
		if isLate(version) {
			continue
		}
		before, found := known[version]
		if h.doubted {
			h.taken = before.taken
			if found && !before.taken && !before.doubted {
				continue // it is rejected already
			}
		} else {
			isNews = isNews || !found || before.doubted || before.taken != h.taken
		}
		known[version] = h
	}
	return isNews
}

// events returns what was heard of a key as events of it: of one client, or of all when only is nil.
func (o *observations) events(k *signingKey, only *rotation.Client, now tokencache.Instant) []rotation.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := o.byKey[k.name]
	if of == nil || !of.created.Equal(k.CreatedTime) {
		return nil
	}
	var events []rotation.Event
	for client, known := range of.clients {
		if only != nil && client != *only {
			continue
		}
		events = append(events, known.answered(client, now))
	}
	return events
}

// keep drops what was heard of other clients and of versions that are not held any more.
func (o *observations) keep(k *signingKey, clients map[rotation.Client]*configuredClient) {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := o.byKey[k.name]
	if of == nil {
		return
	}
	maps.DeleteFunc(of.clients, func(client rotation.Client, known heardOf) bool {
		maps.DeleteFunc(known, func(version int, _ heard) bool {
			v := k.version(version)
			return v == nil || !v.Held()
		})
		return clients[client] == nil
	})
}

// drop forgets what was heard of a key.
func (o *observations) drop(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.byKey, key)
}

// formerClients is an earlier form of the entry of a key's clients. It is upgraded when it is read.
type formerClients struct {
	header
	Standings []struct {
		rotation.Client
		Accepted     int       `json:"accepted"`
		AcceptedTime time.Time `json:"accepted_time"`
	} `json:"standings"`
	Registrations []registered `json:"registrations"`
}

// upgrade returns the entry in its present form: what was accepted is proven, unless a promotion by force was counted as
// that. The forced version counts as rejected by a client that went on with an older one.
func (f *formerClients) upgrade(k *signingKey) *storedClients {
	stored := &storedClients{header: f.header, Clients: rotation.Clients{}, Registrations: f.Registrations, former: true}
	for _, standing := range f.Standings {
		var r rotation.Record
		for i := range k.Versions {
			v := &k.Versions[i]
			switch {
			case !v.Held():
			case v.Number == standing.Accepted && v.Forced && standing.AcceptedTime.Equal(v.ActivatedTime):
			case v.Number == standing.Accepted:
				r.Verdicts = append(r.Verdicts, rotation.Verdict{Version: v.Number, Taken: true, Time: standing.AcceptedTime})
			case v.Number > standing.Accepted && v.Forced:
				r.Verdicts = append(r.Verdicts, rotation.Verdict{Version: v.Number, Time: standing.AcceptedTime})
			}
		}
		if len(r.Verdicts) > 0 {
			stored.Clients[standing.Digest()] = r
		}
	}
	return stored
}

// remembered keeps parsed entries by name, so that who needs them all does not read them again and again. What it returns
// is shared and never changed.
type remembered[T any] struct {
	mu     sync.RWMutex
	byName map[string]*T
}

func (m *remembered[T]) get(name string) *T {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.byName[name]
}

// keep remembers what was read, unless that is not current any more, which is asked under the lock that put and drop take.
func (m *remembered[T]) keep(name string, entry *T, current func() bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if current() {
		m.set(name, entry)
	}
}

// put remembers what was written.
func (m *remembered[T]) put(name string, entry *T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(name, entry)
}

func (m *remembered[T]) set(name string, entry *T) {
	if m.byName == nil {
		m.byName = map[string]*T{}
	}
	m.byName[name] = entry
}

func (m *remembered[T]) drop(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byName, name)
}
