// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// history is a mount to which random things happen, and a small model of what has to hold: what Redox holds of each
// client, and who could mint.
type history struct {
	*mount
	random *rand.Rand
	steps  []string

	jwks  map[string]string          // of every version there ever was, by kid
	redox map[string]map[string]bool // kids by client ID
	could map[string]bool            // whether Redox knew a version of a client that was held before the last step
}

var clients = map[string]string{"client-1": "token", "client-2": "token/two"}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{
		mount: newReadyMount(t), random: rand.New(rand.NewPCG(seed, 1)),
		jwks: map[string]string{}, redox: map[string]map[string]bool{}, could: map[string]bool{},
	}
	h.write("roles/two", map[string]any{"client_id": "client-2"})
	first := h.read("keys/main")["kid"].(string)
	h.learn()
	for client := range clients {
		h.setKids(client, first)
	}
	return h
}

func (h *history) fail(format string, arguments ...any) {
	h.t.Helper()
	h.t.Fatalf("%s\nstates: %s, Redox: %v, could mint: %v\nlast steps: %s", fmt.Sprintf(format, arguments...),
		h.states("main"), h.redox, h.could, strings.Join(h.steps[max(0, len(h.steps)-25):], ", "))
}

// learn takes the JWKs of new versions into the model.
func (h *history) learn() {
	versions := h.versions("main")
	for _, v := range versions {
		version, _ := v.(map[string]any)
		h.jwks[version["kid"].(string)], _ = version["public_jwk"].(string)
	}
}

func (h *history) setKids(client string, kids ...string) {
	h.redox[client] = map[string]bool{}
	var jwks []any
	for _, kid := range slices.Compact(slices.Sorted(slices.Values(kids))) {
		h.redox[client][kid] = true
		jwks = append(jwks, h.jwks[kid])
	}
	h.setJWKs(client, jwks...)
	h.could[client] = false // until it is looked at again
}

// held gives the kids of the versions that are not destroyed.
func (h *history) held() []string {
	var kids []string
	versions := h.versions("main")
	for _, v := range versions {
		if version, _ := v.(map[string]any); version["state"] != "destroyed" {
			kids = append(kids, version["kid"].(string))
		}
	}
	slices.Sort(kids)
	return kids
}

// mint mints afresh for a client, and says whether that was right.
func (h *history) mint(client string) {
	h.clock.advance(40 * time.Second) // past what is shared and past what failed
	knows := slices.ContainsFunc(h.held(), func(kid string) bool { return h.redox[client][kid] })
	response, err := h.request(logical.UpdateOperation, clients[client], nil)
	switch minted := err == nil && !response.IsError(); {
	case minted != knows:
		h.fail("a mint for %s succeeds: %v; Redox knows a version that is held: %v (%v %v)", client, minted, knows, response, err)
	case minted:
		kid, _ := response.Data["kid"].(string)
		if token, _ := response.Data["access_token"].(string); !h.redox[client][kid] || !h.mount.redox.IsLive(token) {
			h.fail("%s got a token of kid %s", client, kid)
		}
		h.passNow() // the mint wakes the worker if it learned something
	}
}

var errInjected = errors.New("storage failed on purpose")

// injectFault makes one of the next storage operations fail: before it is carried out, or after.
func (h *history) injectFault() string {
	after, left := h.random.IntN(2) == 0, h.random.IntN(12)
	h.storage.onEach(func(operation, key string) error {
		if left--; left != 0 {
			return nil
		}
		if after && operation == "put" { // it was carried out, and the answer is lost
			h.storage.carryOut()
		}
		return errInjected
	})
	return fmt.Sprintf("fault in %d", left)
}

// step does one random thing, and says what.
func (h *history) step() string {
	client := slices.Sorted(maps.Keys(clients))[h.random.IntN(2)]
	held := h.held()
	kid := held[h.random.IntN(len(held))]
	post := func(path string, data map[string]any) string {
		response, err := h.request(logical.UpdateOperation, path, data)
		if err != nil && !errors.Is(err, errInjected) {
			h.fail("%s: %v", path, err)
		}
		return fmt.Sprintf("%s: %v", path, err == nil && !response.IsError())
	}
	fault := ""
	if h.random.IntN(4) == 0 {
		fault = h.injectFault()
	}
	defer h.storage.onEach(nil)
	what := ""
	switch h.random.IntN(14) {
	case 0, 1:
		what = post("keys/main/rotate", map[string]any{"algorithm": algorithmES384})
	case 2, 3:
		what = post("keys/main/activate", nil)
	case 4:
		what = post("keys/main/abandon", nil)
	case 5:
		what = post("keys/main/retire", nil)
	case 6, 7:
		h.passNow()
		what = "tend"
	case 8:
		h.clock.advance(time.Duration(h.random.Int64N(int64(30 * time.Hour))))
		what = "time passes"
	case 9:
		h.storage.onEach(nil)
		h.restart()
		return "restart"
	case 10, 11:
		h.storage.onEach(nil)
		h.setKids(client, append(slices.Collect(maps.Keys(h.redox[client])), kid)...)
		return fmt.Sprintf("%s added at %s", kid[:6], client)
	case 12:
		h.storage.onEach(nil)
		h.setKids(client, kid)
		h.clock.advance(time.Hour) // what the server said before counts for an hour
		return fmt.Sprintf("JWK set of %s replaced by %s", client, kid[:6])
	case 13:
		if h.random.IntN(4) == 0 {
			what = post("keys/main/activate", map[string]any{"force": true})
		}
	}
	return what + " " + fault
}

// check looks at what must hold when nothing is under way.
func (h *history) check() {
	held := h.held()
	for client := range clients {
		knows := slices.ContainsFunc(held, func(kid string) bool { return h.redox[client][kid] })
		if h.could[client] && !knows {
			h.fail("%s could mint, and what Redox knows of it is destroyed", client)
		}
		h.could[client] = knows
	}
	var stored struct {
		Versions []struct {
			State      string
			Kid        string
			PrivateKey []byte `json:"private_key"`
		}
	}
	if err := json.Unmarshal([]byte(h.storage.snapshot()["keys/main"]), &stored); err != nil {
		h.fail("the key can't be read: %v", err)
	}
	states, kids := map[string]int{}, map[string]bool{}
	for _, v := range stored.Versions {
		states[v.State]++
		kids[v.Kid] = true
		if (v.State == "destroyed") != (len(v.PrivateKey) == 0) {
			h.fail("a version that is %s has %d bytes of private key", v.State, len(v.PrivateKey))
		}
	}
	if states["active"] != 1 || states["pending"] > 1 || len(kids) != len(stored.Versions) {
		h.fail("the versions don't fit together: %v", states)
	}
	published := h.kids("jwks/main")
	slices.Sort(published)
	if !slices.Equal(published, held) {
		h.fail("the JWKS has %v, held are %v", published, held)
	}
}

// TestRandomHistories lets random things happen to a key: rotations, registrations, replacements, faults of storage,
// restarts, and time. As long as Redox knows a version that is held, every mint succeeds; and a client that could mint
// still can after whatever the engine did.
func TestRandomHistories(t *testing.T) {
	const histories, steps = 25, 120
	for seed := range uint64(histories) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHistory(t, seed)
			for range steps {
				h.steps = append(h.steps, h.step())
				h.learn()
				h.check()
				for _, client := range slices.Sorted(maps.Keys(clients)) {
					if h.random.IntN(3) == 0 {
						h.mint(client)
					}
				}
			}
			h.mount.redox.SetFaults(sandbox.Faults{})
		})
	}
}

// TestNeverRegistered moves the clock on and on: a version that Redox does not know never signs a token.
func TestNeverRegistered(t *testing.T) {
	m := newReadyMount(t)
	first := m.read("keys/main")["kid"]
	m.read("token")
	m.write("keys/main/rotate", nil)
	for range 400 { // more than a year
		m.clock.advance(23 * time.Hour)
		m.passNow()
		if kid := m.read("token")["kid"]; kid != first {
			t.Fatalf("a token is of kid %v", kid)
		}
	}
	m.wantStates("main", "active pending")
}

// TestKeyFromBeforeRotation reads a key as it was stored before keys could be rotated, and rotates it.
func TestKeyFromBeforeRotation(t *testing.T) {
	m := newMount(t)
	m.plantGoldenEntries()
	m.plantFile("keys/main", goldenKeyBeforeRotation)
	m.write("config", map[string]any{"base_url": m.redox.URL, "token_url": nil, "audience": nil, "jku": nil, "client_id": "client-1"})
	key := m.read("keys/main")
	if key["kid"] != "golden-kid" || key["retire_grace"] != 86400 || key["registration"] != "manual" || key["next_rotation_time"] != "" {
		t.Errorf("the key reads %v", key)
	}
	m.register("client-1", "main")
	m.read("token")
	rotated := m.write("keys/main/rotate", nil)
	m.setJWKs("client-1", key["public_jwk"], rotated["pending_public_jwk"])
	m.write("keys/main/activate", nil)
	m.wantStates("main", "retired active")
}
