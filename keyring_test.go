// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/rotation"
)

// ring is a keyring without a mount.
type ring struct {
	*keyring
	t       *testing.T
	storage *watchedStorage
	clock   *testClock
	told    []keyChange
}

func newRing(t *testing.T) *ring {
	r := &ring{t: t, storage: &watchedStorage{inner: &logical.InmemStorage{}}, clock: newTestClock()}
	r.restart()
	return r
}

// restart makes the keyring anew: all that is not stored is forgotten.
func (r *ring) restart() {
	r.keyring = newKeyring(newStore(r.storage), r.clock.now, hclog.NewNullLogger(), func(c keyChange) { r.told = append(r.told, c) })
}

// add adds a version with a kid to key "main".
func (r *ring) add(kid string) (*keySnapshot, error) { return r.addTo("main", kid) }

func (r *ring) addTo(name, kid string) (*keySnapshot, error) {
	key := must(privatekey.Generate(privatekey.ES384, 0))
	v := must(newKeyVersion(key, kid, false, r.clock.wall()))
	return r.edit(r.t.Context(), name, func(*writing, *signingKey) (*edit, error) { return &edit{version: v, cause: "test"}, nil })
}

// set changes the settings of key "main".
func (r *ring) set(change func(*signingKey)) (*keySnapshot, error) {
	return r.edit(r.t.Context(), "main", func(_ *writing, k *signingKey) (*edit, error) {
		change(k)
		return &edit{}, nil
	})
}

func (r *ring) read() *keySnapshot { return must(r.snapshot(r.t.Context(), "main")) }

func (r *ring) states() string {
	var states []string
	for _, v := range r.read().Versions {
		states = append(states, string(v.State))
	}
	return strings.Join(states, " ")
}

var someClient = rotation.Client{ClientID: "client-1", TokenURL: "https://redox.test/token"}

// news returns what was told since it was called last.
func (r *ring) news() []keyChange {
	told := r.told
	r.told = nil
	return told
}

// readsOf returns how often storage is read while something is done.
func (r *ring) readsOf(do func()) int {
	before := r.storage.readCount()
	do()
	return r.storage.readCount() - before
}

func (r *ring) kept() int {
	r.opened.mu.Lock()
	defer r.opened.mu.Unlock()
	return len(r.opened.byName["main"])
}

func (r *ring) accepted(version int) outcome {
	return outcome{accepted: version, acceptedTime: r.clock.wall()}
}

// TestKeyringEdits: a version is added with its checks, the settings with it, and each edit is told of once.
func TestKeyringEdits(t *testing.T) {
	r := newRing(t)
	edited := func(kid string, grace time.Duration) error {
		v := must(newKeyVersion(must(privatekey.Generate(privatekey.ES384, 0)), kid, false, r.clock.wall()))
		_, err := r.edit(t.Context(), "main", func(_ *writing, k *signingKey) (*edit, error) {
			k.RetireGrace, k.RotationPeriod = grace, 48*time.Hour
			return &edit{version: v, cause: "test"}, nil
		})
		return err
	}
	must(r.addTo("other", "taken"))
	r.news()
	for _, step := range []struct {
		kid     string
		problem string // why it is refused, empty when it is not
		states  string // then
		created bool
	}{
		{"taken", `key "other" has this kid`, "", false},
		{"one", "", "active", true},
		{"one", `key "main" has this kid`, "active", false},
		{"two", "", "active pending", false},
		{"two", `key "main" has this kid`, "active pending", false},
		{"three", "pending version already", "active pending", false},
	} {
		before := r.storage.snapshot()[keysStoragePrefix+"main"]
		err := edited(step.kid, time.Duration(len(step.kid))*time.Hour)
		news := r.news()
		if step.problem != "" {
			if err == nil || !strings.Contains(err.Error(), step.problem) || len(news) > 0 {
				t.Errorf("kid %s: %v; told of %+v", step.kid, err, news)
			}
			if r.storage.snapshot()[keysStoragePrefix+"main"] != before {
				t.Errorf("kid %s is refused, and the key has changed", step.kid)
			}
			continue
		}
		if err != nil || r.states() != step.states {
			t.Fatalf("kid %s: %v; the versions are %s", step.kid, err, r.states())
		}
		if len(news) != 1 || news[0].key != "main" || news[0].created != step.created || news[0].endTokens || len(news[0].transitions) != 1 ||
			news[0].transitions[0].KID != step.kid || news[0].transitions[0].Cause != "test" {
			t.Errorf("of kid %s is told %+v", step.kid, news)
		}
		k := r.read()
		if k.RetireGrace != 3*time.Hour || k.NextRotationTime.Before(r.clock.wall().Add(48*time.Hour)) {
			t.Errorf("with kid %s the grace period is %s and the next rotation at %s", step.kid, k.RetireGrace, k.NextRotationTime)
		}
	}
}

// TestKeyringEditsSettings: without a version, too; and of what is not stored nobody hears.
func TestKeyringEditsSettings(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	r.news()
	if after := must(r.set(func(k *signingKey) { k.RetireGrace = time.Hour })); after.RetireGrace != time.Hour || r.read().RetireGrace != time.Hour {
		t.Errorf("the grace period is %s, and read again %s", after.RetireGrace, r.read().RetireGrace)
	}
	if news := r.news(); len(news) != 1 || news[0].key != "main" || len(news[0].transitions) > 0 || news[0].created || news[0].endTokens {
		t.Errorf("told of %+v", news)
	}
	written := len(r.storage.written())
	for _, refusal := range []error{nil, errInjected} {
		after, err := r.edit(t.Context(), "main", func(_ *writing, k *signingKey) (*edit, error) {
			k.RetireGrace = 9 * time.Hour
			return nil, refusal
		})
		if after != nil || err != refusal || len(r.news()) > 0 || len(r.storage.written()) != written || r.read().RetireGrace != time.Hour {
			t.Errorf("an edit that stores nothing: %v, changed %v", err, after != nil)
		}
	}
}

// TestKeyringAfterAFailedPut: it may have been carried out or not. So nobody is told of what may not have happened, and
// what was derived from the key is derived anew.
func TestKeyringAfterAFailedPut(t *testing.T) {
	for _, carriedOut := range []bool{false, true} {
		r := newRing(t)
		fail := func() {
			r.storage.onEach(func(operation, _ string) error {
				if operation != "put" {
					return nil
				}
				if carriedOut {
					r.storage.carryOut()
				}
				return errInjected
			})
		}
		fail()
		if _, err := r.add("one"); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		if news := r.news(); len(news) != 1 || news[0].created || len(news[0].transitions) > 0 {
			t.Errorf("of a key that may not be there is told %+v", news)
		}
		r.storage.onEach(nil)
		if !carriedOut {
			must(r.add("one"))
		}
		before := must(r.jwkSets(t.Context()))
		s := r.read()
		must(r.open(s.signingKey, s.newest(), r.store.generation()))
		r.news()
		fail()
		if _, err := r.add("two"); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		r.storage.onEach(nil)
		if news := r.news(); len(news) != 1 || len(news[0].transitions) > 0 {
			t.Errorf("of a version that may not be there is told %+v", news)
		}
		if r.kept() > 0 {
			t.Error("a key opened before is kept")
		}
		if after := must(r.jwkSets(t.Context())); after == before || (len(after.all) > len(before.all)) != carriedOut {
			t.Errorf("carried out: %v; the JWKS was %s and is %s", carriedOut, before.all, after.all)
		}
	}
}

// TestKeyringStoresClientsFirst: an event is stored in steps, and whichever of them fails, and whether the process ends
// there or not, applying the event again comes to the same.
func TestKeyringStoresClientsFirst(t *testing.T) {
	prepared := func() *ring {
		r := newRing(t)
		must(r.add("one"))
		r.observeProbe("main", someClient, r.accepted(1))
		must(r.add("two"))
		r.news()
		return r
	}
	// order returns a hook that lists what is put, and fails the put of that number; 0 fails none.
	order := func(puts *[]string, failing int) func(string, string) error {
		return func(operation, key string) error {
			if operation != "put" {
				return nil
			}
			if *puts = append(*puts, key); len(*puts) == failing {
				return errInjected
			}
			return nil
		}
	}
	var puts []string
	smooth := prepared()
	smooth.storage.onEach(order(&puts, 0))
	want := must(smooth.apply(t.Context(), "main", rotation.Force{}))
	clients, key := clientsStoragePrefix+"main", keysStoragePrefix+"main"
	if !slices.Equal(puts, []string{clients, clients, key}) {
		t.Fatalf("written in this order: %v", puts) // what was observed, what the event says of clients, the key
	}
	if smooth.states() != "retired active" || !slices.Equal(want.rotation().Needs(2), []rotation.Client{someClient}) {
		t.Errorf("the versions are %s, and version 2 is needed by %v", smooth.states(), want.rotation().Needs(2))
	}
	for _, test := range []struct {
		failing int
		restart bool
	}{
		{1, false}, // the process must not end there: what was observed is in memory
		{2, false}, {2, true},
		{3, false}, {3, true},
	} {
		r := prepared()
		var puts []string
		r.storage.onEach(order(&puts, test.failing))
		if _, err := r.apply(t.Context(), "main", rotation.Force{}); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		r.storage.onEach(nil)
		for _, told := range r.news() {
			if len(told.transitions) > 0 {
				t.Errorf("put %d failed; told of %+v", test.failing, told)
			}
		}
		if test.restart {
			r.restart()
		}
		if r.states() != "active pending" {
			t.Errorf("put %d failed: the versions are %s", test.failing, r.states())
		}
		got, err := r.apply(t.Context(), "main", rotation.Force{})
		if err != nil {
			t.Errorf("put %d failed, restart %v: %v", test.failing, test.restart, err)
			continue
		}
		for what, s := range map[string]*keySnapshot{"returned": got, "read again": r.read()} {
			records := s.records()
			records[1].Forced = want.records()[1].Forced // not the same: with the clients stored it looks proven
			if !slices.Equal(records, want.records()) || !s.clients.Equal(want.clients) {
				t.Errorf("put %d failed, restart %v: %s is %+v with %+v", test.failing, test.restart, what, s.records(), s.clients)
			}
		}
	}
}

// TestKeyringObservations count at once, survive a write that fails, and are stored by the next.
func TestKeyringObservations(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	must(r.add("two"))
	needs := func(s *keySnapshot) string { return fmt.Sprint(len(s.rotation().Needs(1)), len(s.rotation().Needs(2))) }
	r.news()
	r.observeMint("main", someClient, r.accepted(1))
	if news := r.news(); len(news) != 1 || !news[0].observed || news[0].key != "main" {
		t.Errorf("told %+v", news)
	}
	if s := r.read(); needs(s) != "1 0" || len(s.stored.Standings) > 0 {
		t.Errorf("observed is %v, stored %v", s.clients, s.stored)
	}
	// While the write fails a mint observes more. That is newer.
	r.storage.onEach(func(operation, _ string) error {
		if operation != "put" {
			return nil
		}
		r.clock.advance(time.Second)
		r.observeProbe("main", someClient, r.accepted(2))
		return errInjected
	})
	if _, err := r.apply(t.Context(), "main", rotation.Settle{}); !errors.Is(err, errInjected) || !r.hasObserved("main") {
		t.Errorf("a failed write: %v, still to be stored: %v", err, r.hasObserved("main"))
	}
	r.storage.onEach(nil)
	if needs(r.read()) != "0 1" {
		t.Errorf("after a failed write %v is known", r.read().clients)
	}
	must(r.apply(t.Context(), "main", rotation.Settle{}))
	if r.hasObserved("main") || len(r.read().stored.Standings) != 1 || r.states() != "retired active" {
		t.Errorf("stored is %v, the versions are %s", r.read().stored, r.states())
	}
	r.restart()
	if needs(r.read()) != "0 1" {
		t.Errorf("after a restart %v is known", r.read().clients)
	}
}

// TestKeyringReadsClientsOnce: they are read from storage once, and again when what is in memory may be out of date.
func TestKeyringReadsClientsOnce(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	r.restart()
	snapshot := func(reads int, when string) {
		t.Helper()
		if got := r.readsOf(func() { r.read() }); got != reads {
			t.Errorf("a snapshot %s takes %d reads, expected %d", when, got, reads)
		}
	}
	snapshot(2, "at first")
	snapshot(1, "after that")
	must(r.set(func(*signingKey) {}))
	snapshot(1, "after an edit of the key")
	r.observeProbe("main", someClient, r.accepted(1))
	must(r.apply(t.Context(), "main", rotation.Settle{}))
	snapshot(1, "after the clients were written here")

	r.store.invalidated()
	r.invalidateClients("main")
	snapshot(2, "after another node has written the clients")
	snapshot(1, "after that")

	r.observeProbe("main", rotation.Client{ClientID: "client-2"}, r.accepted(1))
	r.storage.onEach(failing("put", clientsStoragePrefix))
	if _, err := r.apply(t.Context(), "main", rotation.Settle{}); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	r.storage.onEach(nil)
	snapshot(2, "after a failed put")

	r.store.invalidated()
	r.invalidateClients("main")
	r.storage.onEach(func(operation, key string) error {
		if operation == "get" && key == clientsStoragePrefix+"main" {
			r.store.invalidated() // another node writes them while they are read
			r.invalidateClients("main")
		}
		return nil
	})
	r.read()
	r.storage.onEach(nil)
	snapshot(2, "after one that another node's write came into")
}

// TestKeyringSnapshotsShareNothing: whatever a caller does to a snapshot, the next one is as it was. What is stored of
// the clients is shared, and nobody changes that.
func TestKeyringSnapshotsShareNothing(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	must(r.add("two"))
	r.observeProbe("main", someClient, r.accepted(2))
	must(r.apply(t.Context(), "main", rotation.Settle{}))
	r.clock.advance(time.Hour)
	r.observeProbe("main", someClient, r.accepted(1)) // a retired version is used
	must(r.apply(t.Context(), "main", rotation.Settle{}))
	text := func(s *keySnapshot) string { return string(must(json.Marshal([]any{s.signingKey, s.clients}))) }
	want := text(r.read())
	if len(r.read().clients.Standings) != 1 || len(r.read().clients.RetiredUse) != 1 {
		t.Fatalf("known is %+v", r.read().clients)
	}
	for name, get := range map[string]func() *keySnapshot{
		"snapshot": r.read,
		"existing": func() *keySnapshot { return must(r.existing(t.Context(), "name", "main")) },
		"apply":    func() *keySnapshot { return must(r.apply(t.Context(), "main", rotation.Settle{})) },
		"edit":     func() *keySnapshot { return must(r.set(func(*signingKey) {})) },
	} {
		s := get()
		if text(s) != want {
			t.Errorf("%s returns another key: %+v with %+v", name, s.records(), s.clients)
		}
		s.RetireGrace = time.Second
		s.Versions[0].State, s.Versions[0].PublicKey[0] = rotation.Destroyed, 'x'
		s.clients.Standings[0].Accepted = 99
		clear(s.clients.RetiredUse)
		if after := r.read(); text(after) != want {
			t.Fatalf("what %s returned was changed, and so was the next snapshot: %+v with %+v", name, after.records(), after.clients)
		}
	}
}

func TestKeyringDeletes(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	r.observeProbe("main", someClient, r.accepted(1))
	must(r.apply(t.Context(), "main", rotation.Settle{}))
	r.observeProbe("main", rotation.Client{ClientID: "client-2"}, r.accepted(1)) // not stored when the key goes
	agree := func(*writing, *signingKey) error { return nil }
	r.news()
	stored := r.storage.snapshot()
	if deleted, err := r.delete(t.Context(), "main", func(*writing, *signingKey) error { return errInjected }); deleted || err != errInjected {
		t.Errorf("a refused deletion: %v, %v", deleted, err)
	}
	if deleted, err := r.delete(t.Context(), "none", agree); deleted || err != nil {
		t.Errorf("the deletion of what is not there: %v, %v", deleted, err)
	}
	if news := r.news(); len(news) > 0 || !maps.Equal(r.storage.snapshot(), stored) {
		t.Errorf("nothing was deleted; told %+v", news)
	}

	var deletes []string
	r.storage.onEach(func(operation, key string) error {
		if operation == "delete" {
			deletes = append(deletes, key)
		}
		return nil
	})
	deleted, err := r.delete(t.Context(), "main", agree)
	if !deleted || err != nil || !slices.Equal(deletes, []string{clientsStoragePrefix + "main", keysStoragePrefix + "main"}) {
		t.Errorf("deleted %v, %v: %v", deleted, err, deletes)
	}
	if news := r.news(); len(news) != 1 || !news[0].endTokens || news[0].key != "main" {
		t.Errorf("told %+v", news)
	}
	must(r.add("one"))
	if known := r.read().clients.Standings; len(known) != 0 {
		t.Errorf("a new key of that name knows %v", known)
	}
}

// TestKeyringDeletesHalfWay: whichever deletion fails, the key is there until the last, and can be deleted again.
func TestKeyringDeletesHalfWay(t *testing.T) {
	for _, prefix := range []string{clientsStoragePrefix, keysStoragePrefix} {
		r := newRing(t)
		must(r.add("one"))
		r.observeProbe("main", someClient, r.accepted(1))
		must(r.apply(t.Context(), "main", rotation.Settle{}))
		agree := func(*writing, *signingKey) error { return nil }
		r.storage.onEach(failing("delete", prefix))
		if deleted, err := r.delete(t.Context(), "main", agree); deleted || err != errInjected || r.states() != "active" {
			t.Errorf("%s can't be deleted: %v, %v", prefix, deleted, err)
		}
		r.storage.onEach(nil)
		if deleted, err := r.delete(t.Context(), "main", agree); !deleted || err != nil || len(r.storage.snapshot()) > 0 {
			t.Errorf("the second time: %v, %v; left is %v", deleted, err, slices.Collect(maps.Keys(r.storage.snapshot())))
		}
	}
}

// TestKeyringJWKS: the sets come from memory until something changes.
func TestKeyringJWKS(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	held := func() int { return strings.Count(string(must(r.jwkSets(t.Context())).all), `"kid"`) }
	if held() != 1 || r.readsOf(func() { held() }) != 0 {
		t.Error("the JWKS does not come from memory")
	}
	r.observeMint("main", someClient, r.accepted(1))
	if r.readsOf(func() { held() }) != 0 {
		t.Error("what is observed of clients drops the JWKS")
	}
	for _, step := range []struct {
		name   string
		change func()
		held   int
	}{
		{"a version is added", func() { must(r.add("two")) }, 2},
		{"a version is destroyed", func() { must(r.apply(t.Context(), "main", rotation.Compromise{Version: 2})) }, 1},
		{"the key is deleted", func() {
			must(r.delete(t.Context(), "main", func(*writing, *signingKey) error { return nil }))
		}, 0},
		{"the key is there again", func() { must(r.add("one")) }, 1},
	} {
		step.change()
		if got := held(); got != step.held {
			t.Errorf("%s: the JWKS holds %d keys, expected %d", step.name, got, step.held)
		}
	}

	// One that began before a change is returned to whoever asked, and not kept.
	must(r.addTo("a", "other"))
	r.storage.onEach(func(operation, key string) error {
		if operation == "get" && key == keysStoragePrefix+"main" { // "a" has been read
			r.storage.onEach(nil)
			must(r.addTo("a", "another"))
		}
		return nil
	})
	if began, then := held(), held(); began != 2 || then != 3 {
		t.Errorf("with a change meanwhile %d keys were loaded, and then %d", began, then)
	}
	r.store.invalidated()
	r.forget("a")
	if r.readsOf(func() { held() }) == 0 {
		t.Error("another node has changed a key, and the JWKS comes from memory")
	}
}

// TestKeyringOpenedKeys: a private key is parsed once, and no longer in memory than the key is there.
func TestKeyringOpenedKeys(t *testing.T) {
	var r *ring
	gone := map[string]func() error{
		"deleted": func() error {
			_, err := r.delete(t.Context(), "main", func(*writing, *signingKey) error { return nil })
			return err
		},
		"compromised":             func() error { _, err := r.apply(t.Context(), "main", rotation.Compromise{Version: 1}); return err },
		"changed by another node": func() error { r.store.invalidated(); r.forget("main"); return nil },
	}
	for name, end := range gone {
		r = newRing(t)
		must(r.add("one"))
		generation := r.store.generation()
		s := r.read()
		first := must(r.open(s.signingKey, s.newest(), generation))
		if again := must(r.open(s.signingKey, s.newest(), generation)); again != first || r.kept() != 1 {
			t.Errorf("%d keys are kept, opened twice", r.kept())
		}
		must(0, end())
		if r.kept() != 0 {
			t.Errorf("the opened key is kept when it is %s", name)
		}
		// A mint that read the key before goes on with it, and leaves nothing behind.
		if late, err := r.open(s.signingKey, s.newest(), generation); late == nil || err != nil || r.kept() != 0 {
			t.Errorf("opened when the key was %s: %v; %d are kept", name, err, r.kept())
		}
	}
}

// TestKeyringLeavesUnusableEntries as they are, whatever it is asked to do to the key.
func TestKeyringLeavesUnusableEntries(t *testing.T) {
	for _, entry := range []string{`{"schema_version":2}`, "{"} {
		for _, key := range []string{keysStoragePrefix + "main", clientsStoragePrefix + "main"} {
			r := newRing(t)
			must(r.add("one"))
			r.restart()
			must(0, r.storage.inner.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(entry)}))
			r.observeProbe("main", someClient, r.accepted(1))
			_, err := r.apply(t.Context(), "main", rotation.Settle{})
			if unusable := (*unusableEntry)(nil); !errors.As(err, &unusable) || unusable.key != key {
				t.Errorf("%s is %s, and applied was an event: %v", key, entry, err)
			}
			if _, err := r.putRegistrations(t.Context(), "main", nil); key == clientsStoragePrefix+"main" && err == nil {
				t.Errorf("%s is %s, and the registrations were stored", key, entry)
			}
			if _, err := r.add("two"); key == keysStoragePrefix+"main" && err == nil {
				t.Errorf("%s is %s, and a version was added", key, entry)
			}
			if got := r.storage.snapshot()[key]; got != entry || !r.hasObserved("main") {
				t.Errorf("%s was %s and is %s; still observed: %v", key, entry, got, r.hasObserved("main"))
			}
		}
	}
}
