// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// jwks reads a published JWK Set as anybody can, and checks what Vault needs to send it out raw.
func (m *mount) jwks(path string) jose.JSONWebKeySet {
	m.t.Helper()
	data := m.read(path)
	if data[logical.HTTPContentType] != "application/json" || data[logical.HTTPStatusCode] != http.StatusOK ||
		data[logical.HTTPCacheControlHeader] != "public, max-age=60" {
		m.t.Errorf("%s is not sent as a JWK Set: %v", path, data)
	}
	body, _ := data[logical.HTTPRawBody].([]byte)
	var raw struct {
		Keys []map[string]any `json:"keys"`
	}
	var set jose.JSONWebKeySet
	if err := errors.Join(json.Unmarshal(body, &raw), json.Unmarshal(body, &set)); err != nil {
		m.t.Fatalf("%s: %v in %s", path, err, body)
	}
	if raw.Keys == nil {
		m.t.Errorf("%s has no array of keys (RFC 7517 section 5.1): %s", path, body)
	}
	for _, key := range raw.Keys {
		names := strings.Join(slices.Sorted(maps.Keys(key)), " ")
		if names != "alg e kid kty n use" && names != "alg crv kid kty use x y" {
			m.t.Errorf("%s shows the members %s", path, names)
		}
	}
	return set
}

// kids gives the kids of a published JWK Set, sorted.
func (m *mount) kids(path string) []string {
	m.t.Helper()
	var kids []string
	for _, key := range m.jwks(path).Keys {
		kids = append(kids, key.KeyID)
	}
	slices.Sort(kids)
	return kids
}

func (m *mount) wantKids(path string, want ...string) {
	m.t.Helper()
	if kids := m.kids(path); !slices.Equal(kids, want) {
		m.t.Errorf("%s shows the kids %v, want %v", path, kids, want)
	}
}

func (m *mount) createEC(name string) {
	m.t.Helper()
	m.write("keys/"+name, fields{"algorithm": "ES384", "kid": "kid-" + name, "deletion_allowed": true})
}

func TestJWKSFollowsTheKeys(t *testing.T) {
	m := newMount(t)
	m.wantKids("jwks")
	m.createEC("a")
	m.wantKids("jwks", "kid-a")
	m.write("keys/b", fields{"rsa_bits": 2048, "kid": "kid-b"})
	m.wantKids("jwks", "kid-a", "kid-b")
	m.write("keys/c/import", fields{"private_key": pkcs8Text(outsideEC()), "kid": "kid-c"})
	m.wantKids("jwks", "kid-a", "kid-b", "kid-c")
	m.wantKids("jwks/a", "kid-a")
	m.wantKids("jwks/b", "kid-b")
	for _, key := range m.jwks("jwks").Keys {
		if !key.Valid() || !key.IsPublic() || key.Use != "sig" || !slices.Contains(algorithms, key.Algorithm) {
			t.Errorf("the key %s is not fit for verifying: %+v", key.KeyID, key)
		}
	}

	m.remove("keys/a")
	m.wantKids("jwks", "kid-b", "kid-c")
	if data := m.read("jwks/a"); data != nil {
		t.Errorf("a deleted key is published: %v", data)
	}
	if data := m.read("jwks/never-there"); data != nil {
		t.Errorf("an unknown key is published: %v", data)
	}
	m.restart()
	m.wantKids("jwks", "kid-b", "kid-c")
}

// Pending and retired versions are in the set, a destroyed one is not: its private half is gone.
func TestJWKSHoldsWhatRedoxMayMeet(t *testing.T) {
	m := newMount(t)
	m.createEC("a")
	k, err := newStore(m.storage.inner).key(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for i, state := range []rotation.State{rotation.Pending, rotation.Retired, rotation.Destroyed} {
		version := k.Versions[0]
		version.Number, version.State, version.KID = i+2, state, "kid-"+string(state)
		k.Versions = append(k.Versions, version)
	}
	m.plant("keys/a", string(must(json.Marshal(k))))
	m.restart()
	m.wantKids("jwks", "kid-a", "kid-pending", "kid-retired")
	m.wantKids("jwks/a", "kid-a", "kid-pending", "kid-retired")
}

// Anybody may ask for the set, as often as they like: it comes from memory, and asking changes nothing.
func TestJWKSIsServedFromMemory(t *testing.T) {
	m := newMount(t)
	m.createEC("a")
	before, written := m.storage.snapshot(), len(m.storage.written())
	m.wantKids("jwks", "kid-a")
	reads := m.storage.readCount()
	for range 3 {
		m.wantKids("jwks", "kid-a")
		m.wantKids("jwks/a", "kid-a")
		m.read("jwks/unknown")
	}
	if again := m.storage.readCount(); again != reads {
		t.Errorf("%d storage reads for what was in memory", again-reads)
	}
	if !maps.Equal(before, m.storage.snapshot()) || len(m.storage.written()) != written {
		t.Error("reading the JWKS wrote to storage")
	}
}

func TestJWKSSurvivesOneUnusableKey(t *testing.T) {
	for name, entry := range map[string]string{
		"not JSON":          "{",
		"of a newer plugin": `{"schema_version": 99}`,
		"no public key":     `{"schema_version": 1, "versions": [{"version": 1, "state": "active", "kid": "bad", "public_key": "AA=="}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.createEC("a")
			m.plant("keys/bad", entry)
			m.restart()
			m.wantKids("jwks", "kid-a")
			m.wantKids("jwks/a", "kid-a")
			if status, err := m.failed(logical.ReadOperation, "jwks/bad", nil); status != http.StatusInternalServerError ||
				!strings.Contains(err.Error(), `the stored entry "keys/bad"`) {
				t.Errorf("the unusable key's own JWKS answers %d, %v", status, err)
			}
			if log := m.log.String(); !strings.Contains(log, "[ERROR]") || !strings.Contains(log, `keys/bad`) {
				t.Errorf("the log does not name the unusable key: %s", log)
			}
		})
	}
}

// A storage that fails must not look like a mount without keys, nor be remembered.
func TestJWKSWithFailingStorage(t *testing.T) {
	for _, failing := range []string{"list", "get"} {
		t.Run(failing, func(t *testing.T) {
			m := newMount(t)
			m.createEC("a")
			broken := errors.New("storage is down")
			m.storage.onEach(func(operation, _ string) error {
				if operation == failing {
					return broken
				}
				return nil
			})
			if _, err := m.failed(logical.ReadOperation, "jwks", nil); err != broken {
				t.Errorf("storage's error became %v", err)
			}
			m.storage.onEach(nil)
			m.wantKids("jwks", "kid-a")
		})
	}
}

// during runs change once, in the middle of the next storage operation of this kind on this key.
func (m *mount) during(operation, key string, change func()) {
	m.storage.onEach(func(o, k string) error {
		if o == operation && k == key {
			m.storage.onEach(nil)
			change()
		}
		return nil
	})
}

// What changes while the set is being read from storage is in the next answer.
func TestJWKSKeepsNothingThatChangedMeanwhile(t *testing.T) {
	tests := map[string]struct {
		change func(*mount)
		want   []string
	}{
		"created": {func(m *mount) { m.createEC("c") }, []string{"kid-a", "kid-b", "kid-c"}},
		"deleted": {func(m *mount) { m.remove("keys/a") }, []string{"kid-b"}},
		"by another node": {func(m *mount) {
			m.plant("keys/c", strings.ReplaceAll(m.storage.snapshot()["keys/a"], "kid-a", "kid-c"))
			m.InvalidateKey(context.Background(), "keys/c")
		}, []string{"kid-a", "kid-b", "kid-c"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.createEC("a")
			m.createEC("b")
			m.during("get", "keys/b", func() { test.change(m) }) // after "a" was read
			m.wantKids("jwks", "kid-a", "kid-b")
			m.wantKids("jwks", test.want...)
		})
	}
}

// A key that is gone when its turn comes is an unknown key, not one without public keys.
func TestJWKSOfAKeyDeletedWhileItIsRead(t *testing.T) {
	m := newMount(t)
	m.createEC("a")
	m.createEC("b")
	m.during("get", "keys/b", func() { m.remove("keys/b") })
	if data := m.read("jwks/b"); data != nil {
		t.Errorf("the deleted key is answered: %s", data[logical.HTTPRawBody])
	}
	m.wantKids("jwks", "kid-a")
}

// A crowd that nobody knows reads every key from storage once, not once each; and one that gives up does not spoil it
// for the others.
func TestJWKSIsLoadedOnceForACrowd(t *testing.T) {
	m := newMount(t)
	m.createEC("a")
	m.restart()
	const crowd = 50
	reading, proceed := make(chan struct{}, crowd+1), make(chan struct{})
	m.storage.onEach(func(operation, key string) error {
		if operation == "list" {
			reading <- struct{}{}
			<-proceed
		}
		return nil
	})
	defer m.storage.onEach(nil)
	ask := func(ctx context.Context) error {
		response, err := m.requestContext(ctx, logical.ReadOperation, "jwks", nil)
		if err == nil && response.IsError() {
			err = response.Error()
		}
		return err
	}
	impatient, cancel := context.WithCancel(context.Background())
	gaveUp := make(chan error, 1)
	go func() { gaveUp <- ask(impatient) }()
	<-reading
	errs := make(chan error, crowd)
	for range crowd {
		go func() { errs <- ask(context.Background()) }()
	}
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	close(proceed)
	for range crowd {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if len(reading) > 0 {
		t.Errorf("the keys were read %d times more", len(reading))
	}
}
