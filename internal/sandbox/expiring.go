// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"container/heap"
	"crypto/sha256"
	"sync"
	"time"
)

// expiringMax bounds what an expiring map holds; past it, what would expire first goes.
const expiringMax = 1 << 18

// expiring remembers values under secret names until a time, in bounded memory. It keeps digests of the names
// only, so the tokens and nonces themselves are nowhere in the sandbox's memory after their request.
type expiring[V any] struct {
	mu      sync.Mutex
	max     int
	entries map[[sha256.Size]byte]*expiringEntry[V]
	soonest expiryHeap[V]
}

type expiringEntry[V any] struct {
	digest  [sha256.Size]byte
	value   V
	expires time.Time
}

func newExpiring[V any]() *expiring[V] {
	return &expiring[V]{max: expiringMax, entries: map[[sha256.Size]byte]*expiringEntry[V]{}}
}

// add remembers value under name until expires. It gives false, and changes nothing, when the name is still
// remembered.
func (e *expiring[V]) add(name string, value V, now, expires time.Time) bool {
	digest := sha256.Sum256([]byte(name))
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.soonest) > 0 && !now.Before(e.soonest[0].expires) {
		e.removeSoonest()
	}
	if _, known := e.entries[digest]; known {
		return false
	}
	if len(e.entries) >= e.max {
		e.removeSoonest()
	}
	entry := &expiringEntry[V]{digest, value, expires}
	e.entries[digest] = entry
	heap.Push(&e.soonest, entry)
	return true
}

// get gives the value remembered under name, unless its time has come.
func (e *expiring[V]) get(name string, now time.Time) (V, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	entry := e.entries[sha256.Sum256([]byte(name))]
	if entry == nil || !now.Before(entry.expires) {
		var none V
		return none, false
	}
	return entry.value, true
}

// removeSoonest forgets the entry that expires first. The caller holds the lock.
func (e *expiring[V]) removeSoonest() {
	if entry, ok := heap.Pop(&e.soonest).(*expiringEntry[V]); ok {
		delete(e.entries, entry.digest)
	}
}

// expiryHeap orders entries by expiry for container/heap.
type expiryHeap[V any] []*expiringEntry[V]

func (h expiryHeap[V]) Len() int           { return len(h) }
func (h expiryHeap[V]) Less(i, j int) bool { return h[i].expires.Before(h[j].expires) }
func (h expiryHeap[V]) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

func (h *expiryHeap[V]) Push(x any) {
	if entry, ok := x.(*expiringEntry[V]); ok {
		*h = append(*h, entry)
	}
}

func (h *expiryHeap[V]) Pop() any {
	last := len(*h) - 1
	entry := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return entry
}
