// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// tlsRedox is another local Redox, with a certificate of its own CA.
func (m *mount) tlsRedox() *sandbox.Server {
	m.t.Helper()
	server, err := sandbox.Start(sandbox.Options{Now: m.clock.wall, TLS: true})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		m.minter.connections.close() // so that the server need not wait for idle connections
		if err := server.Close(); err != nil {
			m.t.Error(err)
		}
	})
	for _, k := range m.redox.APIKeys() {
		server.CreateAPIKey(k)
	}
	return server
}

// TestMintTrustsCAPEMOnly: ca_pem is the only trust once it is set, and a change of it holds at once, also for
// connections that are open.
func TestMintTrustsCAPEMOnly(t *testing.T) {
	m := newReadyMount(t)
	server, other := m.tlsRedox(), m.tlsRedox()
	for _, c := range []struct {
		caPEM string
		says  string
	}{
		{"", "this system trusts"},
		{server.CAPEM, ""},
		{other.CAPEM, "authority in ca_pem"},
		{other.CAPEM + server.CAPEM, ""},
		{"", "this system trusts"},
	} {
		m.write("config", map[string]any{"base_url": server.URL, "ca_pem": c.caPEM})
		m.minter.tokens.DropAll() // a token stays when another CA is trusted
		if c.says == "" {
			m.read("token")
			continue
		}
		m.refusedWith(logical.ReadOperation, "token", nil, c.says, "ca_pem")
	}
	if got := server.Counters().Token; got.Requests != 2 {
		t.Errorf("%d requests reached Redox, want the 2 over trusted connections", got.Requests)
	}
}

// TestMintReusesItsConnection: a handshake per mint would cost more than the mint.
func TestMintReusesItsConnection(t *testing.T) {
	m := newReadyMount(t)
	var clients []*redox.Client
	for range 3 {
		m.accessToken(logical.UpdateOperation, "token")
		m.write("config", map[string]any{"scope": "another"})
		m.write("check", nil)
		clients = append(clients, m.minter.connections.client)
	}
	if clients[0] == nil || clients[0] != clients[1] || clients[1] != clients[2] {
		t.Error("the client is made anew, and its connections are lost")
	}
}

// TestMintSignsEachAttemptAnew: Redox rejects a jti that it has seen, also in an attempt that it failed to answer.
func TestMintSignsEachAttemptAnew(t *testing.T) {
	m := newReadyMount(t)
	m.redox.SetFaults(sandbox.Faults{ResetMidBody: true, Count: 1}) // the token was issued, so the jti is used
	m.read("token")
	counters := m.redox.Counters().Token
	if counters.Requests != 2 || len(counters.Rejected) != 0 {
		t.Errorf("counters are %+v", counters)
	}
}

// TestMintCountsFromBeforeTheRequest: Redox may have begun the token's life long before its answer came.
func TestMintCountsFromBeforeTheRequest(t *testing.T) {
	m := newReadyMount(t)
	arrived, release := m.redox.HoldTokenRequests()
	r, _ := m.readInBackground(t.Context(), logical.ReadOperation, "token")
	<-arrived
	requested := m.clock.wall()
	m.clock.advance(5 * time.Second)
	release()
	got := r.answer(t)
	if got["ttl"] != int64(265) || got["last_vault_rotation"] != requested.Format(time.RFC3339) {
		t.Errorf("ttl %v, minted %v", got["ttl"], got["last_vault_rotation"])
	}
}

// TestMintLogs what an operator looks for: once per mint, with names and without secrets (for which every test's log is
// searched).
func TestMintLogs(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"max_retries": 0})
	m.write("roles/team", nil)
	kid := fmt.Sprint(m.read("keys/main")["kid"])
	mark := 0
	logged := func() string {
		text := m.log.String()[mark:]
		mark += len(text)
		return text
	}
	wantLines := func(what string, level string, parts ...string) {
		t.Helper()
		text := logged()
		if level == "" {
			if text != "" {
				t.Errorf("%s: logged %q", what, text)
			}
			return
		}
		if strings.Count(text, "\n") != 1 {
			t.Errorf("%s: logged %q, want one line", what, text)
		}
		for _, part := range append(parts, "["+level+"]") {
			if !strings.Contains(text, part) {
				t.Errorf("%s: logged %q, which lacks %q", what, text, part)
			}
		}
	}
	logged()
	m.read("token/team")
	wantLines("a mint", "DEBUG", "minted a token", "role=team", "key=main", "kid="+kid, "lifetime=5m0s")
	m.read("token/team")
	wantLines("a read of memory", "")

	m.clock.advance(2 * time.Second)
	m.redox.SetFaults(sandbox.Faults{Status: 500})
	for range 3 {
		m.failed(logical.UpdateOperation, "token/team", nil)
	}
	wantLines("a failure, asked for three times", "WARN",
		"minting a token failed", "role=team", "key=main", "kid="+kid, "HTTP 500")
	m.redox.SetFaults(sandbox.Faults{})

	m.refused(logical.ReadOperation, "token/nobody", nil)
	wantLines("an unknown role: anybody could fill the log", "")

	arrived, release := m.redox.HoldTokenRequests()
	defer release()
	ctx, giveUp := context.WithCancel(t.Context())
	r, _ := m.readInBackground(ctx, logical.ReadOperation, "token")
	<-arrived
	giveUp()
	<-r.done
	m.write("config", map[string]any{"scope": "new"})
	m.minter.tokens.Wait()
	wantLines("a mint that a change has made needless: nothing failed", "")
}

func TestMintPauses(t *testing.T) {
	for _, c := range []struct {
		err   error
		pause bool
		least time.Duration
	}{
		{&redox.Error{Kind: redox.Unavailable, RetryAfter: 9 * time.Second}, true, 9 * time.Second},
		{&redox.Error{Kind: redox.Rejected}, true, 0},
		{tokencache.ErrExpired, true, 0},
		{fieldError("role", "create it", "there is none"), false, 0},
		{errActiveNodeMints, true, 0},
		{logical.ErrReadOnly, false, 0},
		{errors.New("the storage is broken"), false, 0},
		{fmt.Errorf("given up: %w", context.Canceled), false, 0},
	} {
		if pause, least := mintPauses(c.err); pause != c.pause || least != c.least {
			t.Errorf("%v: %v, %s; want %v, %s", c.err, pause, least, c.pause, c.least)
		}
	}
}

// TestMintsEndWithTheMount: an unmounted or reloaded engine leaves nothing running, and who waits is told.
func TestMintsEndWithTheMount(t *testing.T) {
	m := newReadyMount(t)
	arrived, release := m.redox.HoldTokenRequests()
	defer release()
	r, _ := m.readInBackground(t.Context(), logical.ReadOperation, "token")
	<-arrived
	m.backend.Cleanup(context.Background()) // does not wait for the request that is held
	<-r.done
	if !errors.Is(r.err, tokencache.ErrClosed) || !strings.Contains(r.err.Error(), "try again") {
		t.Errorf("who waited got %v, %v", r.response, r.err)
	}
	m.minter.tokens.Wait()
	if status, _ := m.failed(logical.ReadOperation, "token", nil); status != http.StatusInternalServerError {
		t.Errorf("afterwards the status is %d", status)
	}
	m.wantTokenRequests(1)
}
