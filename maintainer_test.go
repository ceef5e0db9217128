// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
)

// newCaretaker returns a maintainer without a mount. Its passes are made by the test.
func newCaretaker(t *testing.T) (*mill, *maintainer) {
	m := newMill(t)
	return m, newMaintainer(m.store, m.keyring, m.minter, m.minter.node, m.minter.telemetry, m.clock.now)
}

// counted returns what a counter has come to, of one label's value unless that is empty.
func counted(m *maintainer, name, label string) float64 {
	for _, family := range must(m.telemetry.metrics.registry.Gather()) {
		for _, metric := range family.GetMetric() {
			if family.GetName() == name && (label == "" || metric.GetLabel()[0].GetValue() == label) {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return -1
}

// TestMaintainerReadsEachKeyOnce: a pass that finds nothing to do costs 1 + k reads, and writes nothing.
func TestMaintainerReadsEachKeyOnce(t *testing.T) {
	m, caretaker := newCaretaker(t)
	const keys = 7
	for n := 2; n <= keys; n++ {
		k := *m.read().signingKey
		k.Versions = []keyVersion{k.Versions[0]}
		k.Versions[0].KID = fmt.Sprint("other-", n)
		m.put(keysStoragePrefix+fmt.Sprint("key-", n), &k)
	}
	caretaker.pass(t.Context()) // what is kept in memory is there from now on
	reads, written := m.storage.readCount(), len(m.storage.written())
	caretaker.pass(t.Context())
	if got := m.storage.readCount() - reads; got != 1+keys {
		t.Errorf("a pass over %d keys takes %d reads", keys, got)
	}
	if got := len(m.storage.written()) - written; got != 0 {
		t.Errorf("a pass has written %d entries", got)
	}
	m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
	reads = m.storage.readCount()
	caretaker.pass(t.Context())
	if got := m.storage.readCount() - reads; got != 0 {
		t.Errorf("a pass on a node that may not write takes %d reads", got)
	}
}

// TestMaintainerPromotes: a version is probed for the clients that are known, and takes over when the server accepts it.
func TestMaintainerPromotes(t *testing.T) {
	m, caretaker := newCaretaker(t)
	must(m.minter.exchange(t.Context(), must(m.minter.resolve(t.Context(), ""))))
	must(m.add("two"))
	caretaker.pass(t.Context())
	if m.states() != "active pending" {
		t.Fatalf("before the server knows it, the versions are %s", m.states())
	}
	m.know("one", "two")
	m.clock.advance(time.Minute)
	caretaker.pass(t.Context())
	if m.states() != "retired active" {
		t.Errorf("the versions are %s", m.states())
	}
}

// TestMaintainerGoesOnAfterAFailure: a key that can't be read is counted, and holds up no other.
func TestMaintainerGoesOnAfterAFailure(t *testing.T) {
	m, caretaker := newCaretaker(t)
	k := *m.read().signingKey
	k.RotationPeriod, k.NextRotationTime = time.Hour, m.clock.wall()
	m.put(keysStoragePrefix+"main", &k)
	broken := *m.read().signingKey
	m.put(keysStoragePrefix+"broken", &broken)
	failing := true
	m.storage.onEach(func(operation, key string) error {
		if failing && operation == "get" && key == keysStoragePrefix+"broken" {
			failing = false // the check of the kid reads all keys, too
			return errInjected
		}
		return nil
	})
	caretaker.pass(t.Context())
	if got := counted(caretaker, "redox_background_failures_total", ""); got != 1 {
		t.Errorf("%v failures were counted", got)
	}
	if m.states() != "active pending" {
		t.Errorf("the key that was due has the versions %s", m.states())
	}
}

// TestMaintainerRotatesOnTime makes a pending version when it is due, and skips a rotation while there is one.
func TestMaintainerRotatesOnTime(t *testing.T) {
	m, caretaker := newCaretaker(t)
	k := *m.read().signingKey
	k.RotationPeriod, k.NextRotationTime = time.Hour, m.clock.wall().Add(time.Hour)
	m.put(keysStoragePrefix+"main", &k)
	for _, step := range []struct {
		after  time.Duration
		states string
		log    float64 // rotations that were skipped
	}{
		{59 * time.Minute, "active", 0},
		{time.Minute, "active pending", 0},
		{2 * time.Hour, "active pending", 1},
	} {
		m.clock.advance(step.after)
		caretaker.pass(t.Context())
		skipped := counted(caretaker, "redox_rotations_total", rotationSkipped)
		if m.states() != step.states || skipped != step.log {
			t.Errorf("after another %s: %s, %v skipped", step.after, m.states(), skipped)
		}
	}
	if next := m.read().NextRotationTime; !next.After(m.clock.wall()) || strings.Contains(m.states(), "destroyed") {
		t.Errorf("the next rotation is at %s", next)
	}
}
