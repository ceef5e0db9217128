// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
)

// worker is the one goroutine of a mount that does what no request waits for: it stores what mints have learned,
// registers and proves new versions, promotes, destroys and rotates.
type worker struct {
	wake   chan struct{} // holds one call to wake
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func newWorker() *worker { return &worker{wake: make(chan struct{}, 1)} }

// start begins the work; its end is stop.
func (w *worker) start(work func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.ended.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
				work(ctx)
			}
		}
	})
}

// wakeUp makes the worker look for what there is to do. It never waits.
func (w *worker) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default: // it is called already
	}
}

// stop tells the worker to end, and does not wait for it.
func (w *worker) stop() {
	if w.cancel != nil {
		w.cancel()
	}
}

// initialize begins background work. Vault calls it once for a mount that serves requests, not in metadata mode.
func (b *backend) initialize(context.Context, *logical.InitializationRequest) error {
	b.worker.start(b.tend)
	return nil
}

// periodic is called by Vault once a minute, under a lock that sealing waits for: so it only wakes the worker.
func (b *backend) periodic(context.Context, *logical.Request) error {
	b.worker.wakeUp()
	return nil
}

// tend does for each key what is due. A key with an error is logged and left for the next time.
func (b *backend) tend(ctx context.Context) {
	if !b.mayWrite() {
		return
	}
	names, err := b.storage.List(ctx, keysStoragePrefix)
	if err != nil {
		b.logUnlessEnded(ctx, "the signing keys can't be listed", "", err)
		return
	}
	users := &keyUsers{b: b}
	for _, name := range names {
		if ctx.Err() != nil || !b.mayWrite() {
			return
		}
		if err := b.tendKey(ctx, name, users); err != nil {
			b.logUnlessEnded(ctx, "background work on a signing key failed", name, err)
		}
	}
}

func (b *backend) logUnlessEnded(ctx context.Context, what, key string, err error) {
	if ctx.Err() == nil {
		b.Logger().Error(what, "key", key, "error", err)
	}
}

// tendKey does what is due for one key. Each part ends with one write to storage, and begins from what is stored: it
// can be stopped anywhere and begun again, on another node, too.
func (b *backend) tendKey(ctx context.Context, name string, users *keyUsers) error {
	k, err := loadKey(ctx, b.storage, name)
	if err != nil || k == nil {
		return err
	}
	stored, err := b.acceptanceOf(ctx, b.storage, k)
	if err != nil {
		return err
	}
	if unsettled(k, &stored.Acceptance) {
		clients, err := users.of(ctx, name)
		if err != nil {
			return err
		}
		if err := b.pruneAcceptance(ctx, k, clients); err != nil {
			return err
		}
		if err := b.register(ctx, k, clients, false); err != nil {
			return err
		}
		if _, err := b.tryDue(ctx, k, clients, stored.Due(k.records(), b.now().Wall)); err != nil {
			return err
		}
	}
	if _, _, err := b.change(ctx, b.storage, name, settle); err != nil {
		return err
	}
	return b.rotateIfDue(ctx, name)
}

// unsettled says whether there is anything to do at Redox for a key. Most keys are settled most of the time, and then
// no role is read.
func unsettled(k *signingKey, acceptance *rotation.Acceptance) bool {
	return k.Registration == registrationPlatform || k.in(rotation.Pending) != nil || k.in(rotation.Retired) != nil ||
		len(acceptance.Waiting(k.records())) > 0
}

// keyUsers finds who uses which key, once for all keys of a wake-up, and only if asked.
type keyUsers struct {
	b     *backend
	byKey map[string]map[rotation.User]*client
}

// of gives one client for each user of a key: of the configuration or of a role, disabled ones included, for they may
// come back.
func (u *keyUsers) of(ctx context.Context, key string) (map[rotation.User]*client, error) {
	if u.byKey == nil {
		byKey, err := u.b.findUsers(ctx)
		if err != nil {
			return nil, err
		}
		u.byKey = byKey
	}
	return u.byKey[key], nil
}

// findUsers reads all roles.
func (b *backend) findUsers(ctx context.Context) (map[string]map[rotation.User]*client, error) {
	c, _, err := loadConfig(ctx, b.storage)
	if err != nil {
		return nil, err
	}
	byKey := map[string]map[rotation.User]*client{}
	add := func(r *role) {
		effective := &client{config: r.overlay(*c), role: r}
		if effective.ClientID == "" || effective.Key == "" {
			return
		}
		if byKey[effective.Key] == nil {
			byKey[effective.Key] = map[rotation.User]*client{}
		}
		byKey[effective.Key][effective.user()] = effective
	}
	names, err := b.storage.List(ctx, rolesStoragePrefix)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r, err := loadRole(ctx, b.storage, name)
		if err != nil {
			return nil, err
		}
		if r != nil {
			add(r)
		}
	}
	add(&role{}) // last: of several clients for one user the configuration's counts
	return byKey, nil
}

// pruneAcceptance stores what mints have learned, and forgets users that nothing is configured for any more.
func (b *backend) pruneAcceptance(ctx context.Context, k *signingKey, clients map[rotation.User]*client) error {
	unlock, err := b.writes.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	stored, err := b.storeLearned(ctx, b.storage, k)
	if err != nil {
		return err
	}
	if !stored.Prune(k.records(), func(user rotation.User) bool { return clients[user] != nil }) {
		return nil
	}
	return writeEntry(ctx, b.storage, acceptanceStoragePrefix+k.name, stored)
}

// trial is what came of trying the wanted version for one user.
type trial struct {
	user   rotation.User
	answer string // why not; empty when Redox accepted it
}

// tryDue asks Redox for a token with the wanted version of a key for some users. The tokens are given away: only
// whether Redox accepts the version counts. What is learned is noted.
func (b *backend) tryDue(ctx context.Context, k *signingKey, clients map[rotation.User]*client, due []rotation.User) ([]trial, error) {
	wanted := rotation.Wanted(k.records())
	if wanted == nil {
		return nil, nil
	}
	var trials []trial
	for _, user := range due {
		c := clients[user]
		if c == nil {
			continue // not configured any more
		}
		answer, err := b.try(ctx, c, k, wanted.Number)
		if err != nil {
			return trials, err
		}
		learned := outcome{accepted: wanted.Number, acceptedTime: b.now().Wall}
		if answer != "" {
			learned = outcome{refused: wanted.Number, refusedTime: b.now().Wall, answer: answer}
			b.Logger().Debug("Redox does not accept a version yet", "key", k.name, "kid", wanted.KeyID,
				"client_id", user.ClientID, "answer", answer)
		}
		b.learned.note(k.name, user, learned)
		trials = append(trials, trial{user, answer})
	}
	return trials, nil
}

// prove tries the pending version of a key now, for every user that has used the key; if none has, for those that are
// configured to.
func (b *backend) prove(ctx context.Context, k *signingKey) ([]trial, error) {
	users := &keyUsers{b: b}
	clients, err := users.of(ctx, k.name)
	if err != nil {
		return nil, err
	}
	stored, err := b.acceptanceOf(ctx, b.storage, k)
	if err != nil {
		return nil, err
	}
	var due []rotation.User
	for _, standing := range stored.Waiting(k.records()) {
		due = append(due, standing.User)
	}
	if len(stored.Standings) == 0 {
		due = slices.Collect(maps.Keys(clients))
	}
	if err := b.register(ctx, k, clients, false); err != nil {
		return nil, err
	}
	return b.tryDue(ctx, k, clients, due)
}

// trialWait bounds one trial.
const trialWait = 20 * time.Second

// try asks Redox for a token with one version. The answer says why there is none; it is empty when there is one.
func (b *backend) try(ctx context.Context, c *client, k *signingKey, number int) (answer string, err error) {
	if missing := b.notServed(ctx, c, k, k.version(number).KeyID); missing != "" {
		return missing, nil
	}
	attempt := *c
	attempt.version = k.version(number)
	if attempt.key, err = attempt.version.PrivateKey.open(); err != nil { // not kept open: trials are rare
		return "", unreadableEntry(keysStoragePrefix + k.name)
	}
	ctx, cancel := context.WithTimeout(ctx, trialWait)
	defer cancel()
	_, _, err = b.exchange(ctx, &attempt)
	if remote := (*redox.Error)(nil); errors.As(err, &remote) {
		return remote.Error(), nil
	}
	return "", err
}

// rotateIfDue makes the next version of a key whose time has come.
func (b *backend) rotateIfDue(ctx context.Context, name string) error {
	k, err := loadKey(ctx, b.storage, name)
	if err != nil || k == nil {
		return err
	}
	now := b.now().Wall
	due, missed := k.rotationDue(now)
	if !due && !missed {
		return nil
	}
	var next *keyVersion
	if due && k.in(rotation.Pending) == nil {
		newest := k.newest()
		key, err := generatePrivateKey(newest.Algorithm, newest.rsaBits())
		if err != nil {
			return err
		}
		if next, err = newKeyVersion(key, "", false, now); err != nil {
			return err
		}
	}
	unlock, err := b.writes.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	k, err = loadKey(ctx, b.storage, name)
	if err != nil || k == nil {
		return err
	}
	if due, missed = k.rotationDue(now); !due && !missed {
		return nil // somebody has rotated it meanwhile
	}
	k.scheduleRotation(now)
	if next != nil && k.in(rotation.Pending) == nil {
		transition, err := k.add(next, "the rotation was due")
		if err != nil {
			return err
		}
		b.worker.wakeUp() // to register and try it
		return b.storeTransitions(ctx, b.storage, k, []rotation.Transition{transition})
	}
	if missed {
		b.Logger().Warn("a rotation was missed: its window is over", "key", name, "next", formatTime(k.NextRotationTime))
	} else {
		b.Logger().Warn("a rotation is skipped: the version before is still pending", "key", name, "next", formatTime(k.NextRotationTime))
	}
	return writeEntry(ctx, b.storage, keysStoragePrefix+name, k)
}
