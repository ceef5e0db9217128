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
	"github.com/hashicorp/vault/sdk/helper/consts"
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
	system  *logical.StaticSystemView
	clients *directory
}

func newRing(t *testing.T) *ring {
	r := &ring{t: t, storage: &watchedStorage{inner: &logical.InmemStorage{}}, clock: newTestClock(), system: logical.TestSystemView()}
	r.restart()
	return r
}

// restart makes the keyring anew: all that is not stored is forgotten.
func (r *ring) restart() {
	r.keyring = newKeyring(newStore(r.storage), &node{r.system}, r.clock.now, hclog.NewNullLogger(), func(c keyChange) { r.told = append(r.told, c) })
	r.clients = newDirectory(r.store, r.clock.now)
}

// use makes the configuration name someClient with key "main".
func (r *ring) use() {
	r.t.Helper()
	c := defaultConfig()
	c.ClientID, c.Key, c.TokenURL = someClient.ClientID, "main", someClient.TokenURL
	must(0, r.store.write(r.t.Context(), func(w *writing) error { return w.put(r.t.Context(), configStorageKey, c) }))
}

// settled stores what was heard and does what may be done.
func (r *ring) settled(probes ...rotation.Event) (*keySnapshot, error) {
	return r.settle(r.t.Context(), "main", r.clients, probes)
}

// heard notes that the server takes a version of key "main" from a client, and rejects others. It reports whether that is news.
func (r *ring) heard(client rotation.Client, takes int, rejects ...int) bool {
	r.t.Helper()
	news := heardOf{takes: {taken: true, at: r.clock.now()}}
	for _, version := range rejects {
		news[version] = heard{at: r.clock.now()}
	}
	return r.observe(r.read().signingKey, client, news)
}

// known returns what is known of someClient.
func (r *ring) known() rotation.Record { return r.read().rotation().Of(someClient) }

// proves reports whether a version is proven for someClient.
func (r *ring) proves(version int) bool {
	_, proven := r.known().Proven(version)
	return proven
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
		{"one", `version 1 of key "main" has this kid`, "active", false},
		{"two", "", "active pending", false},
		{"two", `version 2 of key "main" has this kid`, "active pending", false},
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
		r.news()
		fail()
		if _, err := r.add("two"); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		r.storage.onEach(nil)
		if news := r.news(); len(news) != 1 || len(news[0].transitions) > 0 {
			t.Errorf("of a version that may not be there is told %+v", news)
		}
		if after := must(r.jwkSets(t.Context())); after == before || (len(after.all) > len(before.all)) != carriedOut {
			t.Errorf("carried out: %v; the JWKS was %s and is %s", carriedOut, before.all, after.all)
		}
	}
}

// TestKeyringStoresClientsFirst: a promotion is stored in steps, and whichever of them fails, and whether the process ends
// there or not, it can be done again and comes to the same. A reader never sees a key promoted whose clients are not stored.
func TestKeyringStoresClientsFirst(t *testing.T) {
	other := rotation.Client{ClientID: "client-2", TokenURL: someClient.TokenURL}
	prepared := func() *ring {
		r := newRing(t)
		must(r.add("one"))
		must(r.add("two"))
		r.use()
		must(0, r.store.write(t.Context(), func(w *writing) error {
			return w.put(t.Context(), rolesStoragePrefix+"two", &role{ClientID: other.ClientID, Disabled: true})
		}))
		r.heard(someClient, 2)
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
	want := must(smooth.settled())
	clients, key := clientsStoragePrefix+"main", keysStoragePrefix+"main"
	if !slices.Equal(puts, []string{clients, key}) {
		t.Fatalf("written in this order: %v", puts)
	}
	if smooth.states() != "retired active" || want.rotation().Of(other).Recorded != 1 {
		t.Errorf("the versions are %s, and of the other client is known %+v", smooth.states(), want.rotation().Of(other))
	}
	for _, test := range []struct {
		failing int
		restart bool
	}{
		{1, false}, // the process must not end there: what was heard is in memory
		{2, false}, {2, true},
	} {
		r := prepared()
		var puts []string
		r.storage.onEach(order(&puts, test.failing))
		if _, err := r.settled(); !errors.Is(err, errInjected) {
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
		got, err := r.settled()
		if err != nil {
			t.Errorf("put %d failed, restart %v: %v", test.failing, test.restart, err)
			continue
		}
		for what, s := range map[string]*keySnapshot{"returned": got, "read again": r.read()} {
			if !slices.Equal(s.records(), want.records()) || !s.clients.SameBut(want.clients) {
				t.Errorf("put %d failed, restart %v: %s is %+v with %+v", test.failing, test.restart, what, s.records(), s.clients)
			}
		}
	}
}

// TestKeyringStepsOfAnOperator write the key and nothing else, whatever state its clients are in: an emergency depends on
// nothing but the key.
func TestKeyringStepsOfAnOperator(t *testing.T) {
	for name, spoil := range map[string]func(*ring){
		"as it should be": func(*ring) {},
		"unreadable": func(r *ring) {
			must(0, r.storage.inner.Put(t.Context(), &logical.StorageEntry{Key: clientsStoragePrefix + "main", Value: []byte("{")}))
		},
		"of a newer version": func(r *ring) {
			must(0, r.storage.inner.Put(t.Context(), &logical.StorageEntry{Key: clientsStoragePrefix + "main", Value: []byte(`{"schema_version":3}`)}))
		},
		"out of reach": func(r *ring) {
			r.storage.onEach(func(_, key string) error {
				if strings.HasPrefix(key, clientsStoragePrefix) {
					return errInjected
				}
				return nil
			})
		},
	} {
		for _, step := range []struct {
			event  rotation.Event
			states string
		}{
			{rotation.Force{}, "retired active"}, {rotation.Abandon{}, "active retired"}, {rotation.Abandon{Force: true}, "active destroyed"},
			{rotation.Compromise{Version: 1}, "destroyed active"}, {rotation.Compromise{Version: 2}, "active destroyed"},
		} {
			r := newRing(t)
			must(r.add("one"))
			must(r.add("two"))
			r.restart()
			spoil(r)
			if _, err := r.apply(t.Context(), "main", step.event); err != nil {
				t.Errorf("%s, %T: %v", name, step.event, err)
			}
			r.storage.onEach(nil)
			if r.states() != step.states {
				t.Errorf("%s, %T: the versions are %s", name, step.event, r.states())
			}
		}
	}
}

// TestKeyringSettlesNothingUnstored: when what is known of the clients can't be stored, nothing is promoted or destroyed.
func TestKeyringSettlesNothingUnstored(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	must(r.add("two"))
	r.use()
	r.heard(someClient, 2)
	r.storage.onEach(failing("put", clientsStoragePrefix)) // as a storage does whose entries have a limit
	if _, err := r.settled(); !errors.Is(err, errInjected) || r.states() != "active pending" {
		t.Errorf("%v; the versions are %s", err, r.states())
	}
	r.storage.onEach(nil)
	must(r.settled())
	if r.states() != "retired active" {
		t.Errorf("then the versions are %s", r.states())
	}
}

// TestKeyringClientsFitIntoAnEntry of 1 MiB, 5,000 of them, also in the middle of a rotation that Redox rejects.
func TestKeyringClientsFitIntoAnEntry(t *testing.T) {
	r := newRing(t)
	stored := &storedClients{Clients: rotation.Clients{}}
	const answer = "Redox found no public key for this client_id and kid: the client ID is wrong, the kid is not in the API key's JWK set, " +
		"Redox cannot read the JWKS URL, or the change in the dashboard was not saved (HTTP 401, invalid_request)"
	for n := range 5000 {
		at := r.clock.wall().Add(time.Duration(n*7919%100000) * time.Second)
		stored.Clients[rotation.Client{ClientID: fmt.Sprintf("%08x-0000-4000-8000-%012x", n*7919, n), TokenURL: someClient.TokenURL}.Digest()] = rotation.Record{
			Verdicts: []rotation.Verdict{{Version: 1, Taken: true, Time: at}, {Version: 2, Time: at.Add(time.Hour)}},
			Probe: rotation.Probe{Version: 2, Outcome: rotation.Rejected, Count: n % 50, FirstTime: at.Add(time.Minute), LastTime: at.Add(time.Hour),
				NextTime: at.Add(2 * time.Hour), Answer: answer},
		}
	}
	must(0, r.store.write(t.Context(), func(w *writing) error { return w.put(t.Context(), clientsStoragePrefix+"main", stored) }))
	if size := r.storage.size(clientsStoragePrefix + "main"); size > 1<<20 {
		t.Errorf("5,000 clients take %d bytes", size)
	} else {
		t.Logf("5,000 clients take %d bytes", size)
	}
	must(r.add("one"))
	if known := r.read().clients; len(known) != 5000 {
		t.Errorf("%d clients are read", len(known))
	}
}

// TestKeyringObservations count at once, survive a write that fails, and are stored by the next.
func TestKeyringObservations(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	must(r.add("two"))
	r.use()
	r.news()
	r.observeMint(r.read().signingKey, someClient, heardOf{1: {taken: true, at: r.clock.now()}})
	if news := r.news(); len(news) != 1 || !news[0].observed || news[0].key != "main" {
		t.Errorf("told %+v", news)
	}
	if s := r.read(); !r.proves(1) || len(s.stored.Clients) > 0 || !s.hasNews() {
		t.Errorf("heard is %v, stored %v", s.clients, s.stored)
	}
	// While the write fails a mint hears more. That is newer.
	r.storage.onEach(func(operation, _ string) error {
		if operation != "put" {
			return nil
		}
		r.clock.advance(time.Second)
		r.heard(someClient, 2, 1)
		return errInjected
	})
	if _, err := r.settled(); !errors.Is(err, errInjected) {
		t.Errorf("a failed write: %v", err)
	}
	r.storage.onEach(nil)
	if r.proves(1) || !r.proves(2) {
		t.Errorf("after a failed write %v is known", r.known())
	}
	must(r.settled())
	if s := r.read(); s.hasNews() || len(s.stored.Clients) != 1 || r.states() != "retired active" {
		t.Errorf("stored is %v, the versions are %s", s.stored, r.states())
	}
	r.restart()
	if r.proves(1) || !r.proves(2) {
		t.Errorf("after a restart %v is known", r.known())
	}
	// That the same is taken again is no news and worth no write.
	written := len(r.storage.written())
	r.clock.advance(30 * time.Minute)
	r.heard(someClient, 2)
	must(r.settled())
	if r.heard(someClient, 2) || len(r.storage.written()) != written {
		t.Error("the time of a proof is written")
	}
}

// TestKeyringLateNews never undo newer ones, whatever the wall clock says, and never are those of a later key.
func TestKeyringLateNews(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	must(r.add("two"))
	early := r.clock.now()
	r.clock.advance(time.Minute)
	r.heard(someClient, 2, 1)
	r.clock.setWall(r.clock.wall().Add(-time.Hour))
	r.observe(r.read().signingKey, someClient, heardOf{1: {taken: true, at: early}, 2: {at: early}})
	if r.proves(1) || !r.proves(2) {
		t.Errorf("a late proof counts, or what was told apart by it: %v", r.known())
	}
	r.observe(r.read().signingKey, someClient, heardOf{2: {taken: true, at: early}, 1: {at: early}})
	if !r.proves(2) || !r.known().Rejects(1) {
		t.Errorf("an early proof of the same has changed something: %v", r.known())
	}
	// It was rejected together with all others: it stays proven, and is to be asked again.
	r.clock.advance(time.Minute)
	r.observe(r.read().signingKey, someClient, heardOf{1: {at: r.clock.now()}, 2: {at: r.clock.now()}}.doubted())
	if at, proven := r.known().Proven(2); !proven || !at.IsZero() {
		t.Errorf("proven %v at %s", proven, at)
	}

	before := r.read().signingKey
	must(r.delete(t.Context(), "main", func(*writing, *signingKey) error { return nil }))
	late := func() { r.observe(before, someClient, heardOf{1: {taken: true, at: r.clock.now()}}) }
	late()
	r.clock.advance(time.Second)
	must(r.add("three"))
	if r.proves(1) {
		t.Error("what was heard of a deleted key is known of the next")
	}
	r.heard(someClient, 1)
	late()
	if !r.proves(1) {
		t.Error("what was heard late of a deleted key drops what is known of the next")
	}
}

// TestKeyringOnANodeThatMayNotWrite keeps nothing: what counts is what the node that may has stored.
func TestKeyringOnANodeThatMayNotWrite(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	r.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
	r.news()
	r.observeMint(r.read().signingKey, someClient, heardOf{1: {taken: true, at: r.clock.now()}})
	if r.proves(1) || len(r.news()) > 0 {
		t.Errorf("it knows %v", r.known())
	}
	r.system.ReplicationStateVal = consts.ReplicationUnknown
	r.heard(someClient, 1)
	r.store.changed(clientsStoragePrefix + "main")
	r.invalidateClients("main") // another node has written: it knows better
	if r.proves(1) {
		t.Errorf("after another node's write it knows %v", r.known())
	}
}

// TestKeyringMemoryIsBounded by the clients that are configured and the versions that are held.
func TestKeyringMemoryIsBounded(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	must(r.add("two"))
	r.use()
	r.heard(rotation.Client{ClientID: "gone"}, 1)
	r.heard(someClient, 1, 2)
	must(r.apply(t.Context(), "main", rotation.Abandon{Force: true}))
	must(r.settled())
	kept := r.observed.byKey["main"].clients
	if len(kept) != 1 || len(kept[someClient]) != 1 {
		t.Errorf("kept is %v", kept)
	}
}

// TestKeyringImportsAgain: what is retired becomes pending again, what was destroyed is a new version of which nothing is known.
func TestKeyringImportsAgain(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	v := must(newKeyVersion(must(privatekey.Generate(privatekey.ES384, 0)), "brought", true, r.clock.wall()))
	again := func() error {
		_, err := r.edit(t.Context(), "main", func(*writing, *signingKey) (*edit, error) { return &edit{version: v, cause: "test"}, nil })
		return err
	}
	refused := func(part string) {
		t.Helper()
		if err := again(); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v", err)
		}
	}
	must(0, again())
	refused("is this key pair, and is pending")
	r.heard(someClient, 2)
	must(r.apply(t.Context(), "main", rotation.Abandon{}))
	must(0, again())
	if r.states() != "active pending" || !r.proves(2) {
		t.Errorf("the versions are %s, and known is %v", r.states(), r.known())
	}
	must(r.apply(t.Context(), "main", rotation.Abandon{Force: true}))
	must(0, again())
	if r.states() != "active destroyed pending" || r.proves(3) {
		t.Errorf("the versions are %s, and known is %v", r.states(), r.known())
	}
	must(r.apply(t.Context(), "main", rotation.Compromise{Version: 3}))
	refused("was marked compromised")
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
	snapshot(3, "at first") // the key, its clients, and their former form
	snapshot(1, "after that")
	must(r.set(func(*signingKey) {}))
	snapshot(1, "after an edit of the key")
	r.use()
	r.heard(someClient, 1)
	must(r.settled())
	snapshot(1, "after the clients were written here")

	r.store.changed(clientsStoragePrefix + "main")
	r.invalidateClients("main")
	snapshot(2, "after another node has written the clients")
	snapshot(1, "after that")

	must(r.add("two"))
	r.heard(someClient, 1, 2)
	r.storage.onEach(failing("put", clientsStoragePrefix))
	if _, err := r.settled(); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	r.storage.onEach(nil)
	snapshot(2, "after a failed put")

	r.store.changed(clientsStoragePrefix + "main")
	r.invalidateClients("main")
	r.storage.onEach(func(operation, key string) error {
		if operation == "get" && key == clientsStoragePrefix+"main" {
			r.store.changed(key) // another node writes them while they are read
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
	r.use()
	r.heard(someClient, 2)
	must(r.settled())
	r.clock.advance(time.Hour)
	r.heard(someClient, 1, 2)
	must(r.settled())
	text := func(s *keySnapshot) string { return string(must(json.Marshal([]any{s.signingKey, s.clients}))) }
	want := text(r.read())
	if len(r.known().Verdicts) != 2 {
		t.Fatalf("known is %+v", r.read().clients)
	}
	for name, get := range map[string]func() *keySnapshot{
		"snapshot": r.read,
		"existing": func() *keySnapshot { return must(r.existing(t.Context(), "name", "main")) },
		"settle":   func() *keySnapshot { return must(r.settled()) },
		"edit":     func() *keySnapshot { return must(r.set(func(*signingKey) {})) },
	} {
		s := get()
		if text(s) != want {
			t.Errorf("%s returns another key: %+v with %+v", name, s.records(), s.clients)
		}
		s.RetireGrace = time.Second
		s.Versions[0].State, s.Versions[0].PublicKey[0] = rotation.Destroyed, 'x'
		if after := r.read(); text(after) != want {
			t.Fatalf("what %s returned was changed, and so was the next snapshot: %+v with %+v", name, after.records(), after.clients)
		}
	}
}

func TestKeyringDeletes(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	r.use()
	r.heard(someClient, 1)
	must(r.settled())
	r.heard(rotation.Client{ClientID: "client-2"}, 1) // not stored when the key goes
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
	if !deleted || err != nil || !slices.Equal(deletes, []string{formerClientsPrefix + "main", clientsStoragePrefix + "main", keysStoragePrefix + "main"}) {
		t.Errorf("deleted %v, %v: %v", deleted, err, deletes)
	}
	if news := r.news(); len(news) != 1 || !news[0].endTokens || news[0].key != "main" {
		t.Errorf("told %+v", news)
	}
	must(r.add("one"))
	if known := r.read().clients; len(known) != 0 {
		t.Errorf("a new key of that name knows %v", known)
	}
}

// TestKeyringDeletesHalfWay: whichever deletion fails, the key is there until the last, and can be deleted again.
func TestKeyringDeletesHalfWay(t *testing.T) {
	for _, prefix := range []string{clientsStoragePrefix, keysStoragePrefix} {
		r := newRing(t)
		must(r.add("one"))
		r.heard(someClient, 1)
		r.use()
		must(r.settled())
		must(0, r.storage.inner.Delete(t.Context(), configStorageKey))
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
	r.heard(someClient, 1)
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
	r.store.changed(keysStoragePrefix + "a")
	r.invalidateKeys()
	if r.readsOf(func() { held() }) == 0 {
		t.Error("another node has changed a key, and the JWKS comes from memory")
	}
}

// TestKeyringAndUnusableEntries: a key's entry stays as it is, and so do the clients that a newer version of the plugin has
// stored. Clients that are unreadable are learned anew.
func TestKeyringAndUnusableEntries(t *testing.T) {
	for _, entry := range []string{`{"schema_version":3}`, "{"} {
		for _, key := range []string{keysStoragePrefix + "main", clientsStoragePrefix + "main"} {
			r := newRing(t)
			must(r.add("one"))
			must(r.add("two"))
			r.use()
			r.heard(someClient, 2)
			k := r.read().signingKey
			r.restart()
			must(0, r.storage.inner.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(entry)}))
			r.observe(k, someClient, heardOf{2: {taken: true, at: r.clock.now()}})
			_, err := r.settled()
			if key == clientsStoragePrefix+"main" && entry == "{" {
				if err != nil || r.states() != "retired active" || !r.proves(2) {
					t.Errorf("unreadable clients: %v, the versions are %s, known is %v", err, r.states(), r.known())
				}
				continue
			}
			if unusable := asUnusable(err); unusable == nil || unusable.key != key {
				t.Errorf("%s is %s, and the key was settled: %v", key, entry, err)
			}
			if _, err := r.putRegistrations(t.Context(), "main", nil); err == nil {
				t.Errorf("%s is %s, and the registrations were stored", key, entry)
			}
			if _, err := r.add("three"); err == nil {
				t.Errorf("%s is %s, and a version was added", key, entry)
			}
			if got := r.storage.snapshot()[key]; got != entry {
				t.Errorf("%s was %s and is %s", key, entry, got)
			}
		}
	}
}
