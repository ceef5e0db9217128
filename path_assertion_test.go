// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// postForm posts the form fields of an assertion's answer by hand, as its help says, and gives Redox's answer.
func (m *mount) postForm(assertion map[string]any) (status int, answer map[string]any) {
	m.t.Helper()
	form := url.Values{}
	for _, name := range []string{"grant_type", "client_assertion_type", "client_assertion", "scope"} {
		if value, _ := assertion[name].(string); value != "" {
			form.Set(name, value)
		}
	}
	response, err := http.PostForm(fmt.Sprint(assertion["token_url"]), form)
	if err != nil {
		m.t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		m.t.Fatal(err)
	}
	return response.StatusCode, answer
}

func TestAssertion(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"assertion_ttl": 200, "clock_skew": 50})
	m.write("keys/own", map[string]any{"algorithm": algorithmES384, "kid": "own-kid"})
	m.register("client-2", "own")
	m.write("roles/own", map[string]any{"client_id": "client-2", "key": "own", "scope": "fhir:development"})
	for path, want := range map[string]map[string]any{
		"assertion":     {"client_id": "client-1", "kid": m.read("keys/main")["kid"], "scope": ""},
		"assertion/own": {"client_id": "client-2", "kid": "own-kid", "scope": "fhir:development"},
	} {
		t.Run(path, func(t *testing.T) {
			want = maps.Clone(want)
			want["grant_type"] = "client_credentials"
			want["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
			want["token_url"] = m.redox.URL + "/v2/auth/token"
			want["expire_time"] = m.clock.wall().Add(200 * time.Second).Format(time.RFC3339)
			got := m.write(path, nil)
			want["client_assertion"] = got["client_assertion"]
			if !maps.Equal(got, want) {
				t.Errorf("got %v", got)
			}
			status, answer := m.postForm(got)
			accessToken, _ := answer["access_token"].(string)
			if status != http.StatusOK || !m.redox.IsLive(accessToken) || answer["scope"] != want["scope"] {
				t.Errorf("Redox answers %d, scope %v", status, answer["scope"])
			}
			if status, _ := m.postForm(got); status != http.StatusBadRequest {
				t.Errorf("the assertion works twice: %d", status)
			}
		})
	}
}

// TestAssertionEnds: expire_time is what it says.
func TestAssertionEnds(t *testing.T) {
	m := newReadyMount(t)
	for _, c := range []struct {
		wait   time.Duration
		status int
	}{{119 * time.Second, http.StatusOK}, {120 * time.Second, http.StatusBadRequest}} {
		got := m.write("assertion", nil)
		m.clock.advance(c.wait)
		if status, _ := m.postForm(got); status != c.status {
			t.Errorf("after %s: %d, want %d", c.wait, status, c.status)
		}
	}
}

// TestAssertionLeavesNothingBehind: each one is new, and neither it nor a token is kept or asked for.
func TestAssertionLeavesNothingBehind(t *testing.T) {
	m := newReadyMount(t)
	stored, written := m.storage.snapshot(), len(m.storage.written())
	seen := map[any]bool{}
	for range 20 {
		got := m.write("assertion", nil)
		seen[got["client_assertion"]] = true
		if status, _ := m.postForm(got); status != http.StatusOK { // a jti that was used before is rejected
			t.Fatalf("Redox answers %d", status)
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d different assertions of 20", len(seen))
	}
	if !maps.Equal(stored, m.storage.snapshot()) || len(m.storage.written()) != written {
		t.Error("something was stored")
	}
	if m.minter.tokens.Len() != 0 {
		t.Error("something is cached")
	}
	m.wantTokenRequests(20) // those that were posted by hand
}

func TestAssertionRefused(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", map[string]any{"disabled": true})
	m.refusedWith(logical.UpdateOperation, "assertion/team", nil, `role "team" is disabled`, "disabled=false")
	m.refusedWith(logical.UpdateOperation, "assertion/nobody", nil, `no role named "nobody"`)
	m.refusedWith(logical.UpdateOperation, "assertion", map[string]any{"scope": "mine"}, "scope: unknown field", "takes no fields")
	newMount(t).refusedWith(logical.UpdateOperation, "assertion", nil, "client_id: no client ID is configured")
	if _, err := m.request(logical.ReadOperation, "assertion", nil); err != logical.ErrUnsupportedOperation {
		t.Errorf("a read, which a policy for reading would allow: %v", err)
	}
}
