// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/sandbox"
)

// Which writes end the living token of a role that inherits all, and of one that has settings of its own: a "config" that
// it inherits from and a "role" of its own, in turn. Every field is here.
var (
	tokensOfConfig = map[string]struct {
		value any
		ends  bool
	}{
		"client_id": {"client-3", true}, "key": {"other", true}, "scope": {"fhir:staging", true},
		"base_url": {"http://127.0.0.1:1", true}, "token_url": {"http://127.0.0.1:1/token", true},
		"audience": {"https://audience.example", true}, "jku": {"https://jku.example/jwks", true},
		"platform_url": {"https://platform.example", false}, "ca_pem": {nil, false}, // its value is made in the test
		"assertion_ttl": {60, false}, "clock_skew": {20, false}, "request_timeout": {5, false}, "max_retries": {1, false},
		"min_ttl": {20, false}, "request_limit": {4000, false}, "max_concurrent_requests": {10, false},
	}
	tokensOfRole = map[string]struct {
		value any
		ends  bool
	}{
		"client_id": {"client-3", true}, "key": {"other", true}, "scope": {"fhir:staging", true},
		"jku": {"https://jku.example/jwks", true}, "disabled": {true, true},
		"min_ttl": {20, false}, "leased": {true, false},
	}
	tokensOfKey = map[string]any{ // which end none
		"deletion_allowed": true, "registration": "jwks_url", "platform_role": "other", "public_jwks_url": "https://jwks.example/jwks/main",
		"rotation_period": 86400, "rotation_schedule": "0 3 * * 0", "rotation_window": 7200, "retire_grace": 7200,
	}
)

// TestKeptTokens: while Redox is down, a living token survives each write that leaves what it was made from, on the node that
// writes and on one that is told what was written; any other write ends it at once, on both.
func TestKeptTokens(t *testing.T) {
	type change struct {
		name string
		do   func(*mount)
		ends []string // roles whose tokens end
	}
	write := func(path string, data map[string]any, ends ...string) change {
		return change{path + " " + strings.Join(slices.Sorted(maps.Keys(data)), " "), func(m *mount) { m.write(path, data) }, ends}
	}
	changes := []change{
		write("roles/new", nil),
		write("roles/own", nil),
		write("keys/new", map[string]any{"algorithm": algorithmES384}),
		write("keys/main/rotate", nil),
		write("keys/main/import", map[string]any{"private_key": pkcs8Text(outsideEC()), "kid": "imported"}),
		{"keys/main/activate", func(m *mount) {
			m.write("keys/main/rotate", nil)
			m.write("keys/main/activate", map[string]any{"force": true})
		}, nil},
		write("keys/main/retire", map[string]any{"version": 1, "destroy_now": true}, ""),
		{"roles/own deleted", func(m *mount) { m.remove("roles/own") }, []string{"own"}},
		{"roles/own deleted and made again", func(m *mount) {
			m.remove("roles/own")
			m.write("roles/own", map[string]any{"client_id": "client-2", "key": "own"})
		}, nil},
		{"keys/own deleted and made again", func(m *mount) {
			m.write("roles/own", map[string]any{"key": "main"})
			m.write("keys/own", map[string]any{"deletion_allowed": true})
			m.remove("keys/own")
			m.clock.advance(time.Second)
			m.write("keys/own", map[string]any{"algorithm": algorithmES384})
			m.write("roles/own", map[string]any{"key": "own"})
		}, []string{"own"}},
		{"config deleted", func(m *mount) {
			must(0, m.store.write(t.Context(), func(w *writing) error { return w.delete(t.Context(), configStorageKey) }))
			m.backend.invalidate(t.Context(), configStorageKey)
		}, []string{"", "own"}},
	}
	for _, r := range configRows {
		field, found := tokensOfConfig[r.name]
		if !found {
			t.Fatalf("config's %s is not tried", r.name)
		}
		if r.name == "ca_pem" {
			field.value = newCertificatePEM(t)
		}
		var ends []string
		if field.ends {
			ends = []string{""}
			if !slices.Contains([]string{"client_id", "key"}, r.name) { // role own has these itself
				ends = append(ends, "own")
			}
		}
		changes = append(changes, write("config", map[string]any{r.name: field.value}, ends...))
	}
	for _, r := range roleRows {
		field, found := tokensOfRole[r.name]
		if !found {
			t.Fatalf("a role's %s is not tried", r.name)
		}
		var ends []string
		if field.ends {
			ends = []string{"own"}
		}
		changes = append(changes, write("roles/own", map[string]any{r.name: field.value}, ends...))
	}
	for _, r := range keyRows {
		value, found := tokensOfKey[r.name]
		if !found {
			t.Fatalf("a key's %s is not tried", r.name)
		}
		data := map[string]any{r.name: value}
		switch r.name {
		case "registration":
		case "platform_role":
			data["registration"] = "platform"
		case "public_jwks_url":
			data["registration"] = "jwks_url"
		case "rotation_window":
			data["rotation_schedule"] = "0 3 * * 0"
		}
		changes = append(changes, write("keys/main", data))
	}
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			m := newReadyMount(t)
			m.write("config", map[string]any{"max_retries": 0})
			m.write("keys/own", map[string]any{"algorithm": algorithmES384})
			m.write("keys/other", map[string]any{"algorithm": algorithmES384})
			m.register("client-2", "own")
			m.write("roles/own", map[string]any{"client_id": "client-2", "key": "own"})
			m.write("roles/other", map[string]any{"client_id": "client-2", "key": "other"})
			second := m.secondNode()
			nodes := map[string]func(string) (*logical.Response, error){
				"that writes": func(path string) (*logical.Response, error) { return m.request(logical.ReadOperation, path, nil) },
				"that is told": func(path string) (*logical.Response, error) {
					return second.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: path, Storage: m.storage, MountPoint: "redox/"})
				},
			}
			before := map[string]string{}
			for node, read := range nodes {
				for _, role := range []string{"", "own"} {
					response, err := read(strings.TrimSuffix("token/"+role, "/"))
					if err != nil || response.IsError() {
						t.Fatal(err, response)
					}
					before[node+role], _ = response.Data["access_token"].(string)
				}
			}
			m.redox.SetFaults(sandbox.Faults{Status: 503})
			var written []string
			m.storage.onEach(func(operation, key string) error {
				if operation == "put" || operation == "delete" {
					written = append(written, key)
				}
				return nil
			})
			c.do(m)
			m.storage.onEach(nil)
			for _, key := range written { // as Vault tells other nodes
				second.InvalidateKey(t.Context(), key)
			}
			for node, read := range nodes {
				for _, role := range []string{"", "own"} {
					for range 2 {
						response, err := read(strings.TrimSuffix("token/"+role, "/"))
						ended := err != nil || response.IsError()
						if ended != slices.Contains(c.ends, role) || !ended && response.Data["access_token"] != before[node+role] {
							t.Errorf("on the node %s, role %q has %v, %v", node, role, response, err)
						}
					}
				}
			}
		})
	}
}

// secondNode makes another backend on the storage of a mount.
func (m *mount) secondNode() *backend {
	m.t.Helper()
	b, err := newBackend(context.Background(), &logical.BackendConfig{System: m.system, StorageView: m.storage}, newTestSigner(), m.clock.now)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		b.clean(context.Background())
		b.minter.tokens.Wait()
	})
	return b
}

// TestConfirmedTokens: what a role says of its tokens is so at once, also for a token that lives on.
func TestConfirmedTokens(t *testing.T) {
	m := newReadyMount(t)
	first := m.read("token")
	m.write("config", map[string]any{"min_ttl": 60})
	if second := m.read("token"); second["access_token"] != first["access_token"] || second["ttl"] != int64(240) || second["rotation_period"] != int64(240) {
		t.Errorf("with another min_ttl it is %v", second)
	}
	m.wantTokenRequests(1)
	// A compromised version ends the tokens of the key, also those that another version has signed for.
	m.write("keys/main/rotate", nil)
	if _, err := m.keys.apply(t.Context(), "main", rotation.Compromise{Version: 1}); err != nil {
		t.Fatal(err)
	}
	m.redox.SetFaults(sandbox.Faults{Status: 503})
	if status, _ := m.failed(logical.ReadOperation, "token", nil); status != 502 {
		t.Errorf("a token of a compromised key: HTTP %d", status)
	}
}
