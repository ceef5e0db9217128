// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// What Redox has accepted of each key, and from whom. Mints learn it; they neither write storage nor wait for it: what
// they learn is kept in memory, counts from there at once, and the worker stores it where this node may write.

// storedAcceptance is the entry at acceptance/<key>.
type storedAcceptance struct {
	header
	rotation.Acceptance

	Registrations []registered `json:"registrations,omitempty"`
}

// outcome is what mints have learned of one user since it was stored last.
type outcome struct {
	refused, accepted         int // versions, 0 for none
	refusedTime, acceptedTime time.Time
	answer                    string // the refusal
}

// learnedOutcomes are the outcomes by key and user. Their number is bounded by the users that are configured.
type learnedOutcomes struct {
	mu    sync.Mutex
	byKey map[string]map[rotation.User]outcome
}

// note merges what a mint has learned.
func (l *learnedOutcomes) note(key string, user rotation.User, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil {
		l.byKey = map[string]map[rotation.User]outcome{}
	}
	if l.byKey[key] == nil {
		l.byKey[key] = map[rotation.User]outcome{}
	}
	known := l.byKey[key][user]
	if !o.refusedTime.IsZero() {
		known.refused, known.refusedTime, known.answer = o.refused, o.refusedTime, o.answer
	}
	if !o.acceptedTime.IsZero() {
		known.accepted, known.acceptedTime = o.accepted, o.acceptedTime
	}
	l.byKey[key][user] = known
}

// replay applies the key's outcomes to what is stored of it.
func (l *learnedOutcomes) replay(key string, versions []rotation.Version, a *rotation.Acceptance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for user, o := range l.byKey[key] {
		o.apply(versions, user, a)
	}
}

// apply records the outcome, in the order in which it came: a mint may be refused with what was accepted before.
func (o *outcome) apply(versions []rotation.Version, user rotation.User, a *rotation.Acceptance) (changed bool) {
	minted := func() {
		if !o.acceptedTime.IsZero() {
			changed = a.Minted(versions, user, o.accepted, o.acceptedTime) || changed
		}
	}
	acceptedFirst := o.acceptedTime.Before(o.refusedTime)
	if acceptedFirst {
		minted()
	}
	if !o.refusedTime.IsZero() {
		changed = a.Refused(user, o.refused, o.answer, o.refusedTime) || changed
	}
	if !acceptedFirst {
		minted()
	}
	return changed
}

// take gives the key's outcomes away.
func (l *learnedOutcomes) take(key string) map[rotation.User]outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.byKey[key]
	delete(l.byKey, key)
	return taken
}

// putBack is the reverse of take, for outcomes that could not be stored. What was learned meanwhile is newer.
func (l *learnedOutcomes) putBack(key string, taken map[rotation.User]outcome) {
	l.mu.Lock()
	newer := l.byKey[key]
	delete(l.byKey, key)
	l.mu.Unlock()
	for _, outcomes := range []map[rotation.User]outcome{taken, newer} {
		for user, o := range outcomes {
			l.note(key, user, o)
		}
	}
}

// mayWrite says whether this node may write to storage. It asks Vault, not what is remembered for routing.
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

// acceptanceOf gives what is known of a key's acceptance, what only this node has learned included. An entry that
// can't be used is logged and counts as nothing known: mints find out again what Redox accepts.
func (b *backend) acceptanceOf(ctx context.Context, storage logical.Storage, k *signingKey) (*storedAcceptance, error) {
	stored, err := loadAcceptance(ctx, storage, k.name)
	if unusable := (*unusableEntry)(nil); errors.As(err, &unusable) {
		b.Logger().Error("what Redox has accepted of a key is not known", "key", k.name, "error", err)
		stored, err = &storedAcceptance{}, nil
	}
	if err != nil {
		return nil, err
	}
	b.learned.replay(k.name, k.records(), &stored.Acceptance)
	return stored, nil
}

// storeLearned stores what mints have learned of a key, and gives what is stored then. The caller holds the write lock.
func (b *backend) storeLearned(ctx context.Context, storage logical.Storage, k *signingKey) (*storedAcceptance, error) {
	stored, err := loadAcceptance(ctx, storage, k.name)
	if err != nil {
		return nil, err
	}
	taken := b.learned.take(k.name)
	changed := false
	for user, o := range taken {
		changed = o.apply(k.records(), user, &stored.Acceptance) || changed
	}
	if !changed {
		return stored, nil
	}
	if err := writeEntry(ctx, storage, acceptanceStoragePrefix+k.name, stored); err != nil {
		b.learned.putBack(k.name, taken)
		return nil, err
	}
	return stored, nil
}
