// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// What the server has accepted of each key, and from which clients. Mints learn it; they neither write storage nor wait
// for it: what they learn is kept in memory, counts from there at once, and the worker stores it where this node may write.

// storedAcceptance is the entry at acceptance/<key>.
type storedAcceptance struct {
	header
	rotation.Clients

	Registrations []registered `json:"registrations,omitempty"`
}

// outcome is what mints have learned of one client since it was stored last.
type outcome struct {
	rejected, accepted         int // versions, 0 for none
	rejectedTime, acceptedTime time.Time
	answer                     string // the rejection
}

// learnedOutcomes are the outcomes by key and client. Their number is bounded by the clients that are configured.
type learnedOutcomes struct {
	mu    sync.Mutex
	byKey map[string]map[rotation.Client]outcome
}

// note merges what a mint has learned.
func (l *learnedOutcomes) note(key string, client rotation.Client, o outcome) {
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

// events returns what was learned of a key, as events of it.
func (l *learnedOutcomes) events(key string) []rotation.At {
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

// take returns the key's outcomes and forgets them.
func (l *learnedOutcomes) take(key string) map[rotation.Client]outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.byKey[key]
	delete(l.byKey, key)
	return taken
}

// putBack is the reverse of take, for outcomes that could not be stored. What was learned meanwhile is newer.
func (l *learnedOutcomes) putBack(key string, taken map[rotation.Client]outcome) {
	l.mu.Lock()
	newer := l.byKey[key]
	delete(l.byKey, key)
	l.mu.Unlock()
	for _, outcomes := range []map[rotation.Client]outcome{taken, newer} {
		for client, o := range outcomes {
			l.note(key, client, o)
		}
	}
}

// mayWrite reports whether this node may write to storage. It asks Vault, not what is remembered for routing.
func (b *backend) mayWrite() bool {
	state := b.systemView.ReplicationState()
	return !state.HasState(consts.ReplicationDRSecondary|consts.ReplicationPerformanceStandby) &&
		(b.systemView.LocalMount() || !state.HasState(consts.ReplicationPerformanceSecondary))
}

func loadAcceptance(ctx context.Context, storage logical.Storage, key string) (*storedAcceptance, error) {
	stored := &storedAcceptance{}
	_, err := readEntry(ctx, storage, acceptanceStoragePrefix+key, stored)
	return stored, err
}

// acceptanceOf returns what is known of a key's clients, what only this node has learned included. An entry that can't
// be used is logged and counts as nothing known: mints find out again what the server accepts.
func (b *backend) acceptanceOf(ctx context.Context, storage logical.Storage, k *signingKey) (*storedAcceptance, error) {
	stored, err := loadAcceptance(ctx, storage, k.name)
	if unusable := (*unusableEntry)(nil); errors.As(err, &unusable) {
		b.Logger().Error("what Redox has accepted of a key is not known", "key", k.name, "error", err)
		stored, err = &storedAcceptance{}, nil
	}
	if err != nil {
		return nil, err
	}
	known, _, err := k.rotationKey(stored.Clients).Replay(b.learned.events(k.name))
	if err != nil {
		return nil, err
	}
	stored.Clients = known.Clients
	return stored, nil
}

// storeLearned stores what mints have learned of a key, and returns what is stored then. The caller holds the write lock.
func (b *backend) storeLearned(ctx context.Context, storage logical.Storage, k *signingKey) (*storedAcceptance, error) {
	stored, err := loadAcceptance(ctx, storage, k.name)
	if err != nil {
		return nil, err
	}
	taken := b.learned.take(k.name)
	known, _, err := k.rotationKey(stored.Clients).Replay(eventsOf(taken))
	if err != nil {
		b.learned.putBack(k.name, taken)
		return nil, err
	}
	if known.Clients.Equal(stored.Clients) {
		return stored, nil
	}
	stored.Clients = known.Clients
	if err := writeEntry(ctx, storage, acceptanceStoragePrefix+k.name, stored); err != nil {
		b.learned.putBack(k.name, taken)
		return nil, err
	}
	return stored, nil
}
