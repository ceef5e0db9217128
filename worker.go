// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// What no request waits for: to store what mints have learned, to register and prove new versions, to promote, destroy
// and rotate.

// worker is a goroutine of a mount that works when it is woken up. A mount has two: one tends the keys, one sends events.
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

// wakeUp makes the worker look for work. It never waits.
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
	b.announcer.start(b.sendEvents)
	return nil
}

// periodic is called by Vault once a minute, under a lock that sealing waits for: so it only wakes the worker.
func (b *backend) periodic(context.Context, *logical.Request) error {
	b.worker.wakeUp()
	return nil
}

// tend does the work that is due for each key. Failures are logged and retried on the next pass.
func (b *backend) tend(ctx context.Context) {
	if !b.mayWrite() {
		return
	}
	names, err := b.storage.List(ctx, keysStoragePrefix)
	if err != nil {
		b.logUnlessEnded(ctx, "the signing keys can't be listed", "", err)
		return
	}
	clients := &keyClients{b: b}
	for _, name := range names {
		if ctx.Err() != nil || !b.mayWrite() {
			return
		}
		if err := b.tendKey(ctx, name, clients); err != nil {
			b.logUnlessEnded(ctx, "background work on a signing key failed", name, err)
		}
	}
}

func (b *backend) logUnlessEnded(ctx context.Context, what, key string, err error) {
	if ctx.Err() == nil {
		b.metrics.backgroundFails.Inc()
		b.Logger().Error(what, "key", key, "error", err)
	}
}

// tendKey does what is due for one key. Each part ends with one write to storage, and begins from what is stored: it
// can be stopped anywhere and begun again, on another node, too.
func (b *backend) tendKey(ctx context.Context, name string, clients *keyClients) error {
	k, err := loadKey(ctx, b.storage, name)
	if err != nil || k == nil {
		return err
	}
	stored, err := b.acceptanceOf(ctx, b.storage, k)
	if err != nil {
		return err
	}
	if unsettled(k, stored.Clients, b.now().Wall) {
		configured, err := clients.of(ctx, name)
		if err != nil {
			return err
		}
		if err := b.pruneAcceptance(ctx, k, configured); err != nil {
			return err
		}
		if err := b.register(ctx, k, configured, false); err != nil {
			return err
		}
		if _, err := b.probeDue(ctx, k, configured, k.rotationKey(stored.Clients).Due(b.now().Wall)); err != nil {
			return err
		}
	}
	if _, _, err := b.change(ctx, b.storage, name, rotation.Settle{}); err != nil {
		return err
	}
	return b.rotateIfDue(ctx, name)
}

// unsettled reports whether there is anything to do for a key for which all roles have to be read. Most keys are settled
// most of the time.
func unsettled(k *signingKey, clients rotation.Clients, now time.Time) bool {
	key := k.rotationKey(clients)
	graceIsOver := slices.ContainsFunc(key.Versions, func(v rotation.Version) bool {
		return v.State == rotation.Retired && !now.Before(key.GraceEnd(v))
	})
	return k.Registration == registrationPlatform || graceIsOver || len(key.Due(now)) > 0
}

// pruneAcceptance stores what mints have learned, and drops clients that nothing is configured for any more.
func (b *backend) pruneAcceptance(ctx context.Context, k *signingKey, clients map[rotation.Client]*client) error {
	unlock, err := b.writes.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	stored, err := b.storeLearned(ctx, b.storage, k)
	if err != nil {
		return err
	}
	pruned, _, err := k.rotationKey(stored.Clients).Apply(rotation.Prune{Configured: slices.Collect(maps.Keys(clients))}, b.now().Wall)
	if err != nil || pruned.Clients.Equal(stored.Clients) {
		return err
	}
	stored.Clients = pruned.Clients
	return writeEntry(ctx, b.storage, acceptanceStoragePrefix+k.name, stored)
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
		return nil // it was rotated meanwhile
	}
	k.scheduleRotation(now)
	if next != nil && k.in(rotation.Pending) == nil {
		transition, err := k.add(next, "the rotation was due")
		if err != nil {
			return err
		}
		b.worker.wakeUp() // to register and probe it
		return b.storeTransitions(ctx, b.storage, k, []rotation.Transition{transition})
	}
	if err := writeEntry(ctx, b.storage, keysStoragePrefix+name, k); err != nil {
		return err
	}
	outcome := rotationSkipped
	if missed {
		outcome = rotationMissed
		b.Logger().Warn("a rotation was missed: its window is over", "key", name, "next", formatTime(k.NextRotationTime))
	} else {
		b.Logger().Warn("a rotation is skipped: the version before is still pending", "key", name, "next", formatTime(k.NextRotationTime))
	}
	b.metrics.rotation(outcome)
	b.announce(eventRotationSkip, keysStoragePrefix+name, "key", name, "cause", outcome)
	return nil
}
