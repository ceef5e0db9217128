// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/sandbox"
)

// mill is a minter with a keyring of its own and a local Redox, without a mount. The configuration names key "main", whose
// version 1 the local Redox knows.
type mill struct {
	*ring
	minter *minter
	system *logical.StaticSystemView
	redox  *sandbox.Server
}

func newMill(t *testing.T) *mill {
	m := &mill{ring: newRing(t), system: logical.TestSystemView()}
	m.redox = must(sandbox.Start(sandbox.Options{Now: m.clock.wall}))
	t.Cleanup(func() { must(0, m.redox.Close()) })
	m.minter = newMinter(m.store, m.keyring, &node{m.system}, newTelemetry(hclog.NewNullLogger(), nil), m.clock.now)
	t.Cleanup(m.minter.close)
	must(m.add("one"))
	m.know("one")
	c := defaultConfig()
	c.ClientID, c.Key, c.BaseURL = "client-1", "main", m.redox.URL
	m.put(configStorageKey, c)
	return m
}

// know makes the local Redox know the versions with these kids, and no others.
func (m *mill) know(kids ...string) {
	var jwks []string
	k := m.read()
	for i := range k.Versions {
		for _, kid := range kids {
			if k.Versions[i].KID == kid {
				jwks = append(jwks, must(k.jwk(&k.Versions[i])).Compact())
			}
		}
	}
	set := json.RawMessage(`{"keys":[` + strings.Join(jwks, ",") + `]}`)
	m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-1", Name: "client-1", JWKSet: set})
}

func (m *mill) put(key string, value storable) {
	m.t.Helper()
	must(0, m.store.write(m.t.Context(), func(w *writing) error { return w.put(m.t.Context(), key, value) }))
}

func TestMinterResolves(t *testing.T) {
	m := newMill(t)
	m.put(rolesStoragePrefix+"team", &role{ClientID: "team", Scope: "a"})
	m.put(rolesStoragePrefix+"stopped", &role{Disabled: true})
	m.put(rolesStoragePrefix+"lost", &role{Key: "none"})
	for name, problem := range map[string]string{
		"none": `there is no role named "none"`, "stopped": `role "stopped" is disabled`, "lost": `the signing key "none" does not exist`,
	} {
		if _, err := m.minter.resolve(t.Context(), name); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("role %s: %v", name, err)
		}
	}
	c := must(m.minter.resolve(t.Context(), "team"))
	if c.ClientID != "team" || c.Scope != "a" || c.Key != "main" || c.BaseURL != m.redox.URL || c.next(nil).KID != "one" {
		t.Errorf("the role over the configuration is %+v", c.roleConfig)
	}
}

func TestMinterSignsWithoutTheServer(t *testing.T) {
	m := newMill(t)
	if s := must(m.minter.sign(t.Context(), "")); s.kid != "one" || strings.Count(s.assertion, ".") != 2 {
		t.Errorf("signed with %s", s.kid)
	}
	if n := m.redox.Counters().Token.Requests; n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestMinterGoesThroughTheVersions: the JWK was replaced at the server. The argument stays as it was, what was found is
// returned and observed, and nothing is written.
func TestMinterGoesThroughTheVersions(t *testing.T) {
	m := newMill(t)
	must(m.add("two"))
	m.know("two")
	written := len(m.storage.written())
	c := must(m.minter.resolve(t.Context(), ""))
	before := *c
	result := must(m.minter.exchange(t.Context(), c))
	if result.kid != "two" || !strings.Contains(result.warning, "version 2 with kid two signed") {
		t.Errorf("kid %s signed; the warning is %q", result.kid, result.warning)
	}
	if c.key != before.key || c.generation != before.generation || c.next(nil).KID != "one" {
		t.Error("the exchange has changed what it was given")
	}
	if needs := m.read().rotation().Needs(2); len(needs) != 1 || needs[0].ClientID != "client-1" {
		t.Errorf("version 2 was accepted from %v", needs)
	}
	if n := len(m.storage.written()); n != written {
		t.Errorf("%d entries were written", n-written)
	}
	m.know()
	if _, err := m.minter.exchange(t.Context(), c); err == nil || !strings.Contains(err.Error(), "Public key not found") {
		t.Errorf("when no version is known: %v", err)
	}
}

// TestMinterOnAStandby: a lease can't be registered there, so nothing is sent, and Vault asks the active node.
func TestMinterOnAStandby(t *testing.T) {
	m := newMill(t)
	m.put(rolesStoragePrefix+"leased", &role{Leased: true})
	m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
	if _, err := m.minter.tokens.Get(t.Context(), "leased"); !errors.Is(err, logical.ErrReadOnly) {
		t.Errorf("a leased token: %v", err)
	}
	if n := m.redox.Counters().Token.Requests; n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	if served := must(m.minter.tokens.Get(t.Context(), "")); served.Value.kid != "one" {
		t.Errorf("kid %s signed", served.Value.kid)
	}
	if order := m.read().rotation().Order(rotation.Client{}); len(order) != 1 {
		t.Errorf("the order is %v", order)
	}
}
