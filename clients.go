// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"slices"
	"sync"
	"time"

	"vault-plugin-secrets-redox/internal/rotation"
)

// What the server has accepted of each key, and from which clients. Mints and probes observe it; they neither write
// storage nor wait for it: what they observe is kept in memory, counts from there at once, and the maintainer stores it
// where this node may write.

// storedClients is the entry of a key's clients.
type storedClients struct {
	header
	rotation.Clients

	Registrations []registered `json:"registrations,omitempty"`
}

// outcome is what was observed of one client since it was stored last.
type outcome struct {
	rejected, accepted         int // versions, 0 for none
	rejectedTime, acceptedTime time.Time
	answer                     string // the rejection
}

// events returns the outcome as events, in the order in which they came: a client may be rejected with what was accepted
// before.
func (o *outcome) events(client rotation.Client) []rotation.At {
	var events []rotation.At
	if !o.rejectedTime.IsZero() {
		events = append(events, rotation.At{Time: o.rejectedTime,
			Event: rotation.Rejected{Client: client, Version: o.rejected, Answer: o.answer}})
	}
	if !o.acceptedTime.IsZero() {
		events = append(events, rotation.At{Time: o.acceptedTime, Event: rotation.Accepted{Client: client, Version: o.accepted}})
	}
	slices.SortStableFunc(events, func(a, b rotation.At) int { return a.Time.Compare(b.Time) })
	return events
}

// observations are the outcomes by key and client. Their number is bounded by the clients that are configured.
type observations struct {
	mu    sync.Mutex
	byKey map[string]map[rotation.Client]outcome
}

// note merges an outcome with what was observed before it.
func (l *observations) note(key string, client rotation.Client, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil {
		l.byKey = map[string]map[rotation.Client]outcome{}
	}
	if l.byKey[key] == nil {
		l.byKey[key] = map[rotation.Client]outcome{}
	}
	known := l.byKey[key][client]
	if !o.rejectedTime.IsZero() {
		known.rejected, known.rejectedTime, known.answer = o.rejected, o.rejectedTime, o.answer
	}
	if !o.acceptedTime.IsZero() {
		known.accepted, known.acceptedTime = o.accepted, o.acceptedTime
	}
	l.byKey[key][client] = known
}

// events returns what was observed of a key, as events of it.
func (l *observations) events(key string) []rotation.At {
	l.mu.Lock()
	defer l.mu.Unlock()
	return eventsOf(l.byKey[key])
}

func eventsOf(outcomes map[rotation.Client]outcome) []rotation.At {
	var events []rotation.At
	for client, o := range outcomes {
		events = append(events, o.events(client)...)
	}
	return events
}

// take returns the key's outcomes and drops them here.
func (l *observations) take(key string) map[rotation.Client]outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.byKey[key]
	delete(l.byKey, key)
	return taken
}

// putBack is the reverse of take, for outcomes that could not be stored. What was observed meanwhile is newer.
func (l *observations) putBack(key string, taken map[rotation.Client]outcome) {
	newer := l.take(key)
	for _, outcomes := range []map[rotation.Client]outcome{taken, newer} {
		for client, o := range outcomes {
			l.note(key, client, o)
		}
	}
}

// clientsMemory keeps what is stored of each key's clients, so that neither a mint nor a pass that finds nothing to do
// reads it again. What it returns is shared and never changed.
type clientsMemory struct {
	mu    sync.RWMutex
	byKey map[string]*storedClients
}

func (m *clientsMemory) get(key string) *storedClients {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.byKey[key]
}

// keep remembers what was read, unless that is not current any more, which is asked under the lock that put and drop take.
func (m *clientsMemory) keep(key string, stored *storedClients, current func() bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if current() {
		m.set(key, stored)
	}
}

// put remembers what was written.
func (m *clientsMemory) put(key string, stored *storedClients) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(key, stored)
}

func (m *clientsMemory) set(key string, stored *storedClients) {
	if m.byKey == nil {
		m.byKey = map[string]*storedClients{}
	}
	m.byKey[key] = stored
}

func (m *clientsMemory) drop(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byKey, key)
}
