// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/sandbox"
)

// The promise of a rotation, in the cases in which it was broken once: what the server takes from a client that is
// configured, it takes after each step. Here a client is used in a way that leaves no trace, or fails in a way of its own.

// twoClients is a mount with a role "two" of its own client ID beside the configuration's client-1. Redox knows the key's
// first version of both.
func twoClients(t *testing.T) (m *mount, first map[string]any) {
	m = newReadyMount(t)
	m.register("client-2", "main")
	m.write("roles/two", fields{"client_id": "client-2"})
	return m, m.read("keys/main")
}

// rotated makes the next version, and says what the key reads then.
func (m *mount) rotated() map[string]any {
	m.t.Helper()
	return m.write("keys/main/rotate", fields{"algorithm": algorithmES384})
}

// passes lets time go by, with a pass each hour.
func (m *mount) passes(hours int) {
	m.t.Helper()
	for range hours {
		m.clock.advance(time.Hour)
		m.passNow()
	}
}

// requestsDuring counts the token requests to Redox while something is done.
func (m *mount) requestsDuring(do func()) int {
	before := m.redox.Counters().Token.Requests
	do()
	return int(m.redox.Counters().Token.Requests - before)
}

// A client that only takes assertions never mints. Its server knows the first version only.
func TestRotationWithAClientThatOnlyTakesAssertions(t *testing.T) {
	m, first := twoClients(t)
	m.read("token")
	rotated := m.rotated()
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.passes(3)
	m.wantStates("main", "active pending")
	m.refusedWith(logical.UpdateOperation, "keys/main/activate", nil, "client-2", "Public key not found")

	// Broken at the server for a while, it holds nothing up; and it goes on with what its server knew.
	m.setJWKs("client-2")
	m.passes(2) // the second one asks about client-1 again, whose answer is old by then
	m.wantStates("main", "retired active")
	m.setJWKs("client-2", first["public_jwk"])
	if kid := m.write("assertion/two", nil)["kid"]; kid != first["kid"] {
		t.Errorf("its assertions are signed with %v, which its server does not know", kid)
	}
	m.passes(48)
	m.wantStates("main", "retired active")
	m.setJWKs("client-2", first["public_jwk"], rotated["pending_public_jwk"])
	m.passes(24)
	m.wantStates("main", "destroyed active")
	if kid := m.write("assertion/two", nil)["kid"]; kid != rotated["pending_kid"] {
		t.Errorf("at last its assertions are signed with %v", kid)
	}
}

// activate finds one client rejected that nobody has ever read. It promotes nothing, and nothing is destroyed for it.
func TestActivateAsksEveryConfiguredClient(t *testing.T) {
	m, first := twoClients(t)
	rotated := m.rotated()
	m.setJWKs("client-1", rotated["pending_public_jwk"])
	m.refusedWith(logical.UpdateOperation, "keys/main/activate", nil, "client-2")
	m.wantStates("main", "active pending")
	m.write("keys/main/activate", fields{"force": true})
	response, err := m.request(logical.UpdateOperation, "keys/main/retire", nil)
	if err != nil || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "client-2") {
		t.Errorf("retire of what client-2 needs: %v, %v", response, err)
	}
	m.passes(48)
	m.wantStates("main", "retired active")
	if kid := m.signsWith("token/two"); kid != first["kid"] {
		t.Errorf("client-2 mints with %v", kid)
	}
}

// A client that is read only on a node that serves reads and may not write is unknown to the node that may.
func TestRotationWithAClientOfAnotherNode(t *testing.T) {
	m, first := twoClients(t)
	system := *m.system
	system.ReplicationStateVal = standby
	other, err := newBackend(t.Context(), &logical.BackendConfig{System: &system, StorageView: m.storage}, newTestSigner(), m.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Cleanup(context.Background())
	onOther := func() (*logical.Response, error) {
		other.clean(t.Context()) // no token is remembered
		again, err := newBackend(t.Context(), &logical.BackendConfig{System: &system, StorageView: m.storage}, newTestSigner(), m.clock.now)
		if err != nil {
			t.Fatal(err)
		}
		other = again
		return other.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "token/two", Storage: m.storage})
	}
	if response, err := onOther(); err != nil || response.Data["kid"] != first["kid"] {
		t.Fatalf("the other node answered %v, %v", response, err)
	}
	m.read("token")
	rotated := m.rotated()
	m.setJWKs("client-1", rotated["pending_public_jwk"])
	m.refusedWith(logical.UpdateOperation, "keys/main/activate", nil, "client-2")
	m.write("keys/main/activate", fields{"force": true})
	m.write("keys/main/retire", nil)
	m.passes(48)
	m.wantStates("main", "retired active")
	if response, err := onOther(); err != nil || response.Data["kid"] != first["kid"] {
		t.Errorf("at last the other node answered %v, %v", response, err)
	}
	if kid := m.signsWith("token/two"); kid != first["kid"] {
		t.Errorf("the active node mints with %v", kid)
	}
}

// Another token URL makes another client of each client ID. It is asked before anything is destroyed.
func TestRotationAfterTheTokenURLHasChanged(t *testing.T) {
	for _, change := range []fields{{"token_url": nil}, {"base_url": nil}} {
		m, first := twoClients(t)
		m.read("token")
		m.read("token/two")
		rotated := m.rotated()
		for _, clientID := range []string{"client-1", "client-2"} {
			m.setJWKs(clientID, first["public_jwk"], rotated["pending_public_jwk"])
		}
		m.write("keys/main/activate", nil)
		elsewhere, err := sandbox.Start(sandbox.Options{Now: m.clock.wall})
		if err != nil {
			t.Fatal(err)
		}
		set := []byte(`{"keys":[` + first["public_jwk"].(string) + `]}`)
		for _, clientID := range []string{"client-1", "client-2"} {
			elsewhere.CreateAPIKey(sandbox.APIKey{ID: clientID, Name: clientID, JWKSet: set})
		}
		for field := range change {
			change[field] = map[string]string{"token_url": elsewhere.TokenURL(), "base_url": elsewhere.URL}[field]
		}
		m.write("config", change)
		m.write("keys/main/retire", nil)
		m.passes(72)
		m.wantStates("main", "retired active")
		for _, path := range []string{"token", "token/two"} {
			if kid := m.signsWith(path); kid != first["kid"] {
				t.Errorf("%v: %s is minted with %v", change, path, kid)
			}
		}
		if err := elsewhere.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A role is made and used while a pass is under way: what is known of it stays, and nothing that it needs goes.
func TestRoleMadeDuringAPass(t *testing.T) {
	m, first := twoClients(t)
	rotated := m.rotated()
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.setJWKs("client-2", first["public_jwk"], rotated["pending_public_jwk"])
	m.write("keys/main/activate", nil)
	m.setJWKs("client-3", first["public_jwk"])
	m.clock.advance(25 * time.Hour)
	arrived, release := m.redox.HoldTokenRequests()
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		m.passNow()
	}()
	<-arrived
	m.write("roles/three", fields{"client_id": "client-3"})
	release()
	<-passed
	m.wantStates("main", "retired active")
	if kid := m.signsWith("token/three"); kid != first["kid"] {
		t.Errorf("it mints with %v", kid)
	}
	m.passes(3)
	m.restart()
	if client := m.clients("main")[2]; client["proof"] != "proven" || client["version"] != 1 {
		t.Errorf("it is shown as %v", client)
	}
	m.wantStates("main", "retired active")
}

// A client that was never asked, because its API key was disabled, goes on with the version that was active before.
func TestPromotionRecordsWhatSigns(t *testing.T) {
	m, first := twoClients(t)
	m.setJWKs("client-2")
	m.promoteFor("client-1")
	if client := m.clients("main")[1]; client["proof"] != "recorded" || client["version"] != 1 {
		t.Errorf("it is shown as %v", client)
	}
	m.restart()
	m.setJWKs("client-2", first["public_jwk"])
	if kid := m.write("assertion/two", nil)["kid"]; kid != first["kid"] {
		t.Errorf("its assertions are signed with %v", kid)
	}
}

// force promotes without a proof, and proves nothing: everybody is asked before the version before goes.
func TestForceProvesNothing(t *testing.T) {
	m, first := twoClients(t)
	m.read("token")
	m.read("token/two")
	m.passNow()
	rotated := m.rotated()
	m.write("keys/main/activate", fields{"force": true})
	m.passes(48)
	m.wantStates("main", "retired active")
	if kid := m.signsWith("token/two"); kid != first["kid"] {
		t.Errorf("client-2 mints with %v", kid)
	}
	for _, clientID := range []string{"client-1", "client-2"} {
		m.setJWKs(clientID, first["public_jwk"], rotated["pending_public_jwk"])
	}
	m.passes(24)
	m.wantStates("main", "destroyed active")
}

// A mistyped role, or a disabled one, does not hold up a healthy role with the same client ID, whatever their names are.
func TestMistypedRoleOfAHealthyClient(t *testing.T) {
	for _, healthy := range []string{"a", "z"} {
		t.Run(healthy, func(t *testing.T) {
			m := newReadyMount(t)
			m.write("config", fields{"client_id": nil})
			first := m.read("keys/main")
			m.write("roles/"+healthy, fields{"client_id": "client-1"})
			m.write("roles/m", fields{"client_id": "client-1", "jku": "https://mistyped.example/jwks"})
			m.write("roles/n", fields{"client_id": "client-1", "scope": "other", "disabled": true})
			rotated := m.rotated()
			m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
			m.passes(1)
			m.wantStates("main", "retired active")
			m.passes(48)
			m.wantStates("main", "destroyed active")
		})
	}
}

// What is stored of the clients is unreadable, or can't be stored: an emergency goes on, and what is known is learned anew.
func TestEmergencyWithUnreadableClients(t *testing.T) {
	const entry = clientsStoragePrefix + "main"
	for name, broken := range map[string]func(*mount){
		"unreadable":            func(m *mount) { m.plant(entry, "not JSON") },
		"unreadable, as before": func(m *mount) { m.plant(formerClientsPrefix+"main", "not JSON") },
		"full": func(m *mount) {
			m.storage.onEach(func(operation, key string) error {
				if operation == "put" && key == entry {
					return fmt.Errorf("the entry is too large")
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, first := twoClients(t)
			m.rotated()
			broken(m)
			m.write("keys/main/abandon", fields{"force": true})
			rotated := m.rotated()
			m.write("keys/main/activate", fields{"force": true})
			m.write("keys/main/retire", fields{"version": 1, "destroy_now": true})
			m.wantStates("main", "destroyed destroyed active")
			m.setJWKs("client-1", rotated["pending_public_jwk"])
			if kid := m.signsWith("token"); kid == first["kid"] {
				t.Error("the compromised version signs")
			}
			m.storage.onEach(nil)
			m.passNow()
			m.restart()
			if client := m.clients("main")[0]; client["proof"] != "proven" || client["version"] != 3 {
				t.Errorf("client-1 is shown as %v", client)
			}
		})
	}
}

// A canceled activate says nothing of the clients that were not asked any more.
func TestCanceledActivateNotesNothing(t *testing.T) {
	m, _ := twoClients(t)
	m.rotated()
	arrived, release := m.redox.HoldTokenRequests()
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := m.requestContext(ctx, logical.UpdateOperation, "keys/main/activate", nil)
		done <- err
	}()
	<-arrived
	cancel()
	if err := <-done; err == nil {
		t.Error("a canceled activate has succeeded")
	}
	for _, client := range m.clients("main") {
		if client["last_answer"] != nil || client["proof"] != "none" {
			t.Errorf("a client is shown as %v", client)
		}
	}
}

// A public_jwks_url that hangs is waited for once per pass, not once per client.
func TestHungJWKSURLIsWaitedForOnce(t *testing.T) {
	m, _ := twoClients(t)
	var looks atomic.Int32
	hung := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		looks.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer hung.Close()
	m.write("keys/main", fields{"registration": "jwks_url", "public_jwks_url": hung.URL})
	m.rotated()
	if n := m.requestsDuring(m.passNow); n != 0 || looks.Load() != 1 {
		t.Errorf("the URL was asked %d times, Redox %d times", looks.Load(), n)
	}
	for _, client := range m.clients("main") {
		if rejected, _ := client["rejected_versions"].([]int); len(rejected) > 0 || client["last_outcome"] != nil {
			t.Errorf("that counts as an answer: %v", client)
		}
	}
	if next, _ := m.read("keys/main")["next_step"].(string); !strings.Contains(next, "public_jwks_url") {
		t.Errorf("the next step is %q", next)
	}
	if status, err := m.failed(logical.UpdateOperation, "keys/main/activate", nil); status != http.StatusBadGateway {
		t.Errorf("activate answered %d, %v", status, err)
	}
}

// A clock that was ahead for a while stops neither the end of a grace period nor a probe.
func TestClockThatWasAhead(t *testing.T) {
	m, first := twoClients(t)
	rotated := m.rotated()
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.setJWKs("client-2", first["public_jwk"], rotated["pending_public_jwk"])
	const year = 365 * 24 * time.Hour
	m.clock.setWall(m.clock.wall().Add(year))
	m.write("keys/main/activate", nil)
	m.clock.setWall(m.clock.wall().Add(-year))
	m.passes(25)
	m.wantStates("main", "destroyed active")
}

// A disabled role holds no promotion up, and is asked about only before its key is destroyed, ever less often.
func TestDisabledRoleIsLeftAlone(t *testing.T) {
	m, first := twoClients(t)
	m.write("roles/two", fields{"disabled": true})
	m.read("token")
	rotated := m.rotated()
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.setJWKs("client-2")
	m.passes(1)
	m.wantStates("main", "retired active")
	m.passes(48)
	m.wantStates("main", "retired active")
	day := func() {
		for range 24 * 60 {
			m.clock.advance(time.Minute)
			m.passNow()
		}
	}
	day()
	if n := m.requestsDuring(day); n > 2*2 {
		t.Errorf("in a day Redox was asked %d times about a disabled role", n)
	}
	m.setJWKs("client-2", rotated["pending_public_jwk"])
	m.write("keys/main/retire", nil)
	m.wantStates("main", "destroyed active")
}

// activate speaks of the clients that are configured now.
func TestActivateAfterARoleIsDeleted(t *testing.T) {
	m, first := twoClients(t)
	m.read("token/two")
	m.passNow()
	rotated := m.rotated()
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.passNow()
	m.remove("roles/two")
	m.write("keys/main/activate", nil)
	m.wantStates("main", "retired active")
	m.passes(23)
	m.write("keys/main/retire", nil)
	m.wantStates("main", "retired active") // it may come back
	if next, _ := m.read("keys/main")["next_step"].(string); !strings.Contains(next, "left the configuration") {
		t.Errorf("the next step is %q", next)
	}
	m.passes(1)
	m.wantStates("main", "destroyed active")
}

// A mint with the version before that ends late does not undo the proof of the new one.
func TestLateMintUndoesNoProof(t *testing.T) {
	m := newReadyMount(t)
	first := m.read("keys/main")
	rotated := m.rotated()
	arrived, release := m.redox.HoldTokenRequests()
	reader, _ := m.readInBackground(t.Context(), logical.ReadOperation, "token")
	<-arrived
	m.keys.observe(must(m.store.key(t.Context(), "main")), rotation.Client{ClientID: "client-1", TokenURL: m.redox.TokenURL()},
		heardOf{1: {at: m.clock.now().Add(time.Second)}, 2: {taken: true, at: m.clock.now().Add(time.Second)}})
	release()
	if kid := reader.answer(t)["kid"]; kid != first["kid"] {
		t.Fatalf("the late mint was with %v", kid)
	}
	if kid := m.write("assertion", nil)["kid"]; kid != rotated["pending_kid"] {
		t.Errorf("after the late mint %v signs", kid)
	}
}

// While the server is down, activate says so, and does not advise force.
func TestActivateWhileTheServerIsDown(t *testing.T) {
	m, _ := twoClients(t)
	m.write("config", fields{"max_retries": 0})
	m.rotated()
	for status, want := range map[int]int{http.StatusServiceUnavailable: http.StatusBadGateway, http.StatusTooManyRequests: http.StatusBadGateway} {
		m.redox.SetFaults(sandbox.Faults{Status: status})
		if got, err := m.failed(logical.UpdateOperation, "keys/main/activate", nil); got != want || strings.Contains(err.Error(), "force") {
			t.Errorf("with %d from the server activate answered %d, %v", status, got, err)
		}
	}
	m.redox.SetFaults(sandbox.Faults{})
	if next, _ := m.read("keys/main")["next_step"].(string); strings.Contains(next, "force") {
		t.Errorf("the next step is %q", next)
	}
}

// The same key is imported, abandoned and imported again.
func TestImportAfterAbandon(t *testing.T) {
	for _, force := range []bool{false, true} {
		m := newReadyMount(t)
		first := m.read("keys/main")["public_jwk"]
		text := pkcs8Text(outsideEC())
		imported := m.write("keys/main/import", fields{privateKeyField: text, "kid": "brought"})
		m.setJWKs("client-1")
		m.write("keys/main/abandon", fields{"force": force}) // Redox takes nothing from the client: it can't be seen that nobody needs it
		m.write("keys/main/import", fields{privateKeyField: text, "kid": "brought"})
		want := "active pending"
		if force {
			want = "active destroyed pending"
		}
		m.wantStates("main", want)
		m.refusedWith(logical.UpdateOperation, "keys/main/import", fields{privateKeyField: text, "kid": "brought"}, "pending")
		m.setJWKs("client-1", first, imported["pending_public_jwk"])
		m.write("keys/main/activate", nil)
		if kid := m.signsWith("token"); kid != "brought" {
			t.Errorf("%v signs", kid)
		}
	}
}

// Results of work for a key that was deleted meanwhile say nothing of a new key of that name.
func TestLateResultsForADeletedKey(t *testing.T) {
	m := newReadyMount(t)
	m.write("keys/own", fields{"algorithm": algorithmES384, "deletion_allowed": true})
	m.register("client-9", "own")
	m.write("roles/own", fields{"client_id": "client-9", "key": "own"})
	arrived, release := m.redox.HoldTokenRequests()
	reader, _ := m.readInBackground(t.Context(), logical.ReadOperation, "token/own")
	<-arrived
	m.write("roles/own", fields{"key": "main"})
	m.remove("keys/own")
	m.clock.advance(time.Second)
	m.write("keys/own", fields{"algorithm": algorithmES384})
	m.write("roles/own", fields{"key": "own"})
	release()
	<-reader.done
	m.minter.tokens.Wait()
	m.passNow()
	m.restart()
	if client := m.clients("own")[0]; client["proof"] != "none" {
		t.Errorf("of the new key of that name the client is shown as %v", client)
	}
}

// A server has words of its own for what it does not take. Each mint finds the version that it takes all the same.
func TestServerWithOtherWords(t *testing.T) {
	for _, words := range []redox.Error{
		{Code: "invalid_client", Description: "Client authentication failed", StatusCode: http.StatusUnauthorized},
		{Code: "invalid_client", StatusCode: http.StatusBadRequest},
		{StatusCode: http.StatusForbidden},
	} {
		m := newReadyMount(t)
		m.inOtherWords(words)
		first := m.read("keys/main")
		m.read("token")
		rotated := m.rotated()
		m.setJWKs("client-1", rotated["pending_public_jwk"])
		if kid := m.signsWith("token"); kid != rotated["pending_kid"] {
			t.Errorf("%v: after the JWK was replaced %v signs", words, kid)
		}
		m.passNow()
		m.wantStates("main", "retired active")
		m.setJWKs("client-1", first["public_jwk"])
		if kid := m.signsWith("token"); kid != first["kid"] {
			t.Errorf("%v: after the JWK was put back %v signs", words, kid)
		}
	}
}

// inOtherWords makes Redox reject in other words.
func (m *mount) inOtherWords(words redox.Error) {
	ask := m.minter.requestToken
	m.minter.requestToken = func(ctx context.Context, c *roleConfig, request redox.TokenRequest) (*redox.Token, error) {
		answer, err := ask(ctx, c, request)
		if isRejection(err) {
			other := words
			other.Kind, other.Cause = redox.Rejected, "the server rejects it"
			err = &other
		}
		return answer, err
	}
}

// TestNextStepOfEachStop: whatever a rotation waits for, next_step says how to go on, and the command that it names works.
func TestNextStepOfEachStop(t *testing.T) {
	for name, c := range map[string]struct {
		stop func(*mount)
		says []string
		do   func(*mount)
		then string // states
	}{
		"broken client, before the promotion": {
			func(m *mount) { m.setJWKs("client-1"); m.setJWKs("client-2"); m.rotated(); m.passNow() },
			[]string{"client-1", "takes no version", "force=true"},
			func(m *mount) { m.write("keys/main/activate", fields{"force": true}) }, "retired active"},
		"nobody is enabled": {
			func(m *mount) {
				m.write("config", fields{"client_id": nil})
				m.write("roles/two", fields{"disabled": true})
				m.rotated()
			},
			[]string{"No client ID that is enabled", "force=true"},
			func(m *mount) { m.write("keys/main/activate", fields{"force": true}) }, "retired active"},
		"broken client, before the destruction": {
			func(m *mount) { m.promoteFor("client-1"); m.setJWKs("client-2"); m.passes(25) },
			[]string{"Version 1 is kept", "client-2", "delete the role", "keys/main/retire version=1 force=true"},
			func(m *mount) { m.write("keys/main/retire", fields{"version": 1, "force": true}) }, "destroyed active"},
		"disabled and not registered": {
			func(m *mount) {
				m.write("roles/two", fields{"disabled": true})
				m.promoteFor("client-1")
				m.setJWKs("client-2")
				m.passes(25)
				m.remove("roles/two")
				m.passes(24)
			},
			[]string{""}, func(*mount) {}, "destroyed active"},
		"unreadable role": {
			func(m *mount) { m.promoteFor("client-1", "client-2"); m.plant("roles/bad", "not JSON"); m.passes(25) },
			[]string{"roles/bad", "force=true", "keys/main/retire version=1 force=true"},
			func(m *mount) { m.write("keys/main/retire", fields{"version": 1, "force": true}) }, "destroyed active"},
		"unreadable config": {
			func(m *mount) { m.promoteFor("client-1", "client-2"); m.plant("config", "not JSON"); m.passes(25) },
			[]string{"config", "force=true"},
			func(m *mount) { m.write("keys/main/retire", fields{"version": 1, "force": true}) }, "destroyed active"},
		"no client": {
			func(m *mount) {
				m.promoteFor("client-1", "client-2")
				m.remove("roles/two")
				m.write("config", fields{"client_id": nil})
				m.passes(49)
			},
			[]string{"no client ID uses the key", "keys/main/retire version=1 force=true"},
			func(m *mount) { m.write("keys/main/retire", fields{"version": 1, "force": true}) }, "destroyed active"},
		"server out of reach, before the promotion": {
			func(m *mount) {
				m.rotated()
				m.write("config", fields{"max_retries": 0})
				m.redox.SetFaults(sandbox.Faults{Status: http.StatusServiceUnavailable})
				m.passes(49)
				m.redox.SetFaults(sandbox.Faults{Status: http.StatusServiceUnavailable})
			},
			[]string{"force=true"},
			func(m *mount) { m.write("keys/main/activate", fields{"force": true}) }, "retired active"},
		"server out of reach, before the destruction": {
			func(m *mount) {
				m.promoteFor("client-1", "client-2")
				m.write("config", fields{"max_retries": 0})
				m.redox.SetFaults(sandbox.Faults{Status: http.StatusServiceUnavailable})
				m.passes(25)
			},
			[]string{"gives no answer", "keys/main/retire version=1 force=true"},
			func(m *mount) { m.write("keys/main/retire", fields{"version": 1, "force": true}) }, "destroyed active"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := twoClients(t)
			c.stop(m)
			next, _ := m.read("keys/main")["next_step"].(string)
			for _, part := range c.says {
				if !strings.Contains(next, part) || part == "" && next != "" {
					t.Errorf("the next step is %q, which does not say %q", next, part)
				}
			}
			c.do(m)
			m.wantStates("main", c.then)
		})
	}
}

// promoteFor rotates key "main", and lets Redox know the new version beside the old one for some clients. The others are
// broken until it is promoted.
func (m *mount) promoteFor(clientIDs ...string) {
	m.t.Helper()
	first, rotated := m.read("keys/main"), m.rotated()
	for _, clientID := range []string{"client-1", "client-2"} {
		if slices.Contains(clientIDs, clientID) {
			m.setJWKs(clientID, first["public_jwk"], rotated["pending_public_jwk"])
		} else {
			m.setJWKs(clientID)
		}
	}
	m.write("keys/main/activate", nil)
	m.wantStates("main", "retired active")
}
