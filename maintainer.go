// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// maintainer does what no request waits for: it stores what was observed of clients, registers and probes new versions,
// promotes, destroys and rotates. It changes keys through the keyring only.
type maintainer struct {
	store     *store
	keys      *keyring
	directory *directory
	minter    *minter
	node      *node
	telemetry *telemetry
	now       func() tokencache.Instant

	worker      *worker
	unserved    unserved
	rests       rests
	registering chan struct{} // full while public keys are registered
	concurrent  int           // how many clients are asked about at once
}

// maintained is how many clients are asked about at once.
const maintained = 8

func newMaintainer(s *store, keys *keyring, m *minter, n *node, t *telemetry, now func() tokencache.Instant) *maintainer {
	return &maintainer{store: s, keys: keys, directory: newDirectory(s, now), minter: m, node: n, telemetry: t, now: now, worker: newWorker(),
		registering: make(chan struct{}, 1), concurrent: maintained}
}

// atOnce calls do for 0, then for 1 to n-1 in this order, some of them at once, until one of them returns false, and returns
// when all that were called have ended. The first is alone: a server that does not answer is not asked by many.
func atOnce(most, n int, do func(i int) (more bool)) {
	if n == 0 || !do(0) {
		return
	}
	var next atomic.Int64
	next.Store(1)
	var stopped atomic.Bool
	var calls sync.WaitGroup
	for range min(most, n-1) {
		calls.Go(func() {
			for !stopped.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if !do(i) {
					stopped.Store(true)
				}
			}
		})
	}
	calls.Wait()
}

// pass does the work that is due for each key. Failures are logged and retried on the next pass.
func (m *maintainer) pass(ctx context.Context) {
	if !m.node.mayWrite() {
		return
	}
	if err := m.dropFormerWrappingKey(ctx); err != nil {
		m.failed(ctx, "the former wrapping key can't be deleted", "", err)
	}
	names, err := m.store.keyNames(ctx)
	if err != nil {
		m.failed(ctx, "the signing keys can't be listed", "", err)
		return
	}
	for _, name := range names {
		if ctx.Err() != nil || !m.node.mayWrite() {
			return
		}
		overloaded, err := m.maintain(ctx, name)
		if err != nil {
			m.failed(ctx, "background work on a signing key failed", name, err)
		}
		if overloaded { // Redox counts all requests from here: what is left to ask has time
			return
		}
	}
}

// failed tells of a failure, unless it is that the mount is closing.
func (m *maintainer) failed(ctx context.Context, what, key string, err error) {
	if ctx.Err() == nil {
		m.telemetry.backgroundFailed(what, key, err)
	}
}

// maintain does what is due for one key: it registers its public keys, asks the server about clients, and settles what may
// be done by then. Of a key with nothing due it reads the entry and no more. It can be stopped anywhere and begun again, on
// another node, too. It reports whether the server wants no more requests now.
func (m *maintainer) maintain(ctx context.Context, name string) (overloaded bool, err error) {
	s, err := m.keys.snapshot(ctx, name)
	if err != nil || s == nil {
		return false, err
	}
	now := m.now().Wall
	if s.Registration == registrationPlatform || s.rotation().Unsettled(now) || s.hasNews() {
		if s, overloaded, err = m.askAndSettle(ctx, s); err != nil {
			return overloaded, err
		}
	}
	return overloaded, m.rotateIfDue(ctx, s)
}

// askAndSettle is maintain for a key that is not settled. It returns the key as it is then.
func (m *maintainer) askAndSettle(ctx context.Context, s *keySnapshot) (after *keySnapshot, overloaded bool, err error) {
	clients, err := m.directory.of(ctx, s.name)
	if err != nil {
		return nil, false, err
	}
	if s.unusable == nil {
		if err := m.register(ctx, s, clients.roleConfigs(), inPass); err != nil {
			return nil, false, err
		}
	}
	done, err := m.probe(ctx, s, clients, s.rotation().Due(clients.Configuration, m.now().Wall), probeBudget)
	if err != nil {
		return nil, false, err
	}
	if errors.Is(done.noWord, context.DeadlineExceeded) {
		m.worker.wakeUp() // there is more to ask, after the other keys
	}
	after, err = m.keys.settle(ctx, s.name, m.directory, done.events)
	return after, isOverload(done.noWord), err
}

// rotateIfDue makes the next version of a key whose time has come. A time that a clock which was ahead has set is not
// waited for.
func (m *maintainer) rotateIfDue(ctx context.Context, s *keySnapshot) error {
	now := m.now().Wall
	if s.rotationTooFar(now) {
		return m.scheduleAnew(ctx, s.name, now)
	}
	due, missed := s.rotationDue(now)
	if !due && !missed {
		return nil
	}
	var next *keyVersion
	if due && s.in(rotation.Pending) == nil {
		key, err := privatekey.Generate(s.newest().Algorithm, s.generatedBits())
		if err != nil {
			return err
		}
		if next, err = newKeyVersion(key, "", false, now); err != nil {
			return err
		}
	}
	outcome := ""
	after, err := m.keys.edit(ctx, s.name, func(_ *writing, k *signingKey) (*edit, error) {
		due, missed := k.rotationDue(now)
		switch {
		case len(k.Versions) == 0 || !due && !missed: // it was deleted or rotated meanwhile
			return nil, nil
		case missed:
			outcome = rotationMissed
		case next == nil || k.in(rotation.Pending) != nil:
			outcome = rotationSkipped
		default:
			return &edit{version: next, cause: "the rotation was due"}, nil
		}
		k.scheduleRotation(now)
		return &edit{}, nil
	})
	if err != nil || outcome == "" {
		return err
	}
	nextTime := formatTime(after.NextRotationTime)
	if outcome == rotationMissed {
		m.telemetry.logger.Warn("a rotation was missed: its window is over", "key", s.name, "next", nextTime)
	} else {
		m.telemetry.logger.Warn("a rotation is skipped: the version before is still pending", "key", s.name, "next", nextTime)
	}
	m.telemetry.metrics.rotation(outcome)
	m.telemetry.announce(eventRotationSkip, keysStoragePrefix+s.name, "key", s.name, "cause", outcome)
	return nil
}

// scheduleAnew sets the time of the next rotation of a key, counted from now, where the one that is stored is too far away.
func (m *maintainer) scheduleAnew(ctx context.Context, name string, now time.Time) error {
	var stored time.Time
	after, err := m.keys.edit(ctx, name, func(_ *writing, k *signingKey) (*edit, error) {
		if !k.rotationTooFar(now) { // it was deleted or written meanwhile
			return nil, nil
		}
		stored = k.NextRotationTime
		k.scheduleRotation(now)
		return &edit{}, nil
	})
	if err == nil && after != nil {
		m.telemetry.logger.Warn("a rotation was further away than it can be, since a clock was ahead; it is scheduled anew", "key", name,
			"stored", formatTime(stored), "next", formatTime(after.NextRotationTime))
	}
	return err
}
