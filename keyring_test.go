// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

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
	r.keyring = newKeyring(newStore(r.storage), r.clock.now, hclog.NewNullLogger(), func(c keyChange) { r.told = append(r.told, c) })
	return r
}

// add adds a version with a kid to key "main".
func (r *ring) add(kid string) (*keySnapshot, error) {
	key := must(privatekey.Generate(privatekey.ES384, 0))
	v := must(newKeyVersion(key, kid, false, r.clock.wall()))
	return r.edit(r.t.Context(), "main", func(*writing, *signingKey) (*edit, error) { return &edit{version: v, cause: "test"}, nil })
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

func (r *ring) accepted(version int) outcome {
	return outcome{accepted: version, acceptedTime: r.clock.wall()}
}

func TestKeyringAddsVersions(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	if len(r.told) != 1 || !r.told[0].created || len(r.told[0].transitions) != 1 || r.told[0].endTokens {
		t.Errorf("of a new key is told %+v", r.told)
	}
	for kid, problem := range map[string]string{"one": "has this kid", "two": ""} {
		if _, err := r.add(kid); (err != nil) != (problem != "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("kid %s: %v", kid, err)
		}
	}
	if _, err := r.add("three"); err == nil || !strings.Contains(err.Error(), "pending version already") {
		t.Errorf("a second pending version: %v", err)
	}
	if r.states() != "active pending" || len(r.told) != 2 || r.told[1].created {
		t.Errorf("the versions are %s; told of %+v", r.states(), r.told)
	}
	if unchanged, err := r.edit(t.Context(), "main", func(*writing, *signingKey) (*edit, error) { return nil, nil }); unchanged != nil || err != nil ||
		len(r.told) != 2 {
		t.Errorf("an edit that stores nothing: %v, %v, %+v", unchanged, err, r.told)
	}
}

// TestKeyringAfterAFailedPut: what was derived may be out of date, and nobody is told of what may not have happened.
func TestKeyringAfterAFailedPut(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	before := must(r.jwkSets(t.Context()))
	r.storage.onEach(func(operation, _ string) error {
		if operation == "put" {
			r.storage.carryOut()
			return errInjected
		}
		return nil
	})
	if _, err := r.add("two"); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	r.storage.onEach(nil)
	if last := r.told[len(r.told)-1]; len(last.transitions) > 0 {
		t.Errorf("told of %+v", last)
	}
	if after := must(r.jwkSets(t.Context())); len(after.all) <= len(before.all) {
		t.Error("the JWKS from before is still published, and the put was carried out")
	}
}

// TestKeyringStoresClientsFirst stops between the two writes of a promotion by force, and then goes on.
func TestKeyringStoresClientsFirst(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	r.observeProbe("main", someClient, r.accepted(1))
	must(r.add("two"))
	var puts []string
	r.storage.onEach(func(operation, key string) error {
		if operation != "put" {
			return nil
		}
		puts = append(puts, key)
		if strings.HasPrefix(key, keysStoragePrefix) {
			return errInjected
		}
		return nil
	})
	if _, err := r.apply(t.Context(), "main", rotation.Force{}); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	if !slices.Equal(puts, []string{clientsStoragePrefix + "main", clientsStoragePrefix + "main", keysStoragePrefix + "main"}) {
		t.Errorf("written in this order: %v", puts)
	}
	r.storage.onEach(nil)
	if r.states() != "active pending" {
		t.Errorf("half-way the versions are %s", r.states())
	}
	must(r.apply(t.Context(), "main", rotation.Force{}))
	if r.states() != "retired active" || !slices.Equal(r.read().rotation().Needs(2), []rotation.Client{someClient}) {
		t.Errorf("the versions are %s, and version 2 is needed by %v", r.states(), r.read().rotation().Needs(2))
	}
}

// TestKeyringObservations count at once, survive a write that fails, and are stored by the next.
func TestKeyringObservations(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	r.observeMint("main", someClient, r.accepted(1))
	if last := r.told[len(r.told)-1]; !last.observed || len(r.read().clients.Standings) != 1 || len(r.read().stored.Standings) != 0 {
		t.Errorf("told %+v; observed %v, stored %v", last, r.read().clients, r.read().stored)
	}
	r.storage.onEach(func(operation, _ string) error {
		if operation == "put" {
			return errInjected
		}
		return nil
	})
	if _, err := r.apply(t.Context(), "main", rotation.Settle{}); !errors.Is(err, errInjected) || !r.hasObserved("main") {
		t.Errorf("a failed write: %v, still to be stored: %v", err, r.hasObserved("main"))
	}
	r.storage.onEach(nil)
	must(r.apply(t.Context(), "main", rotation.Settle{}))
	if r.hasObserved("main") || len(r.read().stored.Standings) != 1 {
		t.Errorf("stored is %v", r.read().stored)
	}
	before := r.storage.readCount()
	r.read()
	if reads := r.storage.readCount() - before; reads != 1 {
		t.Errorf("a snapshot takes %d reads, with the clients in memory", reads)
	}
	r.store.invalidated()
	r.invalidateClients("main")
	before = r.storage.readCount()
	r.read()
	if reads := r.storage.readCount() - before; reads != 2 {
		t.Errorf("a snapshot takes %d reads after another node has changed the clients", reads)
	}
}

func TestKeyringDeletesClientsFirst(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	r.observeProbe("main", someClient, r.accepted(1))
	must(r.apply(t.Context(), "main", rotation.Settle{}))
	if deleted, err := r.delete(t.Context(), "main", func(*writing, *signingKey) error { return errInjected }); deleted || err != errInjected {
		t.Errorf("a refused deletion: %v, %v", deleted, err)
	}
	var deletes []string
	r.storage.onEach(func(operation, key string) error {
		if operation == "delete" {
			deletes = append(deletes, key)
		}
		return nil
	})
	deleted, err := r.delete(t.Context(), "main", func(*writing, *signingKey) error { return nil })
	if !deleted || err != nil || !slices.Equal(deletes, []string{clientsStoragePrefix + "main", keysStoragePrefix + "main"}) {
		t.Errorf("deleted %v, %v: %v", deleted, err, deletes)
	}
	if last := r.told[len(r.told)-1]; !last.endTokens {
		t.Errorf("told %+v", last)
	}
	must(r.add("one"))
	if known := r.read().clients.Standings; len(known) != 0 {
		t.Errorf("a new key of that name knows %v", known)
	}
}
