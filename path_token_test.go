// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// tokenRequests is how many requests have come to the token endpoint.
func (m *mount) tokenRequests() int { return m.redox.Counters().Token.Requests }

func (m *mount) wantTokenRequests(want int) {
	m.t.Helper()
	if got := m.tokenRequests(); got != want {
		m.t.Fatalf("%d requests at the token endpoint, want %d", got, want)
	}
}

// accessToken reads (or with UpdateOperation mints) and gives the token alone.
func (m *mount) accessToken(operation logical.Operation, path string) string {
	m.t.Helper()
	token, _ := m.answered(operation, path, nil)["access_token"].(string)
	return token
}

// reader is a read in the background.
type reader struct {
	response *logical.Response
	err      error
	done     chan struct{}
}

// readInBackground reads path; waits is closed when the reader is past what memory could have given it.
func (m *mount) readInBackground(
	ctx context.Context, operation logical.Operation, path string,
) (r *reader, waits chan struct{}) {
	r, waits = &reader{done: make(chan struct{})}, make(chan struct{})
	asked := sync.OnceFunc(func() { close(waits) })
	go func() {
		defer close(r.done)
		r.response, r.err = m.requestContext(askedContext{ctx, asked}, operation, path, nil)
	}()
	return r, waits
}

// answer waits for the reader's response, which has to be a success.
func (r *reader) answer(t *testing.T) map[string]any {
	t.Helper()
	<-r.done
	if r.err != nil || r.response.IsError() {
		t.Fatalf("the reader got %v, %v", r.response, r.err)
	}
	return r.response.Data
}

// askedContext tells that somebody asked for its end: only who is about to wait does.
type askedContext struct {
	context.Context
	asked func()
}

func (c askedContext) Done() <-chan struct{} {
	c.asked()
	return c.Context.Done()
}

func TestTokenReadersShareOne(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"scope": "fhir:development"})
	first := m.read("token")
	for range 10 {
		if again := m.read("token"); !maps.Equal(again, first) {
			t.Fatalf("another reader got another answer: ttl %v, then %v", first["ttl"], again["ttl"])
		}
	}
	m.wantTokenRequests(1)

	accessToken, _ := first["access_token"].(string)
	delete(first, "access_token")
	now := m.clock.wall()
	want := map[string]any{
		"token_type":          "Bearer",
		"scope":               "fhir:development",
		"client_id":           "client-1",
		"kid":                 m.read("keys/main")["kid"],
		"expire_time":         now.Add(300 * time.Second).Format(time.RFC3339),
		"last_vault_rotation": now.Format(time.RFC3339),
		"ttl":                 int64(270),
		"rotation_period":     int64(270),
	}
	if !maps.Equal(first, want) {
		t.Errorf("got %v, want %v", first, want)
	}

	patient := m.redox.FHIRURL("redox-fhir-sandbox", sandbox.Development) + "/Patient/1"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, patient, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+accessToken)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the FHIR endpoint answers %d to the token", response.StatusCode)
	}
}

// TestTokenReadOfMemoryAsksNobody: a read costs no storage read and no question to Vault.
func TestTokenReadOfMemoryAsksNobody(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", nil)
	for _, path := range []string{"token", "token/team"} {
		m.read(path)
		m.minter.node.view = nil // whoever asks it panics
		m.storage.onEach(func(operation, key string) error {
			t.Errorf("%s: storage was asked to %s %s", path, operation, key)
			return nil
		})
		before := m.storage.readCount()
		for range 100 {
			m.read(path)
		}
		if got := m.storage.readCount() - before; got != 0 {
			t.Errorf("%s: %d storage reads", path, got)
		}
		m.storage.onEach(nil)
		m.minter.node.view = m.system
	}
	m.wantTokenRequests(2)
}

func TestTokenThousandFirstReadersMintOnce(t *testing.T) {
	m := newReadyMount(t)
	arrived, release := m.redox.HoldTokenRequests()
	const count = 1000
	var readers []*reader
	for range count {
		r, waits := m.readInBackground(t.Context(), logical.ReadOperation, "token")
		readers = append(readers, r)
		<-waits
	}
	<-arrived
	release()
	first := readers[0].answer(t)["access_token"]
	for i, r := range readers {
		if r.answer(t)["access_token"] != first {
			t.Fatalf("reader %d got another token", i)
		}
	}
	m.wantTokenRequests(1)
}

func TestTokenReaderThatGivesUpLeavesTheMintToOthers(t *testing.T) {
	m := newReadyMount(t)
	arrived, release := m.redox.HoldTokenRequests()
	ctx, giveUp := context.WithCancel(t.Context())
	impatient, _ := m.readInBackground(ctx, logical.ReadOperation, "token")
	<-arrived // the mint that the impatient one began
	patient, waits := m.readInBackground(t.Context(), logical.ReadOperation, "token")
	<-waits
	giveUp()
	<-impatient.done
	if !errors.Is(impatient.err, context.Canceled) {
		t.Errorf("who gave up got %v, %v", impatient.response, impatient.err)
	}
	release()
	patient.answer(t)
	m.wantTokenRequests(1)
}

func TestTokenMintReplacesTheSharedOne(t *testing.T) {
	const mint, read = logical.UpdateOperation, logical.ReadOperation
	m := newReadyMount(t)
	first := m.accessToken(read, "token")
	m.clock.advance(2 * time.Second)
	fresh := m.accessToken(mint, "token")
	if fresh == first {
		t.Fatal("no fresh token was minted")
	}
	m.wantTokenRequests(2)
	if m.accessToken(read, "token") != fresh {
		t.Error("the fresh token is not shared")
	}
	m.clock.advance(2*time.Second - 1)
	if m.accessToken(mint, "token") != fresh {
		t.Error("a token of less than 2 s was replaced: a crowd whose token was rejected would mint one each")
	}
	m.clock.advance(1)
	if m.accessToken(mint, "token") == fresh {
		t.Error("a token of 2 s was not replaced")
	}
	m.wantTokenRequests(3)
}

func TestTokenMintJoinsTheOneInFlight(t *testing.T) {
	m := newReadyMount(t)
	arrived, release := m.redox.HoldTokenRequests()
	began, _ := m.readInBackground(t.Context(), logical.ReadOperation, "token")
	<-arrived
	joined, waits := m.readInBackground(t.Context(), logical.UpdateOperation, "token")
	<-waits
	release()
	if began.answer(t)["access_token"] != joined.answer(t)["access_token"] {
		t.Error("two tokens")
	}
	m.wantTokenRequests(1)
}

// TestTokenMintNeverServesAnOlderOne: its caller's token was rejected.
func TestTokenMintNeverServesAnOlderOne(t *testing.T) {
	m := newReadyMount(t)
	m.read("token")
	m.clock.advance(10 * time.Second)
	m.redox.DeleteAPIKey("client-1")
	m.refusedWith(logical.UpdateOperation, "token", nil, "Redox found no public key", "client_id")
	m.read("token") // those whose token works keep it
}

func TestTokenIsRefreshedAheadOfTime(t *testing.T) {
	m := newReadyMount(t)
	first := m.accessToken(logical.ReadOperation, "token")
	m.clock.advance(240*time.Second - 1) // twice min_ttl and a bit are left
	m.read("token")
	m.minter.tokens.Wait()
	m.wantTokenRequests(1)

	m.clock.advance(1)
	arrived, release := m.redox.HoldTokenRequests()
	for range 3 {
		data := m.read("token") // at once: the mint is held
		if data["access_token"] != first || data["ttl"] != int64(30) {
			t.Errorf("got another token, or ttl %v", data["ttl"])
		}
	}
	<-arrived
	release()
	m.minter.tokens.Wait()
	if m.accessToken(logical.ReadOperation, "token") == first {
		t.Error("the token was not refreshed")
	}
	m.wantTokenRequests(2)
}

func TestTokenUnderItsMarginWaits(t *testing.T) {
	m := newReadyMount(t)
	first := m.accessToken(logical.ReadOperation, "token")
	m.clock.advance(270 * time.Second)
	if m.accessToken(logical.ReadOperation, "token") == first {
		t.Error("a token under min_ttl was served although a new one was to be had")
	}
}

// TestTokenFailing walks a token's last seconds while Redox fails: served with a warning as long as it lives, then the
// failure with its status.
func TestTokenFailing(t *testing.T) {
	tests := []struct {
		name   string
		fail   func(*mount)
		status int
		says   string
	}{
		{"rejected", func(m *mount) { m.redox.DeleteAPIKey("client-1") }, http.StatusBadRequest, "Redox found no public key"},
		{"redirected", func(m *mount) { m.redox.SetFaults(sandbox.Faults{Redirect: "https://redox.test/"}) }, http.StatusBadRequest, "redirect"},
		{"500", func(m *mount) { m.redox.SetFaults(sandbox.Faults{Status: 500}) }, http.StatusBadGateway, "HTTP 500"},
		{"503 is never a 503: Vault's clients take that for sealed", func(m *mount) { m.redox.SetFaults(sandbox.Faults{Status: 503}) }, http.StatusBadGateway, "HTTP 503"},
		{"429", func(m *mount) { m.redox.SetFaults(sandbox.Faults{Status: 429}) }, http.StatusBadGateway, "limits the rate"},
		{"reset", func(m *mount) { m.redox.SetFaults(sandbox.Faults{Reset: true}) }, http.StatusBadGateway, "closed the connection"},
		{"no token", func(m *mount) { m.redox.SetFaults(sandbox.Faults{EmptyAccessToken: true}) }, http.StatusBadGateway, "access_token"},
		{"no answer", func(m *mount) { m.redox.HoldTokenRequests() }, http.StatusGatewayTimeout, "request_timeout (1s)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newReadyMount(t)
			m.write("config", map[string]any{"max_retries": 0, "request_timeout": 1})
			first := m.read("token")
			test.fail(m)
			for _, c := range []struct {
				left time.Duration
				ttl  int64
			}{
				{30 * time.Second, 10},
				{9900 * time.Millisecond, 9},
				{2 * time.Second, 2},
				{1900 * time.Millisecond, 1},
				{100 * time.Millisecond, 1},
			} {
				m.clock.advance(300*time.Second - c.left - m.clock.wall().Sub(mustParseTime(t, first["last_vault_rotation"])))
				response, err := m.request(logical.ReadOperation, "token", nil)
				if err != nil || response.IsError() {
					t.Fatalf("with %s left: %v, %v", c.left, response, err)
				}
				if response.Data["access_token"] != first["access_token"] || response.Data["ttl"] != c.ttl {
					t.Errorf("with %s left: another token, or ttl %v, want %d", c.left, response.Data["ttl"], c.ttl)
				}
				if len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "getting a newer one failed") {
					t.Errorf("with %s left: warnings %q", c.left, response.Warnings)
				}
				for name, value := range first {
					if name != "ttl" && response.Data[name] != value {
						t.Errorf("with %s left: %s has changed", c.left, name)
					}
				}
			}
			m.clock.advance(100 * time.Millisecond)
			for range 2 { // the failure, and the same remembered
				if test.status == http.StatusBadRequest {
					m.refusedWith(logical.ReadOperation, "token", nil, test.says)
					continue
				}
				status, err := m.failed(logical.ReadOperation, "token", nil)
				if status != test.status || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %d %v, want %d with %q", status, err, test.status, test.says)
				}
			}
		})
	}
}

func mustParseTime(t *testing.T, value any) time.Time {
	t.Helper()
	text, _ := value.(string)
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatalf("%v is not RFC 3339", value)
	}
	return parsed
}

// TestTokenExpiredOnItsWay: 1 s of life, and the clock jumps meanwhile.
func TestTokenExpiredOnItsWay(t *testing.T) {
	m := newReadyMount(t)
	m.redox.SetFaults(sandbox.Faults{TokenLifetime: sandbox.Duration(time.Second)})
	arrived, release := m.redox.HoldTokenRequests()
	r, _ := m.readInBackground(t.Context(), logical.ReadOperation, "token")
	<-arrived
	m.clock.advance(time.Second)
	release()
	<-r.done
	coded, ok := r.err.(logical.HTTPCodedError)
	if !ok || coded.Code() != http.StatusBadGateway || !strings.Contains(r.err.Error(), "check endpoint") {
		t.Errorf("got %v, %v", r.response, r.err)
	}
}

// TestTokenCallersDeadline: Vault gives each request a deadline of its own.
func TestTokenCallersDeadline(t *testing.T) {
	m := newReadyMount(t)
	m.redox.HoldTokenRequests()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	response, err := m.requestContext(ctx, logical.ReadOperation, "token", nil)
	coded, ok := err.(logical.HTTPCodedError)
	if !ok || coded.Code() != http.StatusGatewayTimeout || !strings.Contains(err.Error(), "check endpoint") {
		t.Errorf("got %v, %v", response, err)
	}
}

func TestTokenFailuresAreRemembered(t *testing.T) {
	m := newReadyMount(t)
	m.redox.DeleteAPIKey("client-1")
	requests := 0
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		pause *= time.Second
		requests++
		for _, wait := range []time.Duration{0, pause - 1} {
			m.clock.advance(wait)
			m.refused(logical.ReadOperation, "token", nil)
			m.refused(logical.UpdateOperation, "token", nil)
			m.wantTokenRequests(requests)
		}
		m.clock.advance(1)
	}
	m.register("client-1", "main")
	m.read("token")
	m.wantTokenRequests(requests + 1)
}

func TestTokenRetryAfterIsHonored(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"max_retries": 0})
	m.redox.SetFaults(sandbox.Faults{Status: 429, RetryAfter: "7", Count: 1})
	_, err := m.failed(logical.ReadOperation, "token", nil)
	if !strings.Contains(err.Error(), "Redox asks to wait 7s") {
		t.Errorf("got %v", err)
	}
	m.clock.advance(7*time.Second - 1)
	m.failed(logical.ReadOperation, "token", nil)
	m.wantTokenRequests(1)
	m.clock.advance(1)
	m.read("token")
}

// TestTokenMendedHere: a write that may have mended a role lets the next reader try at once.
func TestTokenMendedHere(t *testing.T) {
	for name, mend := range map[string]func(*mount){
		"config written":    func(m *mount) { m.write("config", map[string]any{"scope": ""}) },
		"role written":      func(m *mount) { m.write("roles/team", map[string]any{"scope": ""}) },
		"config elsewhere":  func(m *mount) { m.InvalidateKey(context.Background(), configStorageKey) },
		"role elsewhere":    func(m *mount) { m.InvalidateKey(context.Background(), rolesStoragePrefix+"team") },
		"key elsewhere":     func(m *mount) { m.InvalidateKey(context.Background(), keysStoragePrefix+"main") },
		"at Redox, checked": func(m *mount) { m.write("check/team", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newReadyMount(t)
			m.write("roles/team", nil)
			m.redox.DeleteAPIKey("client-1")
			for range 3 { // so that the pause has grown
				m.refused(logical.ReadOperation, "token/team", nil)
				m.clock.advance(time.Second)
				m.refused(logical.ReadOperation, "token/team", nil)
				m.clock.advance(time.Second)
			}
			m.register("client-1", "main")
			m.refused(logical.ReadOperation, "token/team", nil)
			mend(m)
			m.read("token/team")
		})
	}
}

// TestTokenFollowsChanges: what is changed while a mint is under way holds for those who wait for it.
func TestTokenFollowsChanges(t *testing.T) {
	type want map[string]any
	for _, c := range []struct {
		name   string
		change func(*mount)
		want   want
	}{
		{"config written", func(m *mount) { m.write("config", map[string]any{"scope": "new"}) }, want{"scope": "new", "client_id": "client-1"}},
		{"role written", func(m *mount) { m.write("roles/team", map[string]any{"client_id": "client-2", "key": "other"}) }, want{"client_id": "client-2"}},
		{"role changed by another node", func(m *mount) {
			entry := strings.Replace(m.storage.snapshot()[rolesStoragePrefix+"team"], `"scope":""`, `"scope":"anew"`, 1)
			m.plant(rolesStoragePrefix+"team", entry)
			m.InvalidateKey(context.Background(), rolesStoragePrefix+"team")
		}, want{"scope": "anew"}},
		{"config changed by another node", func(m *mount) {
			entry := strings.Replace(m.storage.snapshot()[configStorageKey], `"scope":""`, `"scope":"elsewhere"`, 1)
			m.plant(configStorageKey, entry)
			m.InvalidateKey(context.Background(), configStorageKey)
		}, want{"scope": "elsewhere"}},
	} {
		for _, operation := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
			t.Run(fmt.Sprintf("%s, %s", c.name, operation), func(t *testing.T) {
				m := newReadyMount(t)
				m.write("keys/other", map[string]any{"algorithm": algorithmES384})
				m.register("client-2", "other")
				m.write("roles/team", nil)
				arrived, release := m.redox.HoldTokenRequests()
				r, _ := m.readInBackground(t.Context(), operation, "token/team")
				<-arrived
				c.change(m)
				select {
				case <-arrived: // the reader started again, and the obsolete request is still held
				case <-r.done:
					t.Fatalf("the reader ended without starting again: %v, %v", r.response, r.err)
				}
				release()
				got := r.answer(t)
				for name, value := range c.want {
					if got[name] != value {
						t.Errorf("%s is %v, want %v", name, got[name], value)
					}
				}
				m.minter.tokens.Wait()
				if m.accessToken(logical.ReadOperation, "token/team") != got["access_token"] {
					t.Error("what is shared from now on is another token")
				}
				m.wantTokenRequests(2)
			})
		}
	}
}

// TestTokenStopsAtOnce: a cached token does not outlive the right to it.
func TestTokenStopsAtOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		stop func(*mount)
		says []string
	}{
		{"disabled", func(m *mount) { m.write("roles/team", map[string]any{"disabled": true}) }, []string{`role "team" is disabled`, "disabled=false to roles/team"}},
		{"deleted", func(m *mount) { m.remove("roles/team") }, []string{`no role named "team"`, "roles/team"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newReadyMount(t)
			m.write("roles/team", nil)
			m.read("token/team")
			c.stop(m)
			for _, operation := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
				m.refusedWith(operation, "token/team", nil, c.says...)
			}
			m.refusedWith(logical.UpdateOperation, "assertion/team", nil, c.says...)
			if got := m.write("check/team", nil); got["ok"] != false || !strings.Contains(fmt.Sprint(got["cause"]), c.says[0]) {
				t.Errorf("check says %v", got)
			}
			m.wantTokenRequests(1)
			m.read("token") // the configuration's own is not concerned

			m.write("roles/team", map[string]any{"disabled": false})
			m.read("token/team")
		})
	}
}

// TestTokenWithoutSetup: what is missing is named, Redox is not asked, nothing is kept, and the write that mends it
// needs no waiting.
func TestTokenWithoutSetup(t *testing.T) {
	m := newMount(t)
	for i := range 50 {
		m.refusedWith(logical.ReadOperation, fmt.Sprintf("token/unknown-%d", i), nil, "no role named", "list roles")
	}
	m.refusedWith(logical.ReadOperation, "token/"+strings.Repeat("x", 200), nil, "longer than 128")
	m.refusedWith(logical.ReadOperation, "token", nil, "client_id: ", "a write to config")
	m.write("config", map[string]any{"client_id": "client-1", "base_url": m.redox.URL})
	m.refusedWith(logical.UpdateOperation, "token", nil, "key: ", "keys/NAME", "in config")
	m.write("roles/team", nil)
	m.refusedWith(logical.ReadOperation, "token/team", nil, "key: ", "roles/team or config")
	m.wantTokenRequests(0)
	if got := m.minter.tokens.Len(); got != 0 {
		t.Errorf("the cache has %d entries", got)
	}
	m.write("keys/main", map[string]any{"algorithm": algorithmES384})
	m.register("client-1", "main")
	m.write("roles/team", map[string]any{"key": "main"})
	m.read("token/team")
}

// TestTokenKeyGone: the key's entry has vanished from storage.
func TestTokenKeyGone(t *testing.T) {
	m := newReadyMount(t)
	if err := m.storage.inner.Delete(t.Context(), keysStoragePrefix+"main"); err != nil {
		t.Fatal(err)
	}
	m.refusedWith(logical.ReadOperation, "token", nil, `key: the signing key "main" does not exist`, "config")
}

// TestTokenStorageFails: Vault knows its own errors by their type, and nothing is remembered.
func TestTokenStorageFails(t *testing.T) {
	m := newReadyMount(t)
	broken := errors.New("the storage is broken")
	m.write("roles/team", nil)
	for _, key := range []string{rolesStoragePrefix + "team", configStorageKey, keysStoragePrefix + "main"} {
		m.storage.onEach(func(_, asked string) error {
			if asked == key {
				return broken
			}
			return nil
		})
		for _, path := range []string{"token/team", "check/team", "assertion/team"} {
			var operation logical.Operation = logical.UpdateOperation
			if path == "token/team" {
				operation = logical.ReadOperation
			}
			if _, err := m.failed(operation, path, nil); err != broken {
				t.Errorf("%s with %s unreadable: %v, want the storage's error itself", path, key, err)
			}
		}
		m.storage.onEach(nil)
		m.wantTokenRequests(0)
	}
	m.read("token/team")
}

func TestTokenRoles(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"scope": "common"})
	m.write("keys/own", map[string]any{"algorithm": algorithmES384, "kid": "own-kid"})
	m.register("client-2", "own")
	m.write("roles/inherits", nil)
	m.write("roles/own", map[string]any{"client_id": "client-2", "key": "own", "scope": "own", "min_ttl": 60})
	for path, want := range map[string][]any{
		"token":          {"client-1", m.read("keys/main")["kid"], "common", int64(270)},
		"token/inherits": {"client-1", m.read("keys/main")["kid"], "common", int64(270)},
		"token/own":      {"client-2", "own-kid", "own", int64(240)},
	} {
		got := m.read(path)
		for i, name := range []string{"client_id", "kid", "scope", "ttl"} {
			if got[name] != want[i] {
				t.Errorf("%s: %s is %v, want %v", path, name, got[name], want[i])
			}
		}
	}
	m.wantTokenRequests(3) // roles share nothing, even when they have the same settings
}

// TestTokenTTLContract is what consul-template and the Vault Secrets Operator rely on, through the endpoint:
// internal/tokencache sweeps the numbers more finely.
func TestTokenTTLContract(t *testing.T) {
	m := newReadyMount(t)
	for _, life := range []int{1, 2, 3, 5, 10, 20, 61, 300, 600} {
		for _, minTTL := range []int{1, 30, 3600} {
			m.redox.SetFaults(sandbox.Faults{TokenLifetime: sandbox.Duration(time.Duration(life) * time.Second)})
			m.write("config", map[string]any{"min_ttl": minTTL})
			for age := 0; age < life; age += max(1, life/23) {
				m.minter.tokens.DropAll()
				minted := m.read("token")
				m.clock.advance(time.Duration(age) * time.Second)
				first := m.read("token")
				if first["access_token"] == minted["access_token"] {
					wantSameToken(t, minted, first)
				}
				m.minter.tokens.Wait() // a refresh
				ttl, whole := first["ttl"].(int64)
				if period, wholeToo := first["rotation_period"].(int64); !whole || !wholeToo || ttl < 1 || period < 1 {
					t.Fatalf("lifetime %d, min_ttl %d, age %d: ttl %v, rotation_period %v",
						life, minTTL, age, first["ttl"], first["rotation_period"])
				}
				rotation, expiry := mustParseTime(t, first["last_vault_rotation"]), mustParseTime(t, first["expire_time"])
				if expiry.Sub(rotation) != time.Duration(life)*time.Second {
					t.Errorf("lifetime %d: from %v to %v", life, rotation, expiry)
				}
				m.clock.advance(time.Duration(ttl+1) * time.Second)
				if m.accessToken(logical.ReadOperation, "token") == first["access_token"] {
					t.Errorf("lifetime %d, min_ttl %d, age %d: who came back after ttl %d + 1 s got the same token",
						life, minTTL, age, ttl)
				}
			}
		}
	}
}

// wantSameToken checks that two answers with one token differ in nothing but ttl.
func wantSameToken(t *testing.T, a, b map[string]any) {
	t.Helper()
	a, b = maps.Clone(a), maps.Clone(b)
	delete(a, "ttl")
	delete(b, "ttl")
	if !maps.Equal(a, b) {
		t.Error("one token was served with two different answers")
	}
}

func TestTokenLeased(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/leased", map[string]any{"leased": true})
	m.write("roles/plain", map[string]any{"leased": false})
	if response, _ := m.request(logical.ReadOperation, "token/plain", nil); response.Secret != nil {
		t.Error("a role that is not leased gives a lease")
	}
	lease := func(operation logical.Operation, ttl time.Duration) *logical.Response {
		t.Helper()
		response, err := m.request(operation, "token/leased", nil)
		if err != nil || response.IsError() || response.Secret == nil {
			t.Fatalf("got %v, %v", response, err)
		}
		s := response.Secret
		if s.TTL != ttl || s.MaxTTL != ttl || s.Renewable || response.Data["ttl"] != int64(ttl/time.Second) {
			t.Errorf("the lease has TTL %s, MaxTTL %s, renewable %v; want %s and not renewable",
				s.TTL, s.MaxTTL, s.Renewable, ttl)
		}
		return response
	}
	first := lease(logical.ReadOperation, 270*time.Second)
	m.clock.advance(100 * time.Second)
	second := lease(logical.ReadOperation, 170*time.Second)
	wantSameToken(t, first.Data, second.Data)
	requests := m.tokenRequests()

	revoke := func(response *logical.Response) {
		t.Helper()
		m.storage.onEach(func(operation, key string) error {
			t.Errorf("a revocation asks storage to %s %s", operation, key)
			return errors.New("the storage is broken")
		})
		defer m.storage.onEach(nil)
		answer, err := m.HandleRequest(t.Context(), logical.RevokeRequest("token/leased", response.Secret, response.Data))
		if err != nil || answer.IsError() {
			t.Errorf("the revocation failed: %v, %v", answer, err)
		}
	}
	revoke(first)
	third := lease(logical.ReadOperation, 170*time.Second)
	wantSameToken(t, first.Data, third.Data) // it is others', too
	m.wantTokenRequests(requests)
	accessToken, _ := first.Data["access_token"].(string)

	m.restart()
	m.remove("roles/leased")
	revoke(second)
	m.wantTokenRequests(requests)
	if !m.redox.IsLive(accessToken) {
		t.Error("the shared token does not live any more")
	}

	// Under the margin, too, the lease is never without end: a TTL of 0 would be Vault's default of 32 days.
	m.write("roles/leased", map[string]any{"leased": true})
	m.write("config", map[string]any{"max_retries": 0})
	lease(logical.ReadOperation, 270*time.Second)
	m.redox.SetFaults(sandbox.Faults{Status: 500})
	m.clock.advance(300*time.Second - 1)
	lease(logical.ReadOperation, time.Second)
	m.minter.tokens.Wait() // so little life was not waited away
	m.redox.SetFaults(sandbox.Faults{})
	m.clock.advance(time.Second)
	lease(logical.UpdateOperation, 270*time.Second)
}

// TestTokenLeasedOnPerformanceStandby: a standby can't register a lease, so it must not mint for one.
func TestTokenLeasedOnPerformanceStandby(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/leased", map[string]any{"leased": true})
	m.write("roles/plain", nil)
	m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
	m.restart() // a node begins as what it is
	for _, operation := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		response, err := m.request(operation, "token/leased", nil)
		if response != nil || err != logical.ErrReadOnly {
			t.Errorf("%s: got %v, %v; want ErrReadOnly itself, which makes Vault forward the request", operation, response, err)
		}
	}
	m.wantTokenRequests(0)
	m.read("token/plain") // which needs no storage
}

// TestLeaseTTL walks through a token's life: its lease ends no later than the token, and is as long as ttl, but never so
// short that consul-template takes two reads for one.
func TestLeaseTTL(t *testing.T) {
	for left := 100 * time.Millisecond; left <= 300*time.Second; left += 100 * time.Millisecond {
		for _, stale := range []error{nil, errors.New("minting failed")} {
			served := tokencache.Served[*token]{
				Minted:    tokencache.Minted[*token]{Lifetime: 300 * time.Second, MinTTL: 30 * time.Second},
				Remaining: left, Stale: stale,
			}
			lease, ttl := leaseTTL(served), time.Duration(served.TTL())*time.Second
			switch {
			case lease < time.Second, left >= time.Second && lease > left:
				t.Fatalf("with %s left the lease is %s", left, lease)
			case left >= 2*time.Second && lease < 2*time.Second:
				t.Fatalf("with %s left the lease is only %s", left, lease)
			case ttl >= 2*time.Second && lease != ttl:
				t.Fatalf("with %s left ttl is %s, and the lease %s", left, ttl, lease)
			}
		}
	}
}
