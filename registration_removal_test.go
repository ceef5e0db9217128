// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// What the engine has registered at Redox is taken away when it must not be there any more, or named.

// refusePatches makes the Platform API refuse changes; none of them again.
func (m *platformMount) refusePatches(refuse bool) {
	m.proxy.onEach(nil)
	if refuse {
		m.proxy.onEach(func(_ int, method string, forward func()) bool {
			if method != http.MethodPatch {
				forward()
			}
			return method != http.MethodPatch
		})
	}
}

// TestCompromisedKIDIsTakenAway: that it is gone is a wish that is kept, retried and shown until it was seen, also after a restart,
// and of an imported key, too.
func TestCompromisedKIDIsTakenAway(t *testing.T) {
	for name, rotate := range map[string]func(*platformMount){
		"generated": func(m *platformMount) { m.write("keys/main/rotate", nil) },
		"imported": func(m *platformMount) {
			m.write("keys/main/import", fields{privateKeyField: pkcs8Text(outsideEC()), "kid": "brought"})
			m.write("keys/main/activate", nil)
			m.write("keys/main/rotate", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newPlatformMount(t)
			rotate(m)
			m.write("keys/main/activate", nil)
			bad := m.read("keys/main")["active_version"].(int) - 1
			kid, _ := m.versions("main")[string(rune('0'+bad))].(map[string]any)["kid"].(string)
			m.setJWKs("client-1", foreignJWK, m.versions("main")[string(rune('0'+bad))].(map[string]any)["public_jwk"], m.read("keys/main")["public_jwk"])
			m.refusePatches(true)
			m.write("keys/main/retire", fields{"version": bad, "destroy_now": true})
			for range 3 {
				m.tick(time.Minute)
				m.wantProblem("client-1", kid, "compromised version", kid, "dashboard")
				m.restart()
			}
			if next, _ := m.read("keys/main")["next_step"].(string); !strings.Contains(next, kid) {
				t.Errorf("the next step is %q", next)
			}
			m.refusePatches(false)
			m.tick(time.Minute)
			m.wantNoProblem()
			m.wantRegistered("client-1", "foreign", m.read("keys/main")["kid"])
			m.wantForeignKept()

			// Seen gone, it is no problem when the Platform API is out of reach.
			m.redox.SetFaults(sandbox.Faults{Path: "/platform", Status: 500})
			m.tick(time.Minute)
			if problem := m.problems()["client-1 "+kid]; problem != "" {
				t.Errorf("later its problem is %q", problem)
			}
			m.redox.SetFaults(sandbox.Faults{})

			// Somebody puts it back.
			m.setJWKs("client-1", foreignJWK, m.versions("main")[string(rune('0'+bad))].(map[string]any)["public_jwk"], m.read("keys/main")["public_jwk"])
			m.tick(time.Minute)
			m.wantRegistered("client-1", "foreign", m.read("keys/main")["kid"])
		})
	}
}

// TestCompromisedKIDElsewhere: where the engine registers nothing, the answer says what is left to do.
func TestCompromisedKIDElsewhere(t *testing.T) {
	m := newReadyMount(t)
	kid, _ := m.read("keys/main")["kid"].(string)
	response, err := m.request(logical.UpdateOperation, "keys/main/retire", fields{"version": 1, "destroy_now": true})
	if err != nil || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], kid) {
		t.Errorf("%v, %v", response, err)
	}
}

// TestRegistrationOfAClientThatLeaves: a day later the engine's keys are taken away at its API key, or named. If it comes back
// before, or is named otherwise, nothing happens to them.
func TestRegistrationOfAClientThatLeaves(t *testing.T) {
	m := newPlatformMount(t)
	kid := m.read("keys/main")["kid"]
	m.setJWKs("client-2", foreignJWK)
	m.write("roles/two", fields{"client_id": "client-2"})
	m.tick(time.Minute)
	m.wantRegistered("client-2", "foreign", kid)
	m.remove("roles/two")
	m.tick(23 * time.Hour)
	m.write("roles/two", fields{"client_id": "client-2"})
	m.tick(2 * time.Hour)
	m.wantRegistered("client-2", "foreign", kid)
	m.wantNoProblem()

	m.remove("roles/two")
	m.tick(time.Minute)
	m.refusePatches(true)
	m.tick(25 * time.Hour)
	if next, _ := m.read("keys/main")["next_step"].(string); !strings.Contains(next, "client-2") || !strings.Contains(next, kid.(string)) {
		t.Errorf("the next step is %q", next)
	}
	m.restart()
	m.refusePatches(false)
	m.tick(time.Minute)
	m.wantRegistered("client-2", "foreign")
	m.wantRegistered("client-1", "foreign", kid)
	if next := m.read("keys/main")["next_step"]; next != "" {
		t.Errorf("then the next step is %q", next)
	}

	// An API key that was deleted has taken what was registered there with it.
	m.write("roles/two", fields{"client_id": "client-2"})
	m.tick(time.Minute)
	m.remove("roles/two")
	m.tick(time.Minute)
	m.redox.DeleteAPIKey("client-2")
	m.tick(25 * time.Hour)
	if next := m.read("keys/main")["next_step"]; next != "" {
		t.Errorf("of an API key that is gone the next step is %q", next)
	}
}

// TestRegistrationOfADeletedKey: its public keys are taken away first, or named in the answer.
func TestRegistrationOfADeletedKey(t *testing.T) {
	for name, fault := range map[string]sandbox.Faults{
		"removed": {}, "refused": {Path: "/platform", Status: 403}, "out of reach": {Path: "/platform", Reset: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newPlatformMount(t)
			kid, _ := m.read("keys/main")["kid"].(string)
			m.write("keys/main", fields{"deletion_allowed": true})
			m.redox.SetFaults(fault)
			requests := len(m.proxy.sent())
			m.refused(logical.DeleteOperation, "keys/main", nil) // config names it: nothing is asked
			if len(m.proxy.sent()) > requests {
				t.Error("the Platform API was asked before a deletion that is refused")
			}
			m.write("config", fields{"key": "management"})
			response, err := m.request(logical.DeleteOperation, "keys/main", nil)
			if err != nil || response.IsError() {
				t.Fatalf("%v, %v", response, err)
			}
			if m.storage.snapshot()["keys/main"] != "" {
				t.Error("the key is still there")
			}
			m.redox.SetFaults(sandbox.Faults{})
			if name == "removed" {
				m.wantRegistered("client-1", "foreign")
				return
			}
			if len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], kid) || !strings.Contains(response.Warnings[0], "client-1") {
				t.Errorf("the answer warns of %q", response.Warnings)
			}
		})
	}
}
