// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/gate"
	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// TestLimitedHost: one role's 429 has all roles of its host wait, but not those that have a token, and none of another host;
// the error, check and the metrics say how long.
func TestLimitedHost(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"max_retries": 0})
	for _, role := range []string{"living", "told", "other"} {
		m.write("roles/"+role, nil)
	}
	living := m.read("token/living")["access_token"]
	m.redox.SetFaults(sandbox.Faults{Status: 429, RetryAfter: "90", Count: 1})
	if status, err := m.failed(logical.ReadOperation, "token/told", nil); status != http.StatusBadGateway || !strings.Contains(err.Error(), "limits the rate") {
		t.Errorf("the role that is told: HTTP %d, %v", status, err)
	}
	before := m.redox.Counters().Token.Requests
	status, err := m.failed(logical.ReadOperation, "token/other", nil)
	if status != http.StatusGatewayTimeout || !strings.Contains(err.Error(), "the server limits requests") || !strings.Contains(err.Error(), "1m") {
		t.Errorf("another role: HTTP %d, %v", status, err)
	}
	if m.read("token/living")["access_token"] != living {
		t.Error("a living token is not served")
	}
	check := m.write("check/other", nil)
	if paused, _ := check["paused_for"].(int64); check["ok"] != false || paused < 80 || paused > 90 || check["http_status"] != nil {
		t.Errorf("check says %v", check)
	}
	m.wantSeries("while it is paused", map[string]float64{
		"rate_limited_total": 1, "requests_not_sent_total": 2, "requests_in_progress": 0, "requests_waiting": 0,
		"mints_total cause=limited result=failure": 2,
	})
	if asked := m.redox.Counters().Token.Requests; asked != before {
		t.Errorf("it was asked %d times in the pause", asked-before)
	}

	another := must(sandbox.Start(sandbox.Options{Now: m.clock.wall}))
	defer func() { must(0, another.Close()) }()
	jwk, _ := m.read("keys/main")["public_jwk"].(string)
	another.CreateAPIKey(sandbox.APIKey{ID: "client-1", JWKSet: []byte(`{"keys":[` + jwk + `]}`)})
	m.write("config", map[string]any{"base_url": another.URL})
	m.read("token/other")
	m.write("config", map[string]any{"base_url": m.redox.URL})

	m.clock.advance(91 * time.Second)
	m.read("token/other")
	m.read("token/told")
	if check := m.write("check", nil); check["ok"] != true || check["paused_for"] != nil {
		t.Errorf("after the pause check says %v", check)
	}
}

// TestProbesOfALimitedHost: a 429 ends a pass for all keys; what was not sent counts as asked of nobody.
func TestProbesOfALimitedHost(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"max_retries": 0})
	m.write("keys/second", map[string]any{"algorithm": algorithmES384})
	m.write("roles/second", map[string]any{"key": "second", "client_id": "client-2"})
	m.write("keys/main/rotate", nil)
	m.write("keys/second/rotate", nil)
	m.redox.SetFaults(sandbox.Faults{Status: 429, RetryAfter: "200"})
	before := m.redox.Counters().Token.Requests
	m.clock.advance(time.Minute)
	m.passNow()
	m.clock.advance(time.Minute)
	m.passNow() // within the pause
	if asked := m.redox.Counters().Token.Requests - before; asked != 1 {
		t.Errorf("it was asked %d times", asked)
	}
	client := m.clients("second")[0]
	if client["last_answer"] != nil && client["last_answer"] != "" {
		t.Errorf("client-2 was not asked about, but has %v", client)
	}
	m.redox.SetFaults(sandbox.Faults{})
	m.clock.advance(3 * time.Minute)
	m.registerPending("client-1", "main")
	m.passNow()
	m.wantStates("main", "retired active")
}

// TestWhoGoesFirst: of those who wait at a host's gate readers go first, then renewals ahead of time, then probes; and a
// renewal that a reader waits for goes as a reader.
func TestWhoGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &logical.InmemStorage{}
		now := func() tokencache.Instant { return tokencache.Instant{Wall: time.Now()} }
		b, err := newBackend(t.Context(), &logical.BackendConfig{System: logical.TestSystemView(), StorageView: storage}, newTestSigner(), now)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		b.minter.share = func() float64 { return 0 }
		b.minter.requestToken = func(ctx context.Context, c *roleConfig, r redox.TokenRequest) (*redox.Token, error) {
			pass, err := r.Gate.Enter(ctx)
			if err != nil {
				return nil, err
			}
			defer pass.Leave()
			if _, err := r.Assertion(); err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			order = append(order, c.ClientID)
			return &redox.Token{AccessToken: "token", TokenType: "Bearer", Lifetime: 300 * time.Second}, nil
		}
		do := func(operation logical.Operation, path string, data map[string]any) {
			response, err := b.HandleRequest(t.Context(), &logical.Request{Operation: operation, Path: path, Data: data, Storage: storage})
			if err != nil || response.IsError() {
				t.Errorf("%s %s: %v, %v", operation, path, err, response)
			}
		}
		do(logical.UpdateOperation, "keys/main", map[string]any{"algorithm": algorithmES384})
		do(logical.UpdateOperation, "keys/probed", map[string]any{"algorithm": algorithmES384})
		do(logical.UpdateOperation, "config", map[string]any{"key": "main", "client_id": "unused", "max_concurrent_requests": 1})
		for _, role := range []string{"renewed", "raised", "reader"} {
			do(logical.UpdateOperation, "roles/"+role, map[string]any{"client_id": role})
		}
		do(logical.UpdateOperation, "roles/probed", map[string]any{"client_id": "probe", "key": "probed"})
		do(logical.UpdateOperation, "keys/probed/rotate", nil)
		do(logical.ReadOperation, "token/renewed", nil)
		do(logical.ReadOperation, "token/raised", nil)
		time.Sleep(245 * time.Second)
		c := defaultConfig()
		c.MaxConcurrent = 1
		host := b.minter.gates.of(c.tokenURL(), c.limits())
		pass, err := host.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		order = nil
		go b.maintainer.pass(t.Context())
		synctest.Wait()
		do(logical.ReadOperation, "token/renewed", nil)
		do(logical.ReadOperation, "token/raised", nil)
		synctest.Wait()
		go do(logical.ReadOperation, "token/reader", nil)
		synctest.Wait()
		go do(logical.UpdateOperation, "token/raised", nil) // which waits for the renewal that is under way
		synctest.Wait()
		if waiting := host.State().Waiting; waiting != 4 {
			t.Errorf("%d wait", waiting)
		}
		pass.Leave()
		synctest.Wait()
		if want := []string{"raised", "reader", "renewed", "probe"}; !slices.Equal(order[:min(4, len(order))], want) {
			t.Errorf("they went in the order %v, want %v", order, want)
		}
		time.Sleep(time.Minute)
		b.Cleanup(context.Background())
		b.minter.tokens.Wait()
	})
}

// TestSignaturesAtOnce: no more are made at once than there are processors, first come first served; who can't wait gets a 504.
func TestSignaturesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := must(newKeyVersion(must(privatekey.Generate(privatekey.ES384, 0)), "", false, time.Now()))
		s := &signer{gate: gate.New(gate.Limits{AtOnce: 2}, nil)}
		var mu sync.Mutex
		atOnce, most := 0, 0
		var order []int
		var all sync.WaitGroup
		for n := range 9 {
			all.Go(func() {
				_, err := s.sign(t.Context(), "main", v, func() assertionClaims {
					mu.Lock()
					atOnce++
					most = max(most, atOnce)
					order = append(order, n)
					mu.Unlock()
					time.Sleep(time.Second) // the signature
					mu.Lock()
					defer mu.Unlock()
					atOnce--
					return assertionClaims{clientID: "client-1", kid: "kid", now: time.Now()}
				})
				if err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.sign(ctx, "main", v, func() assertionClaims { panic("it is not its turn") })
		var coded logical.HTTPCodedError
		if !errors.As(err, &coded) || coded.Code() != http.StatusGatewayTimeout || !strings.Contains(err.Error(), "too busy") {
			t.Errorf("who can't wait gets %v", err)
		}
		all.Wait()
		// Two begin at a time, and which of them is noted first is chance.
		if most != 2 || !slices.IsSortedFunc(order, func(a, b int) int { return a/2 - b/2 }) {
			t.Errorf("%d at once, in the order %v", most, order)
		}
	})
}

// TestGatesOfHosts: each host has one, whatever the rest of the URL is; those of former configurations are forgotten when
// they have nothing to remember.
func TestGatesOfHosts(t *testing.T) {
	clock := newTestClock()
	g := gates{now: clock.now}
	limits := gate.Limits{AtOnce: 1, PerWindow: 400}
	first := g.of("https://one.example/v2/auth/token", limits)
	if g.of("https://ONE.example/platform", limits) != first {
		t.Error("one host has two gates")
	}
	first.Limited(time.Minute)
	if second := g.of("https://two.example/token", limits); second == first || second.State().ClosedFor != 0 {
		t.Error("two hosts have one gate")
	}
	if g.of("https://one.example/token", limits).State().ClosedFor != time.Minute {
		t.Error("a gate that is closed is forgotten")
	}
	if g.state().ClosedFor != time.Minute {
		t.Errorf("the state is %+v", g.state())
	}
	clock.advance(10 * time.Minute)
	g.of("https://three.example/token", limits)
	if len(g.byHost) != 1 {
		t.Errorf("%d gates are kept", len(g.byHost))
	}
	if g.of("https://three.example/token", gate.Limits{AtOnce: 7}).State().AtOnce != 7 {
		t.Error("other limits do not hold")
	}
}
