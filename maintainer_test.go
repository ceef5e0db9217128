// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"slices"
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

// due makes the next rotation of a key due now.
func (m *mill) due(name string) {
	m.t.Helper()
	must(m.edit(m.t.Context(), name, func(_ *writing, k *signingKey) (*edit, error) {
		k.RotationPeriod, k.NextRotationTime = time.Hour, m.clock.wall()
		return &edit{}, nil
	}))
}

// versionsOf returns how many versions a key has.
func (m *mill) versionsOf(name string) int {
	return len(must(m.snapshot(m.t.Context(), name)).Versions)
}

// failures returns how often background work has failed.
func failures(m *maintainer) float64 { return counted(m, "redox_background_failures_total", "") }

// announced returns the events since it was called last that are of a kind, as text.
func announced(m *maintainer, kind string) []string {
	var events []string
	waiting, _ := m.telemetry.events.take()
	for _, e := range waiting {
		if e.kind == kind {
			events = append(events, strings.Join(e.metadata, " "))
		}
	}
	return events
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

// TestMaintainerWithNothingDue: a pass costs 1 + k reads, and writes nothing.
func TestMaintainerWithNothingDue(t *testing.T) {
	m, caretaker := newCaretaker(t)
	const keys = 7
	for n := 2; n <= keys; n++ {
		must(m.addTo(fmt.Sprint("key-", n), fmt.Sprint("other-", n)))
	}
	m.heard(m.client(), 1)
	caretaker.pass(t.Context()) // reads what is kept in memory from then on, and stores what was heard
	if m.read().hasNews() || len(m.read().stored.Clients) != 1 {
		t.Error("what was heard is not stored")
	}
	check := m.wroteNothing()
	if got := m.readsOf(func() { caretaker.pass(t.Context()) }); got != 1+keys {
		t.Errorf("a pass over %d keys takes %d reads", keys, got)
	}
	check()
	if m.asked() > 0 || failures(caretaker) > 0 {
		t.Errorf("the server was asked %d times, %v failures", m.asked(), failures(caretaker))
	}
}

// TestMaintainerThatMayNotWrite does nothing at all, whatever is due.
func TestMaintainerThatMayNotWrite(t *testing.T) {
	for name, test := range map[string]struct {
		state consts.ReplicationState
		local bool
		works bool
	}{
		"active node of the primary":           {state: consts.ReplicationPerformancePrimary, works: true},
		"performance standby":                  {state: consts.ReplicationPerformanceStandby},
		"performance standby, a local mount":   {state: consts.ReplicationPerformanceStandby, local: true},
		"performance secondary":                {state: consts.ReplicationPerformanceSecondary},
		"performance secondary, a local mount": {state: consts.ReplicationPerformanceSecondary, local: true, works: true},
		"disaster recovery secondary":          {state: consts.ReplicationDRSecondary},
	} {
		m, caretaker := newCaretaker(t)
		m.due("main")
		m.heard(m.client(), 1)
		m.system.ReplicationStateVal, m.system.LocalMountVal = test.state, test.local
		check := m.wroteNothing()
		reads := m.readsOf(func() { caretaker.pass(t.Context()) })
		if test.works {
			if reads == 0 || m.versionsOf("main") != 2 {
				t.Errorf("%s: %d reads, %d versions", name, reads, m.versionsOf("main"))
			}
			continue
		}
		if reads > 0 || m.asked() > 0 || failures(caretaker) > 0 {
			t.Errorf("%s: %d reads, %d requests, %v failures", name, reads, m.asked(), failures(caretaker))
		}
		check()
	}
}

// TestMaintainerStopsBetweenKeys when the mount closes, or when this node may not write any more; neither is a failure.
func TestMaintainerStopsBetweenKeys(t *testing.T) {
	for name, stop := range map[string]func(*mill, context.CancelFunc){
		"the mount closes": func(_ *mill, cancel context.CancelFunc) { cancel() },
		"this node may not write any more": func(m *mill, _ context.CancelFunc) {
			m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
		},
		"nothing happens, so it must go on": func(*mill, context.CancelFunc) {},
	} {
		m, caretaker := newCaretaker(t)
		must(m.addTo("later", "later-1"))
		must(m.addTo("next", "next-1"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var read []string
		m.storage.onEach(func(operation, key string) error {
			if operation == "get" && strings.HasPrefix(key, keysStoragePrefix) {
				read = append(read, strings.TrimPrefix(key, keysStoragePrefix))
				if key == keysStoragePrefix+"main" {
					stop(m, cancel)
				}
			}
			return nil
		})
		caretaker.pass(ctx)
		want := []string{"later", "main"}
		if strings.HasPrefix(name, "nothing") {
			want = append(want, "next")
		}
		if !slices.Equal(read, want) || failures(caretaker) > 0 {
			t.Errorf("%s: it looks at %v; %v failures", name, read, failures(caretaker))
		}
	}
}

// TestMaintainerGoesOnAfterAFailure: it is counted, the other keys get what is due, and the next pass makes up for it.
func TestMaintainerGoesOnAfterAFailure(t *testing.T) {
	m, caretaker := newCaretaker(t)
	must(m.addTo("broken", "broken-1"))
	m.due("broken")
	m.due("main")
	m.storage.onEach(failing("put", keysStoragePrefix+"broken"))
	caretaker.pass(t.Context())
	if failures(caretaker) != 1 || m.versionsOf("broken") != 1 || m.states() != "active pending" {
		t.Errorf("%v failures; versions: %d of the broken key, %s of the other", failures(caretaker), m.versionsOf("broken"), m.states())
	}
	m.storage.onEach(nil)
	caretaker.pass(t.Context())
	if failures(caretaker) != 1 || m.versionsOf("broken") != 2 {
		t.Errorf("then %v failures and %d versions", failures(caretaker), m.versionsOf("broken"))
	}
	m.storage.onEach(failing("list", keysStoragePrefix))
	caretaker.pass(t.Context())
	if failures(caretaker) != 2 {
		t.Errorf("%v failures, and the keys could not be listed", failures(caretaker))
	}
}

// TestMaintainerPromotes: a version is probed for the clients that are configured, takes over when the server accepts it, and
// the one before is destroyed when its grace period is over.
func TestMaintainerPromotes(t *testing.T) {
	m, caretaker := newCaretaker(t)
	must(m.minter.exchange(t.Context(), must(m.minter.resolve(t.Context(), ""))))
	must(m.add("two"))
	for _, step := range []struct {
		after  time.Duration
		knows  []string
		states string
		asked  int // in this pass
	}{
		{0, []string{"one"}, "active pending", 2},                       // it is rejected, and the one before is taken
		{59 * time.Second, []string{"one", "two"}, "active pending", 0}, // probes pause for a minute
		{time.Second, []string{"one", "two"}, "retired active", 1},
		{24*time.Hour - time.Second, []string{"two"}, "retired active", 0},
		{time.Second, []string{"two"}, "destroyed active", 1}, // that was asked a day ago
	} {
		m.clock.advance(step.after)
		m.know(step.knows...)
		before := m.asked()
		caretaker.pass(t.Context())
		if got := m.asked() - before; m.states() != step.states || got != step.asked {
			t.Errorf("after another %s: %s; the server was asked %d times", step.after, m.states(), got)
		}
	}
	if failures(caretaker) > 0 {
		t.Errorf("%v failures", failures(caretaker))
	}
}

// TestMaintainerRotatesOnTime: a rotation that is due makes a pending version. It is skipped while there is one, and when
// its window is over; each time that is told of once, and the next time is set.
func TestMaintainerRotatesOnTime(t *testing.T) {
	for name, test := range map[string]struct {
		pending bool
		window  time.Duration
		late    time.Duration
		states  string
		cause   string // why it is skipped, empty when it is not
	}{
		"not yet":                        {late: -time.Second, states: "active"},
		"due":                            {states: "active pending"},
		"due, long ago":                  {late: 100 * time.Hour, states: "active pending"},
		"in its window":                  {window: time.Hour, late: time.Hour, states: "active pending"},
		"after its window":               {window: time.Hour, late: time.Hour + time.Second, states: "active", cause: rotationMissed},
		"with a pending version":         {pending: true, states: "active pending", cause: rotationSkipped},
		"with one, but not yet":          {pending: true, late: -time.Second, states: "active pending"},
		"with one, and after its window": {pending: true, window: time.Hour, late: 2 * time.Hour, states: "active pending", cause: rotationMissed},
	} {
		m, caretaker := newCaretaker(t)
		if test.pending {
			must(m.add("two"))
		}
		m.clock.advance(200 * time.Hour)
		due := m.clock.wall().Add(-test.late)
		must(m.set(func(k *signingKey) {
			k.RotationSchedule, k.RotationWindow, k.NextRotationTime = "0 3 1 1 *", test.window, due
		}))
		announced(caretaker, "")
		var told []string
		for range 2 { // the second pass has nothing left to do
			caretaker.pass(t.Context())
			told = append(told, announced(caretaker, eventRotationSkip)...)
		}
		if m.states() != test.states {
			t.Errorf("%s: the versions are %s", name, m.states())
		}
		var want []string
		if test.cause != "" {
			want = []string{"path keys/main key main cause " + test.cause}
		}
		if !slices.Equal(told, want) {
			t.Errorf("%s: told %q", name, told)
		}
		for _, cause := range []string{rotationSkipped, rotationMissed} {
			if got := counted(caretaker, "redox_rotations_total", cause); (got == 1) != (cause == test.cause) || got > 1 {
				t.Errorf("%s: %v %s", name, got, cause)
			}
		}
		if next := m.read().NextRotationTime; test.late >= 0 && !next.After(m.clock.wall()) || test.late < 0 && !next.Equal(due) {
			t.Errorf("%s: the next rotation is at %s", name, next)
		}
		if failures(caretaker) > 0 {
			t.Errorf("%s: %v failures", name, failures(caretaker))
		}
	}
}

// TestMaintainerDecidesFromOneSnapshot: outside of the writes, which look again under the store's lock, a pass reads a
// key's entry once, also one that probes, promotes and rotates. So what it does fits together.
func TestMaintainerDecidesFromOneSnapshot(t *testing.T) {
	m, caretaker := newCaretaker(t)
	must(m.minter.exchange(t.Context(), must(m.minter.resolve(t.Context(), ""))))
	must(m.add("two"))
	m.know("one", "two")
	m.due("main")
	reads := 0
	m.storage.onEach(func(operation, key string) error {
		if operation == "get" && key == keysStoragePrefix+"main" && len(m.store.writes) == 0 {
			reads++
		}
		return nil
	})
	caretaker.pass(t.Context())
	m.storage.onEach(nil)
	if reads != 1 {
		t.Errorf("the entry was read %d times", reads)
	}
	if m.states() != "retired active pending" || failures(caretaker) > 0 {
		t.Fatalf("the versions are %s; %v failures", m.states(), failures(caretaker))
	}
}

// TestMaintainerLooksAgain: what a request did to the key since the snapshot is not undone, and not done twice.
func TestMaintainerLooksAgain(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile func(*mill)
		states    string
	}{
		"rotated": {func(m *mill) { must(m.add("by-hand")) }, "active pending"},
		"set to rotate later": {func(m *mill) {
			must(m.set(func(k *signingKey) { k.NextRotationTime = m.clock.wall().Add(time.Hour) }))
		}, "active"},
		"deleted": {func(m *mill) {
			must(m.delete(m.t.Context(), "main", func(*writing, *signingKey) error { return nil }))
		}, ""},
	} {
		m, caretaker := newCaretaker(t)
		m.due("main")
		s := m.read()
		test.meanwhile(m)
		if err := caretaker.rotateIfDue(t.Context(), s); err != nil {
			t.Errorf("%s meanwhile: %v", name, err)
		}
		states := ""
		if must(m.snapshot(t.Context(), "main")) != nil {
			states = m.states()
		}
		if states != test.states || len(announced(caretaker, eventRotationSkip)) > 0 {
			t.Errorf("%s meanwhile: the versions are %q", name, states)
		}
	}
}
