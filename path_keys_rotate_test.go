// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/jwk"
	"vault-plugin-secrets-redox/internal/sandbox"
)

// setJWKs makes the local Redox hold exactly the given public JWKs at an API key.
func (m *mount) setJWKs(clientID string, jwks ...any) {
	m.t.Helper()
	set := map[string]any{"keys": []json.RawMessage{}}
	for _, jwk := range jwks {
		text, _ := jwk.(string)
		set["keys"] = append(set["keys"].([]json.RawMessage), json.RawMessage(text))
	}
	encoded, err := json.Marshal(set)
	if err != nil {
		m.t.Fatal(err)
	}
	if _, known := m.redox.APIKey(clientID); !known {
		m.redox.CreateAPIKey(sandbox.APIKey{ID: clientID, Name: clientID, JWKSet: encoded})
	} else if err := m.redox.SetJWKSet(clientID, encoded); err != nil {
		m.t.Fatal(err)
	}
}

// states gives the states of a key's versions, oldest first.
func (m *mount) states(key string) string {
	m.t.Helper()
	versions := m.versions(key)
	states := make([]string, len(versions))
	for number, v := range versions {
		states[number[0]-'1'], _ = v.(map[string]any)["state"].(string)
	}
	return strings.Join(states, " ")
}

func (m *mount) wantStates(key, want string) {
	m.t.Helper()
	if got := m.states(key); got != want {
		m.t.Errorf("the versions of %s are %s, not %s", key, got, want)
	}
}

// signsWith mints a fresh token and says which version's kid signed for it.
func (m *mount) signsWith(path string) any {
	m.t.Helper()
	m.clock.advance(3 * time.Second)
	return m.write(path, nil)["kid"]
}

func (m *mount) passNow() {
	m.maintainer.rests.byAt = nil // or what is registered would not be looked at
	m.maintainer.pass(context.Background())
}

// TestRotation is a rotation as it should be: the new version is registered beside the old one, proved, promoted, and
// the old one goes when its grace is over. Every read in between gets a token.
func TestRotation(t *testing.T) {
	m := newReadyMount(t)
	first := m.read("keys/main")
	m.read("token")
	m.passNow()

	rotated := m.write("keys/main/rotate", nil)
	if rotated["kid"] != first["kid"] || rotated["pending_kid"] == "" || rotated["pending_kid"] == first["kid"] {
		t.Fatalf("rotate answered kid %v, pending %v", rotated["kid"], rotated["pending_kid"])
	}
	if next, _ := rotated["next_step"].(string); !strings.Contains(next, "pending_public_jwk") {
		t.Errorf("next step: %q", next)
	}
	published := []string{first["kid"].(string), rotated["pending_kid"].(string)}
	slices.Sort(published)
	m.wantKids("jwks/main", published...)
	m.wantStates("main", "active pending")

	// Redox does not know it yet: nothing changes, and who waits is told.
	m.passNow()
	m.refusedWith(logical.UpdateOperation, "keys/main/activate", nil, "client-1", "Public key not found", "pending_public_jwk")
	client := m.clients("main")[0]
	if client["client_id"] != "client-1" || client["version"] != 1 || client["proof"] != "proven" || client["kid"] != first["kid"] ||
		!reflect.DeepEqual(client["rejected_versions"], []int{2}) || client["last_outcome"] != "rejected" || client["last_answer"] == "" {
		t.Errorf("the client is shown as %v", client)
	}
	blocked := []string{"client-1: Redox found no public key for this client_id and kid"}
	if got := m.read("keys/main")["blocked_by"]; !reflect.DeepEqual(got, blocked) {
		t.Errorf("blocked by %v", got)
	}
	if kid := m.signsWith("token"); kid != first["kid"] {
		t.Errorf("%v signs before Redox knows it", kid)
	}

	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	activated := m.write("keys/main/activate", nil)
	if activated["kid"] != rotated["pending_kid"] || activated["pending_kid"] != "" || activated["next_step"] != "" {
		t.Errorf("activate answered kid %v, pending %v, next %v", activated["kid"], activated["pending_kid"], activated["next_step"])
	}
	m.wantStates("main", "retired active")
	if kid := m.signsWith("token"); kid != activated["kid"] {
		t.Errorf("%v signs after the promotion", kid)
	}

	m.clock.advance(24*time.Hour - time.Minute)
	m.passNow()
	m.wantStates("main", "retired active")
	m.clock.advance(time.Minute)
	m.passNow()
	m.wantStates("main", "destroyed active")
	m.wantKids("jwks/main", activated["kid"].(string))
	m.setJWKs("client-1", activated["public_jwk"])
	if kid := m.signsWith("token"); kid != activated["kid"] {
		t.Errorf("%v signs at last", kid)
	}
	for _, words := range []string{"from=pending to=active", "from=active to=retired", "from=retired to=destroyed"} {
		if !strings.Contains(m.log.String(), words) {
			t.Errorf("the log has no %q", words)
		}
	}
}

// TestPeriodicProof promotes without anybody calling activate, and asks Redox ever less often until then.
func TestPeriodicProof(t *testing.T) {
	m := newReadyMount(t)
	m.read("token")
	m.passNow()
	first, rotated := m.read("keys/main"), m.write("keys/main/rotate", nil)
	before := m.redox.Counters().Token.Requests
	for range 60 { // an hour of Vault's calls
		m.passNow()
		m.clock.advance(time.Minute)
	}
	// After 0, 1, 3, 7, 15, 30 and 45 minutes; each time the version before is tried, too, to tell what is rejected.
	if tried := m.redox.Counters().Token.Requests - before; tried != 2*7 {
		t.Errorf("tried %d times in an hour", tried)
	}
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.clock.advance(15 * time.Minute)
	m.passNow()
	m.wantStates("main", "retired active")
	m.restart()
	m.wantStates("main", "retired active")
}

// TestReplacingTheJWKIsHarmless replaces the JWK at Redox instead of adding the new one, and takes that back again.
// Each mint finds the version that Redox knows.
func TestReplacingTheJWKIsHarmless(t *testing.T) {
	m := newReadyMount(t)
	first := m.read("keys/main")
	m.read("token")
	m.passNow()
	rotated := m.write("keys/main/rotate", nil)

	m.setJWKs("client-1", rotated["pending_public_jwk"])
	if kid := m.signsWith("token"); kid != rotated["pending_kid"] {
		t.Errorf("%v signs after the JWK was replaced", kid)
	}
	m.passNow()
	m.wantStates("main", "retired active")

	m.setJWKs("client-1", first["public_jwk"])
	m.clock.advance(3 * time.Second)
	response, err := m.request(logical.UpdateOperation, "token", nil)
	if err != nil || response.Data["kid"] != first["kid"] {
		t.Fatalf("after the JWK was put back: %v %v", response, err)
	}
	if len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "keys/main") {
		t.Errorf("warnings: %q", response.Warnings)
	}
	m.passNow()
	response, err = m.request(logical.UpdateOperation, "keys/main/retire", nil)
	if err != nil || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "client-1") {
		t.Fatalf("retire of what is needed: %v %v", response, err)
	}
	if next, _ := m.read("keys/main")["next_step"].(string); !strings.Contains(next, "Register public_jwk") {
		t.Errorf("next step: %q", next)
	}
	// The retired version stays as long as it is needed.
	for range 3 {
		m.clock.advance(20 * time.Hour)
		m.passNow()
		m.read("token")
	}
	m.wantStates("main", "retired active")
	// The engine notices when the new one is there again.
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.clock.advance(24 * time.Hour)
	m.passNow()
	m.wantStates("main", "destroyed active")
	if kid := m.signsWith("token"); kid != rotated["pending_kid"] {
		t.Errorf("%v signs once both are there", kid)
	}
}

// TestEveryUserHasToAccept lets two API keys share a key: the promotion waits for both, each signs with what it has.
func TestEveryUserHasToAccept(t *testing.T) {
	m := newReadyMount(t)
	m.register("client-2", "main")
	m.write("roles/two", map[string]any{"client_id": "client-2"})
	m.write("roles/mistyped", map[string]any{"client_id": "client-3"}) // Redox knows no such client: it holds no promotion up
	first := m.read("keys/main")
	m.read("token")
	m.read("token/two")
	m.passNow()
	rotated := m.write("keys/main/rotate", nil)
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.refusedWith(logical.UpdateOperation, "keys/main/activate", nil, "client-2", "Public key not found")
	m.wantStates("main", "active pending")
	for path, want := range map[string]any{"token": rotated["pending_kid"], "token/two": first["kid"]} {
		if kid := m.signsWith(path); kid != want {
			t.Errorf("%v signs for %s", kid, path)
		}
	}
	m.setJWKs("client-2", first["public_jwk"], rotated["pending_public_jwk"])
	m.write("keys/main/activate", nil)
	m.wantStates("main", "retired active")
}

// A mint that hangs at Redox may last longer than a rotation that replaces the JWK there. It goes on with the new version.
func TestMintGoesOnWithAVersionMadeMeanwhile(t *testing.T) {
	for name, meanwhile := range map[string]func(*mount){
		"pending": func(*mount) {},
		"active":  func(m *mount) { m.write("keys/main/activate", fields{"force": true}) },
		"active, and the one before is destroyed": func(m *mount) {
			m.write("keys/main/activate", fields{"force": true})
			m.write("keys/main/retire", fields{"destroy_now": true, "version": 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newReadyMount(t)
			arrived, release := m.redox.HoldTokenRequests()
			reader, _ := m.readInBackground(t.Context(), logical.ReadOperation, "token")
			<-arrived
			rotated := m.write("keys/main/rotate", nil)
			m.setJWKs("client-1", rotated["pending_public_jwk"])
			meanwhile(m)
			release()
			if kid := reader.answer(t)["kid"]; kid != rotated["pending_kid"] {
				t.Errorf("kid %v signed, not %v", kid, rotated["pending_kid"])
			}
		})
	}
}

// When Redox does not answer for one client ID, the others are not waited for one after the other.
func TestTrialsStopWhenRedoxIsSilent(t *testing.T) {
	m := newReadyMount(t)
	for _, clientID := range []string{"client-2", "client-3"} {
		m.register(clientID, "main")
		m.write("roles/"+clientID, map[string]any{"client_id": clientID})
	}
	m.write("keys/main/rotate", nil)
	var requests atomic.Int32
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		requests.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer silent.Close()
	m.write("config", map[string]any{"token_url": silent.URL, "audience": m.redox.URL, "max_retries": 0})
	if status, err := m.failed(logical.UpdateOperation, "keys/main/activate", nil); status != http.StatusBadGateway ||
		strings.Contains(err.Error(), "force") || !strings.Contains(err.Error(), "3 of 3") {
		t.Errorf("activate answered %d, %v", status, err)
	}
	if got := requests.Load(); got != 1 {
		t.Errorf("Redox, which does not answer, was asked %d times", got)
	}
	m.wantStates("main", "active pending")
}

// TestUserThatIsGone holds no promotion up.
func TestUserThatIsGone(t *testing.T) {
	m := newReadyMount(t)
	m.register("client-2", "main")
	m.write("roles/two", map[string]any{"client_id": "client-2"})
	first := m.read("keys/main")
	m.read("token")
	m.read("token/two")
	m.passNow()
	rotated := m.write("keys/main/rotate", nil)
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.passNow()
	m.wantStates("main", "active pending")
	m.remove("roles/two")
	m.clock.advance(15 * time.Minute)
	m.passNow()
	m.wantStates("main", "retired active")
}

// TestForcedActivation is for a Vault that only hands out assertions. Where the force was wrong, mints go on.
// Readers that Redox rejected are served at once when a version that Redox knows has become active.
func TestActivationEndsRememberedFailures(t *testing.T) {
	m := newReadyMount(t)
	m.write("keys/main/rotate", nil)
	m.setJWKs("client-1")
	m.refused(logical.ReadOperation, "token", nil)
	m.setJWKs("client-1", m.read("keys/main")["pending_public_jwk"])
	m.refused(logical.ReadOperation, "token", nil) // remembered
	m.write("keys/main/activate", nil)
	m.read("token")
}

// What Redox had accepted and rejects now was taken away there, or this Vault was restored: the key says so.
func TestNextStepAfterARejectionOfWhatWasAccepted(t *testing.T) {
	m := newReadyMount(t)
	m.read("token")
	if next := m.read("keys/main")["next_step"]; next != "" {
		t.Errorf("while all is well, the next step is %q", next)
	}
	m.setJWKs("client-1")
	m.clock.advance(time.Hour)
	m.refused(logical.ReadOperation, "token", nil)
	next, _ := m.read("keys/main")["next_step"].(string)
	for _, part := range []string{"client-1", "taken away", "restored", "keys/main/rotate"} {
		if !strings.Contains(next, part) {
			t.Errorf("the next step is %q, which does not say %q", next, part)
		}
	}
}

func TestForcedActivation(t *testing.T) {
	m := newReadyMount(t)
	first := m.read("keys/main")
	m.read("token")
	m.passNow()
	rotated := m.write("keys/main/rotate", nil)
	response, err := m.request(logical.UpdateOperation, "keys/main/activate", map[string]any{"force": true})
	if err != nil || len(response.Warnings) != 1 || response.Data["kid"] != rotated["pending_kid"] {
		t.Fatalf("forced: %v %v", response, err)
	}
	versions := m.versions("main")
	if second, _ := versions["2"].(map[string]any); second["forced"] != true {
		t.Error("it is not recorded as forced")
	}
	if client := m.clients("main")[0]; client["version"] != 2 || client["proof"] != "recorded" {
		t.Errorf("the client is shown as %v", client)
	}
	if kid := m.write("assertion", nil)["kid"]; kid != rotated["pending_kid"] {
		t.Errorf("%v signs assertions", kid)
	}
	if kid := m.signsWith("token"); kid != first["kid"] {
		t.Errorf("%v signs for tokens, which Redox does not know yet", kid)
	}
}

// TestCompromisedKey follows the run book, and then goes against it.
func TestCompromisedKey(t *testing.T) {
	m := newReadyMount(t)
	first := m.read("keys/main")
	m.read("token")
	m.passNow()
	rotated := m.write("keys/main/rotate", nil)
	m.refusedWith(logical.UpdateOperation, "keys/main/retire", map[string]any{"version": 1}, "version", "not retired", "destroy_now")
	m.refusedWith(logical.UpdateOperation, "keys/main/retire", map[string]any{"destroy_now": true}, "version")
	m.setJWKs("client-1", first["public_jwk"], rotated["pending_public_jwk"])
	m.write("keys/main/activate", nil)
	m.setJWKs("client-1", rotated["pending_public_jwk"])
	m.write("keys/main/retire", map[string]any{"version": 1, "destroy_now": true})
	versions := m.versions("main")
	if old, _ := versions["1"].(map[string]any); old["state"] != "destroyed" || old["compromised"] != true || old["kid"] != first["kid"] {
		t.Errorf("the compromised version is shown as %v", old)
	}
	if strings.Contains(m.storage.snapshot()["keys/main"], privateBytes(t, m, "keys/main", 0)) {
		t.Error("the private key is still stored")
	}
	if kid := m.signsWith("token"); kid != rotated["pending_kid"] {
		t.Errorf("%v signs", kid)
	}
	m.refusedWith(logical.UpdateOperation, "keys/main/retire", map[string]any{"version": 1, "destroy_now": true}, "version 1 was destroyed on 2026-", "vault list -detailed redox/keys/main/versions")

	// The last one, too: then there is nothing to sign with, and the next rotation is active at once.
	m.write("keys/main/retire", map[string]any{"version": 2, "destroy_now": true})
	m.clock.advance(3 * time.Second)
	m.refusedWith(logical.UpdateOperation, "token", nil, "key", "keys/main/rotate")
	m.refusedWith(logical.ReadOperation, "token", nil, "keys/main/rotate") // the cached token is gone, too
	m.write("keys/main/rotate", nil)
	m.wantStates("main", "destroyed destroyed active")
}

// privateBytes gives what the first write of a key stored as a version's private key.
func privateBytes(t *testing.T, m *mount, key string, version int) string {
	t.Helper()
	for _, entry := range m.storage.written() {
		if entry.Key == key {
			var stored struct {
				Versions []struct {
					PrivateKey string `json:"private_key"`
				}
			}
			if err := json.Unmarshal(entry.Value, &stored); err != nil || stored.Versions[version].PrivateKey == "" {
				t.Fatalf("%s was stored without a private key: %v", key, err)
			}
			return stored.Versions[version].PrivateKey
		}
	}
	t.Fatalf("%s was never stored", key)
	return ""
}

func TestRotateRefusals(t *testing.T) {
	m := newReadyMount(t)
	for path, want := range map[string][]string{
		"keys/none/rotate": {"name", "none", "create it"}, "keys/none/activate": {"name"}, "keys/none/retire": {"name"},
		"keys/none/abandon": {"name"}, "keys/none/register": {"name"},
		"keys/main/abandon": {"no pending version"},
		"keys/main/retire":  {"not retired"}, "keys/main/register": {"registration", "manual"},
	} {
		m.refusedWith(logical.UpdateOperation, path, nil, want...)
	}
	response, err := m.request(logical.UpdateOperation, "keys/main/activate", nil)
	if err != nil || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "version 1 is active") {
		t.Errorf("activate without a pending version: %v %v", response, err)
	}
	m.refusedWith(logical.UpdateOperation, "keys/main/rotate", map[string]any{"algorithm": "RS256"}, "algorithm", "RS384 or ES384")
	m.refusedWith(logical.UpdateOperation, "keys/main/rotate", map[string]any{"rsa_bits": 2048}, "rsa_bits", "RS384")
	m.refusedWith(logical.UpdateOperation, "keys/main/rotate", map[string]any{"algorithm": "RS384", "rsa_bits": 1024}, "rsa_bits")
	kid := m.read("keys/main")["kid"]
	m.refusedWith(logical.UpdateOperation, "keys/main/rotate", map[string]any{"kid": kid}, "kid", "main")
	m.refusedWith(logical.UpdateOperation, "keys/main/retire", map[string]any{"version": 7}, "version", "no such version")
	m.write("keys/main/rotate", nil)
	m.refusedWith(logical.UpdateOperation, "keys/main/rotate", nil, "pending version", "activate", "abandon")
	m.write("keys/main/abandon", nil)
	m.wantStates("main", "active destroyed")
}

// TestRotateChangesTheAlgorithm goes from one kind of key to the other and back.
func TestRotateChangesTheAlgorithm(t *testing.T) {
	m := newReadyMount(t)
	m.read("token")
	for _, algorithm := range []string{"RS384", "ES384"} {
		before := m.read("keys/main")
		rotated := m.write("keys/main/rotate", map[string]any{"algorithm": algorithm, "kid": "kid-" + algorithm})
		m.setJWKs("client-1", before["public_jwk"], rotated["pending_public_jwk"])
		after := m.write("keys/main/activate", nil)
		if after["algorithm"] != algorithm || m.signsWith("token") != "kid-"+algorithm {
			t.Errorf("the key is %v with kid %v", after["algorithm"], after["kid"])
		}
	}
}

// TestProofDoesNotDiscardItsOwnMint: the token minted with the pending version is the one that is shared from then on.
func TestProofDoesNotDiscardItsOwnMint(t *testing.T) {
	m := newReadyMount(t)
	m.read("token")
	m.passNow()
	rotated := m.write("keys/main/rotate", nil)
	m.setJWKs("client-1", rotated["pending_public_jwk"])
	m.clock.advance(3 * time.Second)
	token := m.write("token", nil)["access_token"]
	m.passNow()
	m.wantStates("main", "retired active")
	requests := m.redox.Counters().Token.Requests
	if m.read("token")["access_token"] != token || m.redox.Counters().Token.Requests != requests {
		t.Error("the promotion threw the token away")
	}
}

// TestRolesAreReadWhenNeeded: with thousands of roles, reading all of them every minute would be felt. They are read when
// something waits for clients, and then only those that have changed.
func TestRolesAreReadWhenNeeded(t *testing.T) {
	m := newReadyMount(t)
	for _, name := range []string{"a", "b", "c"} {
		m.write("roles/"+name, map[string]any{"scope": name})
	}
	reads := 0
	m.storage.onEach(func(operation, key string) error {
		if strings.HasPrefix(key, rolesStoragePrefix) {
			reads++
		}
		return nil
	})
	defer m.storage.onEach(nil)
	want := func(when string, want int) {
		t.Helper()
		reads = 0
		m.passNow()
		if reads != want {
			t.Errorf("%s, roles are read %d times", when, reads)
		}
	}
	m.passNow()
	m.restart()
	want("settled", 0)
	rotated := m.write("keys/main/rotate", nil)
	want("with a new version, after the answer has found the clients", 0)
	m.write("roles/b", map[string]any{"scope": "d"})
	m.clock.advance(time.Minute)
	want("when one has changed", 2) // the list, and the one
	m.setJWKs("client-1", rotated["pending_public_jwk"])
	m.clock.advance(15 * time.Minute)
	want("with a probe due", 0)
	m.wantStates("main", "retired active")
	m.clock.advance(24 * time.Hour)
	want("after the grace period", 0)
	m.wantStates("main", "destroyed active")
}

// TestLearnedIsKeptUntilItIsStored: what a mint has learned is not lost when storage fails at that moment.
func TestLearnedIsKeptUntilItIsStored(t *testing.T) {
	m := newReadyMount(t)
	m.read("token")
	m.storage.onEach(func(operation, key string) error {
		if operation == "put" {
			return errInjected
		}
		return nil
	})
	m.passNow()
	if !strings.Contains(m.log.String(), errInjected.Error()) {
		t.Error("the failure is not logged")
	}
	m.storage.onEach(nil)
	m.passNow()
	m.restart() // what was only in memory is gone
	if clients := m.clients("main"); len(clients) != 1 || clients[0]["proof"] != "proven" {
		t.Errorf("the clients are %v", clients)
	}
}

// TestAutomaticRotation makes versions when their time has come, and none while one is pending.
func TestAutomaticRotation(t *testing.T) {
	for name, c := range map[string]struct {
		settings map[string]any
		about    time.Duration // when the next rotation is, at the earliest
	}{
		"period":   {map[string]any{"rotation_period": "720h"}, 720 * time.Hour},
		"schedule": {map[string]any{"rotation_schedule": "0 3 1 * *"}, 29*24*time.Hour + 23*time.Hour + 55*time.Minute + 55*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			m := newReadyMount(t)
			m.read("token")
			m.passNow()
			start := m.clock.wall()
			next, _ := m.write("keys/main", c.settings)["next_rotation_time"].(string)
			at, err := time.Parse(time.RFC3339, next)
			if err != nil || at.Before(start.Add(c.about).Truncate(time.Second)) || at.After(start.Add(c.about+maxRotationDelay)) {
				t.Fatalf("the next rotation is at %q, %v after %v", next, at.Sub(start), start)
			}
			m.clock.advance(at.Sub(start) - time.Minute)
			m.passNow()
			m.wantStates("main", "active")
			m.clock.advance(time.Minute + time.Second)
			m.passNow()
			m.wantStates("main", "active pending")
			second, _ := m.read("keys/main")["next_rotation_time"].(string)
			if second <= next {
				t.Errorf("the rotation after that is at %q", second)
			}
			m.clock.advance(40 * 24 * time.Hour)
			m.passNow()
			m.wantStates("main", "active pending")
			if !strings.Contains(m.log.String(), "still pending") {
				t.Error("the log does not say that a rotation was skipped")
			}
		})
	}
}

// TestGeneratedKeysAreNotTooLarge: a key that was imported may be larger than what is offered. The next version is not.
func TestGeneratedKeysAreNotTooLarge(t *testing.T) {
	modulus := new(big.Int).Lsh(big.NewInt(1), 8191) // of 8192 bits
	large := must(jwk.MarshalPKIX(&rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537}))
	for name, rotate := range map[string]func(*mount){
		"rotate": func(m *mount) { m.write("keys/main/rotate", nil) },
		"due": func(m *mount) {
			m.write("keys/main", map[string]any{"rotation_period": "24h"})
			m.clock.advance(25 * time.Hour)
			m.passNow()
		},
	} {
		m := newReadyMount(t)
		k := must(m.store.key(t.Context(), "main"))
		k.Versions[0].Algorithm, k.Versions[0].PublicKey = algorithmRS384, large
		m.plant("keys/main", string(must(json.Marshal(k))))
		rotate(m)
		next := must(m.store.key(t.Context(), "main")).newest()
		if next.Number != 2 || next.Algorithm != algorithmRS384 || next.rsaBits() != 4096 {
			t.Errorf("%s: version %d is %s with %d bits", name, next.Number, next.Algorithm, next.rsaBits())
		}
	}
}

// TestRotationAfterAClockWasAhead: what a clock that was ahead has put off is not put off for good, whether it was ahead
// in a pass or when settings were written.
func TestRotationAfterAClockWasAhead(t *testing.T) {
	const day = 24 * time.Hour
	for name, settings := range map[string]map[string]any{
		"period": {"rotation_period": "24h"}, "schedule": {"rotation_schedule": "0 3 * * *"}, // it is 03:04
	} {
		for when, happens := range map[string]func(*mount){
			"in a pass": func(m *mount) { m.passNow() },
			"at a setting": func(m *mount) {
				m.write("keys/main", map[string]any{"rotation_period": "", "rotation_schedule": ""})
				m.write("keys/main", settings)
			},
		} {
			m := newReadyMount(t)
			m.write("keys/main", settings)
			now := m.clock.wall()
			m.clock.setWall(now.Add(1000 * day))
			happens(m)
			m.clock.setWall(now)
			if m.read("keys/main")["pending_version"] != nil {
				m.write("keys/main/abandon", nil)
			}
			versions := len(m.versions("main"))
			m.passNow()
			stored := must(m.store.key(t.Context(), "main")).NextRotationTime
			if stored.After(now.Add(day+maxRotationDelay)) || stored.Before(now.Add(day-5*time.Minute)) {
				t.Errorf("%s, %s: the next rotation is %s after now", name, when, stored.Sub(now))
			}
			m.passNow()
			if again := must(m.store.key(t.Context(), "main")).NextRotationTime; !again.Equal(stored) {
				t.Errorf("%s, %s: another pass puts it from %s to %s", name, when, stored, again)
			}
			if told := strings.Count(m.log.String(), "a rotation was further away than it can be"); told != 1 {
				t.Errorf("%s, %s: the log says it %d times", name, when, told)
			}
			if len(m.versions("main")) != versions {
				t.Errorf("%s, %s: there is a new version", name, when)
			}
			m.clock.setWall(stored)
			m.passNow()
			if len(m.versions("main")) != versions+1 {
				t.Errorf("%s, %s: when its time comes there is no new version", name, when)
			}
		}
	}
}

// TestRotationTooFar: the last moment that a time can be set for is believed.
func TestRotationTooFar(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	scheduled := time.Date(2026, 2, 1, 3, 0, 0, 0, time.UTC)
	monthly, period := rotationTimes{schedule: "0 3 1 * *"}, rotationTimes{period: 720 * time.Hour}
	for name, test := range map[string]struct {
		times rotationTimes
		next  time.Time
		want  bool
	}{
		"none":                     {rotationTimes{}, time.Time{}, false},
		"none any more":            {rotationTimes{}, now.Add(1e6 * time.Hour), false},
		"not set":                  {period, time.Time{}, false},
		"due":                      {period, now.Add(-time.Hour), false},
		"a period from now":        {period, now.Add(720*time.Hour + maxRotationDelay), false},
		"more than that":           {period, now.Add(720*time.Hour + maxRotationDelay + 1), true},
		"at the scheduled time":    {monthly, scheduled.Add(maxRotationDelay), false},
		"after it":                 {monthly, scheduled.Add(maxRotationDelay + 1), true},
		"a schedule without times": {rotationTimes{schedule: "0 3 30 2 *"}, now.Add(1e6 * time.Hour), false},
	} {
		k := &signingKey{RotationPeriod: test.times.period, RotationSchedule: test.times.schedule, NextRotationTime: test.next}
		if got := k.rotationTooFar(now); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestMissedRotationWindow: a Vault that was sealed over the window waits for the next time.
func TestMissedRotationWindow(t *testing.T) {
	m := newReadyMount(t)
	m.write("keys/main", map[string]any{"rotation_schedule": "0 3 * * *", "rotation_window": "1h"})
	m.clock.advance(26 * time.Hour) // to 05:04 the day after
	m.passNow()
	m.wantStates("main", "active")
	if !strings.Contains(m.log.String(), "window is over") {
		t.Error("the log does not say that a rotation was missed")
	}
	m.clock.advance(22*time.Hour + 15*time.Minute) // to 03:19
	m.passNow()
	m.wantStates("main", "active pending")
}

func TestKeySettingRefusals(t *testing.T) {
	m := newReadyMount(t)
	for _, c := range []struct {
		settings map[string]any
		want     []string
	}{
		{map[string]any{"rotation_period": "59m"}, []string{"rotation_period"}},
		{map[string]any{"rotation_period": "24h", "rotation_schedule": "0 3 * * *"}, []string{"rotation_schedule", "rotation_period"}},
		{map[string]any{"rotation_schedule": "every day"}, []string{"rotation_schedule", "cron"}},
		{map[string]any{"rotation_schedule": "TZ=UTC"}, []string{"rotation_schedule", "cron"}},
		{map[string]any{"rotation_schedule": "TZ=Europe/Paris 0 3 * * *"}, []string{"rotation_schedule", "cron"}},
		{map[string]any{"rotation_schedule": "*/30 * * * *"}, []string{"rotation_schedule", "an hour apart"}},
		{map[string]any{"rotation_schedule": "0 3 30 2 *"}, []string{"rotation_schedule", "no such time"}},
		{map[string]any{"rotation_window": "2h"}, []string{"rotation_window", "rotation_schedule"}},
		{map[string]any{"rotation_schedule": "0 3 * * *", "rotation_window": "30m"}, []string{"rotation_window"}},
		{map[string]any{"retire_grace": "1m"}, []string{"retire_grace"}},
		{map[string]any{"registration": "magic"}, []string{"registration", "manual"}},
		{map[string]any{"registration": "platform"}, []string{"platform_role"}},
		{map[string]any{"platform_role": "none"}, []string{"platform_role", "none"}},
		{map[string]any{"public_jwks_url": "http://example.com/jwks"}, []string{"public_jwks_url", "https"}},
	} {
		m.refusedWith(logical.UpdateOperation, "keys/main", c.settings, c.want...)
	}
	m.write("roles/own", nil) // inherits the key
	m.refusedWith(logical.UpdateOperation, "keys/main", map[string]any{"registration": "platform", "platform_role": "own"},
		"platform_role", "own", "signs with this key itself")
	m.write("keys/main", map[string]any{"rotation_period": "24h"})
	if next := m.write("keys/main", map[string]any{"rotation_period": nil})["next_rotation_time"]; next != "" {
		t.Errorf("without a period, the next rotation is at %v", next)
	}
}

// TestJWKSURLRegistration looks at what is served before it tries a version.
func TestJWKSURLRegistration(t *testing.T) {
	m := newReadyMount(t)
	served := newStaticServer(t)
	m.redox.CreateAPIKey(sandbox.APIKey{ID: "by-url", Name: "by-url", JWKSURL: served.url})
	m.write("config", map[string]any{"client_id": "by-url"})
	m.write("keys/main", map[string]any{"registration": "jwks_url", "public_jwks_url": served.url})
	serve := func() {
		response, err := m.HandleRequest(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "jwks/main", Storage: m.storage})
		if err != nil {
			t.Fatal(err)
		}
		served.set(response.Data[logical.HTTPRawBody].([]byte))
	}
	serve()
	m.read("token")
	m.passNow()
	rotated := m.write("keys/main/rotate", nil)
	if next, _ := rotated["next_step"].(string); !strings.Contains(next, "JWKS URL") {
		t.Errorf("next step: %q", next)
	}
	requests := m.redox.Counters().Token.Requests
	m.refusedWith(logical.UpdateOperation, "keys/main/activate", nil, "public_jwks_url", "does not serve the kid")
	if m.redox.Counters().Token.Requests != requests {
		t.Error("Redox was asked although the key is not served yet")
	}
	serve()
	m.write("keys/main/activate", nil)
	m.wantStates("main", "retired active")
}

// TestWorkerEnds: the worker wakes by Vault's periodic call, and ends with the mount.
func TestWorkerWakesAndEnds(t *testing.T) {
	m := newReadyMount(t)
	tended := make(chan struct{})
	m.maintainer.worker = newWorker()
	m.maintainer.worker.start(func(context.Context) { tended <- struct{}{} })
	for range 2 {
		if err := m.periodic(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		<-tended
	}
	m.maintainer.worker.stop()
	m.maintainer.worker.ended.Wait()
}

// TestReadOnlyNode: a node that may not write mints with what the one that may has stored. Where that is rejected it lets the
// other one mint, which learns what Redox takes, and does not ask Redox again with each read.
func TestReadOnlyNode(t *testing.T) {
	m := newReadyMount(t)
	rotated := m.write("keys/main/rotate", nil)
	m.system.ReplicationStateVal = standby
	m.restart()
	m.storage.onEach(func(operation, key string) error {
		if operation == "put" || operation == "delete" {
			t.Errorf("%s of %s", operation, key)
		}
		return nil
	})
	if kid := m.read("token")["kid"]; kid != m.read("keys/main")["kid"] {
		t.Errorf("%v signs", kid)
	}
	m.setJWKs("client-1", rotated["pending_public_jwk"])
	m.clock.advance(10 * time.Minute)
	requests := m.redox.Counters().Token.Requests
	for range 3 {
		if _, err := m.failed(logical.ReadOperation, "token", nil); err != logical.ErrReadOnly {
			t.Errorf("a read on a node that may not write gave %v", err)
		}
	}
	m.passNow()
	if n := m.redox.Counters().Token.Requests - requests; n != 1 {
		t.Errorf("three reads took %d requests", n)
	}
	m.storage.onEach(nil)
	m.system.ReplicationStateVal = 0
	m.restart()
	if kid := m.read("token")["kid"]; kid != rotated["pending_kid"] {
		t.Errorf("%v signs on the node that may write", kid)
	}
}

const standby = consts.ReplicationPerformanceStandby

// staticServer serves a body that can be changed.
type staticServer struct {
	url  string
	body atomic.Pointer[[]byte]
}

func newStaticServer(t *testing.T) *staticServer {
	s := &staticServer{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(*s.body.Load())
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *staticServer) set(body []byte) { s.body.Store(&body) }
