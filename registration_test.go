// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// A JWK of somebody else: its members are not in the engine's order, and its number is not written as Go writes it.
const foreignJWK = `{"x-note":"kept","kty":"RSA","kid":"foreign","n":"AQAB","e":"AQAB","x-number":1.50}`

// platformProxy stands between the engine and the local Redox's Platform API, to fail there and to stage races.
type platformProxy struct {
	url string

	mu       sync.Mutex
	requests []string // methods and paths
	hook     func(n int, method string, forward func()) (answer bool)
}

// onEach makes hook decide about each request, counted from 0: forward carries it out at Redox; without an answer the
// connection is reset. A nil hook lets all through.
func (p *platformProxy) onEach(hook func(n int, method string, forward func()) (answer bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook, p.requests = hook, nil
}

// sent gives the requests since the last call of sent or onEach.
func (p *platformProxy) sent() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := p.requests
	p.requests = nil
	return sent
}

// handle does with a request what the hook says, and says whether it is answered. The lock makes what a hook has written
// visible to the test that takes the hook away.
func (p *platformProxy) handle(r *http.Request, forward func()) (answer bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.requests)
	p.requests = append(p.requests, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/platform/v1/apikeys/"))
	if p.hook == nil {
		forward()
		return true
	}
	return p.hook(n, r.Method, forward)
}

func newPlatformProxy(t testing.TB, redox http.Handler) *platformProxy {
	p := &platformProxy{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		if !p.handle(r, func() { redox.ServeHTTP(recorder, r) }) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
			return
		}
		maps.Copy(w.Header(), recorder.Header())
		w.Header().Set("Connection", "close") // net/http repeats by itself what fails on a used connection
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	p.url = server.URL + "/platform"
	return p
}

// platformMount is a mount whose key "main" is registered through the Platform API at "client-1", where foreignJWK is
// registered, too; it has minted there.
type platformMount struct {
	*mount
	proxy *platformProxy
}

func newPlatformMount(t testing.TB) *platformMount {
	t.Helper()
	m := &platformMount{mount: newReadyMount(t)}
	m.proxy = newPlatformProxy(t, m.redox)
	m.write("keys/management", fields{"algorithm": algorithmES384})
	jwk, _ := m.read("keys/management")["public_jwk"].(string)
	set := json.RawMessage(`{"keys":[` + jwk + `]}`)
	m.redox.CreateAPIKey(sandbox.APIKey{ID: "manager", Management: true, JWKSet: set})
	m.write("roles/manager", fields{"client_id": "manager", "key": "management"})
	m.write("config", fields{"platform_url": m.proxy.url})
	m.write("keys/main", fields{"registration": "platform", "platform_role": "manager", "retire_grace": "1h"})
	m.setJWKs("client-1", foreignJWK, m.read("keys/main")["public_jwk"])
	m.read("token")
	m.passNow()
	return m
}

// registeredAt gives the kids at an API key, in their order there.
func (m *platformMount) registeredAt(clientID string) []string {
	m.t.Helper()
	var set struct {
		Keys []struct {
			KID string `json:"kid"`
		}
	}
	apiKey, _ := m.redox.APIKey(clientID)
	if apiKey.JWKSet != nil && json.Unmarshal(apiKey.JWKSet, &set) != nil {
		m.t.Fatalf("%s has the set %s", clientID, apiKey.JWKSet)
	}
	var kids []string
	for _, jwk := range set.Keys {
		kids = append(kids, jwk.KID)
	}
	return kids
}

func (m *platformMount) wantRegistered(clientID string, want ...any) {
	m.t.Helper()
	if got := m.registeredAt(clientID); fmt.Sprintf("%v", got) != fmt.Sprintf("%v", want) {
		m.t.Errorf("%s has the kids %v, want %v", clientID, got, want)
	}
}

func (m *platformMount) wantForeignKept() {
	m.t.Helper()
	if apiKey, _ := m.redox.APIKey("client-1"); !strings.Contains(string(apiKey.JWKSet), foreignJWK) {
		m.t.Errorf("the foreign JWK is not there as it was: %s", apiKey.JWKSet)
	}
}

// problems gives what key "main" shows to be wrong, by client ID and kid.
func (m *platformMount) problems() map[string]string {
	m.t.Helper()
	shown := m.read("keys/main")
	problems := map[string]string{}
	for _, client := range m.clients("main") {
		for _, registration := range client["registration"].([]string) {
			kid, problem, _ := strings.Cut(registration, ": ")
			if problem == "registered" {
				continue
			}
			problems[fmt.Sprint(client["client_id"], " ", kid)] = problem
			if next, _ := shown["next_step"].(string); next == "" || problem == "" {
				m.t.Errorf("there is no next step for %q", registration)
			}
		}
	}
	return problems
}

func (m *platformMount) wantNoProblem() {
	m.t.Helper()
	if problems := m.problems(); len(problems) > 0 {
		m.t.Errorf("problems: %v", problems)
	}
}

// wantProblem checks that a problem with a version at an API key is shown.
func (m *platformMount) wantProblem(clientID string, kid any, parts ...string) {
	m.t.Helper()
	problem := m.problems()[fmt.Sprint(clientID, " ", kid)]
	for _, part := range parts {
		if problem == "" || !strings.Contains(problem, part) {
			m.t.Errorf("the problem of %v at %s is %q, which does not say %q", kid, clientID, problem, part)
		}
	}
}

// tick is one of Vault's calls, later.
func (m *platformMount) tick(later time.Duration) {
	m.clock.advance(later)
	m.passNow()
}

// TestPlatformRotation is a rotation that nobody helps along but Vault's periodic call.
func TestPlatformRotation(t *testing.T) {
	for _, algorithm := range algorithms {
		t.Run(algorithm, func(t *testing.T) {
			m := newPlatformMount(t)
			first := m.read("keys/main")["kid"]
			m.wantRegistered("client-1", "foreign", first)
			rotation := fields{"algorithm": algorithm}
			if algorithm == algorithmRS384 {
				rotation["rsa_bits"] = 2048
			}
			second := m.write("keys/main/rotate", rotation)["pending_kid"]
			if kid := m.signsWith("token"); kid != first {
				t.Errorf("%v signs before it is registered", kid)
			}
			m.restart()
			m.tick(time.Minute)
			m.wantRegistered("client-1", "foreign", first, second)
			m.wantStates("main", "retired active")
			if kid := m.signsWith("token"); kid != second {
				t.Errorf("%v signs after the promotion", kid)
			}
			m.restart()
			m.tick(59 * time.Minute)
			m.wantStates("main", "retired active")
			m.tick(time.Minute)
			m.wantStates("main", "destroyed active")
			m.restart()
			m.tick(time.Minute)
			m.wantRegistered("client-1", "foreign", second)
			m.wantForeignKept()
			m.wantNoProblem()
			if kid := m.signsWith("token"); kid != second {
				t.Errorf("%v signs at last", kid)
			}
			m.proxy.sent()
			before, written := m.redox.Counters().Platform, len(m.storage.written())
			for range 3 {
				m.tick(time.Minute)
			}
			after := m.redox.Counters().Platform
			sent := fmt.Sprint(m.proxy.sent())
			if sent != "[GET client-1 GET client-1 GET client-1]" || after.Requests-before.Requests != 3 {
				t.Errorf("with nothing to change, the engine sent %v", sent)
			}
			if len(m.storage.written()) != written {
				t.Error("with nothing to change, the engine wrote storage")
			}
		})
	}
}

// TestPlatformKeepsImportedKeys: something else may use them.
func TestPlatformKeepsImportedKeys(t *testing.T) {
	m := newPlatformMount(t)
	m.write("keys/main/import", fields{"private_key": pkcs8Text(outsideEC()), "kid": "imported"})
	m.tick(time.Minute)
	m.wantStates("main", "retired active")
	third := m.write("keys/main/rotate", nil)["pending_kid"]
	m.tick(time.Minute)
	for range 3 {
		m.tick(time.Hour)
	}
	m.wantStates("main", "destroyed destroyed active")
	m.wantRegistered("client-1", "foreign", "imported", third)
}

// TestPlatformAbandonedVersion is taken away, and so is a compromised one.
func TestPlatformAbandonedVersion(t *testing.T) {
	m := newPlatformMount(t)
	first := m.read("keys/main")["kid"]
	m.write("config", fields{"max_retries": 0})
	m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-2"})
	m.write("roles/two", fields{"client_id": "client-2"})
	m.passNow()
	m.read("token/two")
	m.passNow()
	second := m.write("keys/main/rotate", nil)["pending_kid"]
	m.redox.SetFaults(sandbox.Faults{Status: 503}) // registered, but not proved
	m.tick(time.Minute)
	m.redox.SetFaults(sandbox.Faults{})
	m.wantRegistered("client-1", "foreign", first, second)
	m.wantRegistered("client-2", first, second)
	m.write("keys/main/abandon", nil)
	m.tick(time.Minute)
	m.wantRegistered("client-1", "foreign", first)
	m.wantRegistered("client-2", first)
	m.write("keys/main/rotate", nil)
	m.tick(time.Minute)
	m.write("keys/main/retire", fields{"version": 1, "destroy_now": true})
	m.tick(time.Minute)
	m.wantRegistered("client-2", m.read("keys/main")["kid"])
}

// TestPlatformUsers: each client ID gets the key, also one that has never minted or whose role is disabled, and one
// that fails holds up nobody else's.
func TestPlatformUsers(t *testing.T) {
	m := newPlatformMount(t)
	first := m.read("keys/main")["kid"]
	for _, id := range []string{"client-2", "client-3", "client-9"} {
		m.redox.CreateAPIKey(sandbox.APIKey{ID: id})
	}
	m.write("roles/two", fields{"client_id": "client-2"})
	m.write("roles/disabled", fields{"client_id": "client-3", "disabled": true})
	m.write("roles/mistyped", fields{"client_id": "client-4"})
	m.write("roles/nine", fields{"client_id": "client-9"})
	m.passNow()
	for _, id := range []string{"client-2", "client-3", "client-9"} {
		m.wantRegistered(id, first)
	}
	m.wantRegistered("manager", m.read("keys/management")["kid"])
	m.wantProblem("client-4", first, "HTTP 404", "client_id")
	if len(m.problems()) != 1 {
		t.Errorf("problems: %v", m.problems())
	}
	if kid := m.signsWith("token/two"); kid != first {
		t.Errorf("%v signs", kid)
	}
	second := m.write("keys/main/rotate", nil)["pending_kid"]
	m.tick(time.Minute)
	m.wantStates("main", "retired active")
	m.wantRegistered("client-1", "foreign", first, second)
	m.wantRegistered("client-3", first, second)
	m.remove("roles/mistyped")
	m.tick(time.Minute)
	m.wantNoProblem()
	if n := strings.Count(m.log.String(), "is not registered at Redox"); n != 2 { // one for each version
		t.Errorf("the log tells of one lasting problem %d times", n)
	}
}

// TestPlatformActivate registers, proves and promotes at once.
func TestPlatformActivate(t *testing.T) {
	m := newPlatformMount(t)
	first, second := m.read("keys/main")["kid"], m.write("keys/main/rotate", nil)["pending_kid"]
	m.proxy.onEach(func(int, string, func()) bool { return false })
	m.refusedWith(logical.UpdateOperation, "keys/main/activate", nil, "client-1", "Public key not found")
	m.wantProblem("client-1", second, "closed the connection")
	m.proxy.onEach(nil)
	if shown := m.write("keys/main/activate", nil); shown["kid"] != second || shown["next_step"] != "" {
		t.Errorf("activate answered kid %v, next step %v", shown["kid"], shown["next_step"])
	}
	m.wantRegistered("client-1", "foreign", first, second)
}

// TestTwoKeysAtOneAPIKey leave each other's kids alone.
func TestTwoKeysAtOneAPIKey(t *testing.T) {
	m := newPlatformMount(t)
	m.write("keys/other", fields{
		"algorithm": algorithmES384, "registration": "platform", "platform_role": "manager", "retire_grace": "1h",
	})
	m.write("roles/other", fields{"key": "other"})
	m.passNow()
	first, other := m.read("keys/main")["kid"], m.read("keys/other")["kid"]
	m.wantRegistered("client-1", "foreign", first, other)
	m.read("token/other")
	m.write("keys/main/rotate", nil)
	m.write("keys/other/rotate", nil)
	for range 3 {
		m.tick(time.Hour)
	}
	m.wantStates("main", "destroyed active")
	m.wantStates("other", "destroyed active")
	m.wantRegistered("client-1", "foreign", m.read("keys/main")["kid"], m.read("keys/other")["kid"])
	m.wantNoProblem()
}

// TestLostRace: another one, too, changes the JWK set without a precondition. What it overwrites comes back by itself.
func TestLostRace(t *testing.T) {
	for name, c := range map[string]struct {
		after  string // the request after which the other's change comes
		mints  bool   // before the next wake-up
		states string // after the first wake-up
	}{
		"before the verification":         {"PATCH", false, "active pending"},
		"after the verification":          {"second GET", false, "retired active"},
		"after the verification, noticed": {"second GET", true, "retired active"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newPlatformMount(t)
			first := m.read("keys/main")
			second := m.write("keys/main/rotate", nil)["pending_kid"]
			stale := func() { m.setJWKs("client-1", foreignJWK, first["public_jwk"]) }
			m.proxy.onEach(func(n int, method string, forward func()) bool {
				forward()
				if c.after == "PATCH" && method == "PATCH" {
					stale()
				}
				return true
			})
			m.tick(time.Minute)
			m.proxy.onEach(nil)
			if c.after == "PATCH" {
				m.wantProblem("client-1", second, "at the same moment")
			} else {
				m.wantNoProblem()
				stale()
			}
			m.wantStates("main", c.states)
			m.wantRegistered("client-1", "foreign", first["kid"])
			if c.mints {
				if kid := m.signsWith("token"); kid != first["kid"] {
					t.Errorf("%v signs after the race", kid)
				}
			}
			m.restart()
			m.tick(15 * time.Minute)
			m.tick(15 * time.Minute)
			m.wantRegistered("client-1", "foreign", first["kid"], second)
			m.wantStates("main", "retired active")
			m.wantNoProblem()
			if kid := m.signsWith("token"); kid != second {
				t.Errorf("%v signs at last", kid)
			}
		})
	}
	// The other's change may come between our reading and our replacing, too: then it is the other's that is lost, but
	// only what came in that moment.
	t.Run("ours is the stale one", func(t *testing.T) {
		m := newPlatformMount(t)
		first := m.read("keys/main")
		second := m.write("keys/main/rotate", nil)["pending_kid"]
		m.proxy.onEach(func(_ int, method string, forward func()) bool {
			if method == "PATCH" {
				m.setJWKs("client-1", foreignJWK)
			}
			forward()
			return true
		})
		m.tick(time.Minute)
		m.wantRegistered("client-1", "foreign", first["kid"], second)
	})
}

// TestTakenAwayAtRedox: what was there and is gone may be gone for a reason. It is told, and put back by asking.
func TestTakenAwayAtRedox(t *testing.T) {
	m := newPlatformMount(t)
	kid := m.read("keys/main")["kid"]
	m.setJWKs("client-1", foreignJWK)
	m.proxy.onEach(func(int, string, func()) bool { return false }) // what is known stays known meanwhile
	m.tick(time.Minute)
	m.wantProblem("client-1", kid, "closed the connection")
	m.proxy.onEach(nil)
	for range 3 {
		m.restart()
		m.tick(time.Minute)
		m.wantRegistered("client-1", "foreign")
		m.wantProblem("client-1", kid, "taken away by somebody", "keys/main/register")
	}
	m.refusedWith(logical.UpdateOperation, "token", nil, "Public key not found")
	shown := m.write("keys/main/register", nil)
	if next, _ := shown["next_step"].(string); next != "" {
		t.Errorf("register answered with the next step %q", next)
	}
	m.wantRegistered("client-1", "foreign", kid)
	m.wantNoProblem()
	m.tick(time.Minute)
	m.wantNoProblem()
	if got := m.signsWith("token"); got != kid {
		t.Errorf("%v signs", got)
	}
	// It counts as any other then: lost at once it comes back, lost later it does not.
	m.setJWKs("client-1", foreignJWK)
	m.tick(time.Minute)
	m.wantProblem("client-1", kid, "taken away by somebody")
	m.write("keys/main/register", nil)
	m.setJWKs("client-1", foreignJWK)
	m.tick(time.Minute)
	m.wantRegistered("client-1", "foreign", kid)
	m.wantNoProblem()
}

// TestUsedBeforeItWasLookedAfter: a key that was registered by hand, used, and taken away before the engine was told
// to look after it is not put back either.
func TestUsedBeforeItWasLookedAfter(t *testing.T) {
	m := newPlatformMount(t)
	kid := m.read("keys/main")["kid"]
	m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-2"})
	m.write("keys/by-hand", fields{"algorithm": algorithmES384})
	m.register("client-2", "by-hand")
	m.write("roles/two", fields{"client_id": "client-2", "key": "by-hand"})
	m.read("token/two")
	m.passNow()
	m.setJWKs("client-2")
	m.write("keys/by-hand", fields{"registration": "platform", "platform_role": "manager"})
	m.passNow()
	m.wantRegistered("client-2")
	if next, _ := m.read("keys/by-hand")["next_step"].(string); !strings.Contains(next, "taken away") {
		t.Errorf("next step: %q", next)
	}
	m.wantRegistered("client-1", "foreign", kid)
}

// TestPlatformProblems: what is wrong at Redox is told, changes nothing there, and is gone when it is.
func TestPlatformProblems(t *testing.T) {
	const another = `{"kty":"EC","crv":"P-384","x":"AAAA","y":"AAAA","kid":%q}`
	for name, c := range map[string]struct {
		spoil, mend func(m *platformMount)
		want        []string
		requests    int // of a wake-up
	}{
		"JWKS URL": {
			func(m *platformMount) {
				m.changeAPIKey("client-1", func(k *sandbox.APIKey) { k.JWKSURL, k.JWKSet = "https://example.com/jwks", nil })
			},
			func(m *platformMount) { m.setJWKs("client-1", foreignJWK, m.read("keys/main")["public_jwk"]) },
			[]string{"JWKS URL", "registration=jwks_url"}, 1,
		},
		"another key under the kid": {
			func(m *platformMount) {
				m.setJWKs("client-1", foreignJWK, fmt.Sprintf(another, m.read("keys/main")["kid"]))
			},
			func(m *platformMount) { m.setJWKs("client-1", foreignJWK, m.read("keys/main")["public_jwk"]) },
			[]string{"another public key", "rotate with another kid"}, 1,
		},
		"no such API key": {
			func(m *platformMount) { m.redox.DeleteAPIKey("client-1") },
			func(m *platformMount) { m.setJWKs("client-1", foreignJWK, m.read("keys/main")["public_jwk"]) },
			[]string{"HTTP 404", "client_id"}, 1,
		},
		"platform role disabled": {
			func(m *platformMount) { m.write("roles/manager", fields{"disabled": true}) },
			func(m *platformMount) { m.write("roles/manager", fields{"disabled": false}) },
			[]string{"platform_role", "disabled"}, 0,
		},
		"platform role rejected": {
			func(m *platformMount) {
				m.setJWKs("manager")
				m.write("roles/manager", fields{"leased": false}) // forgets its token
			},
			func(m *platformMount) { m.setJWKs("manager", m.read("keys/management")["public_jwk"]) },
			[]string{"platform_role", "Public key not found"}, 0,
		},
		"platform role is no user's": {
			func(m *platformMount) { m.changeAPIKey("manager", func(k *sandbox.APIKey) { k.Management = false }) },
			func(m *platformMount) { m.changeAPIKey("manager", func(k *sandbox.APIKey) { k.Management = true }) },
			[]string{"HTTP 403", "platform_role", "user-level"}, 1,
		},
		"platform role signs with the key itself": {
			func(m *platformMount) {
				m.setJWKs("manager", m.read("keys/main")["public_jwk"])
				m.write("roles/manager", fields{"key": "main"})
			},
			func(m *platformMount) {
				m.setJWKs("manager", m.read("keys/management")["public_jwk"])
				m.write("roles/manager", fields{"key": "management"})
			},
			[]string{"platform_role", "a key of its own"}, 0,
		},
		"Platform API down": {
			func(m *platformMount) { m.proxy.onEach(func(int, string, func()) bool { return false }) },
			func(m *platformMount) { m.proxy.onEach(nil) },
			[]string{"closed the connection"}, 1,
		},
		"Platform API failing": {
			func(m *platformMount) { m.redox.SetFaults(sandbox.Faults{Path: "/platform", Status: 500}) },
			func(m *platformMount) { m.redox.SetFaults(sandbox.Faults{}) },
			[]string{"HTTP 500"}, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newPlatformMount(t)
			kid := m.read("keys/main")["kid"]
			c.spoil(m)
			apiKey, _ := m.redox.APIKey("client-1")
			m.proxy.sent()
			m.tick(10 * time.Minute) // the platform role's token is a new one
			m.wantProblem("client-1", kid, c.want...)
			if sent := m.proxy.sent(); len(sent) != c.requests {
				t.Errorf("sent %v", sent)
			}
			// Asking for it changes nothing either.
			m.clock.advance(10 * time.Minute)
			m.write("keys/main/register", nil)
			m.wantProblem("client-1", kid, c.want...)
			left, _ := m.redox.APIKey("client-1")
			if string(left.JWKSet) != string(apiKey.JWKSet) || left.JWKSURL != apiKey.JWKSURL {
				t.Errorf("the API key was changed to %s %s", left.JWKSet, left.JWKSURL)
			}
			c.mend(m)
			m.tick(10 * time.Minute)
			m.wantNoProblem()
			m.wantRegistered("client-1", "foreign", kid)
			if got := m.signsWith("token"); got != kid {
				t.Errorf("%v signs", got)
			}
		})
	}
}

// changeAPIKey changes an API key at the local Redox.
func (m *platformMount) changeAPIKey(id string, change func(*sandbox.APIKey)) {
	apiKey, _ := m.redox.APIKey(id)
	change(&apiKey)
	m.redox.CreateAPIKey(apiKey)
}

// TestPlatformTokenEndsMeanwhile has a look at many API keys outlive the token that it began with.
func TestPlatformTokenEndsMeanwhile(t *testing.T) {
	m := newPlatformMount(t)
	jwk := m.read("keys/main")["public_jwk"]
	for n := range 20 {
		client := fmt.Sprintf("client-%d", n+1)
		m.register(client, "main")
		m.setJWKs(client, jwk)
		m.write(fmt.Sprintf("roles/role-%d", n), fields{"client_id": client})
	}
	m.proxy.onEach(func(_ int, _ string, forward func()) bool {
		m.clock.advance(20 * time.Second)
		forward()
		return true
	})
	m.passNow()
	m.wantNoProblem()
}

// TestProblemsEndWithTheWayOfRegistration: who registers by hand again is not told of what the engine could not do.
func TestProblemsEndWithTheWayOfRegistration(t *testing.T) {
	m := newPlatformMount(t)
	m.setJWKs("client-1", foreignJWK)
	m.passNow()
	if next, _ := m.read("keys/main")["next_step"].(string); !strings.Contains(next, "taken away by somebody") {
		t.Fatalf("next step: %q", next)
	}
	m.write("keys/main", fields{"registration": "manual"})
	key := m.read("keys/main")
	if problems := m.problems(); len(problems) > 0 || key["next_step"] != "" {
		t.Errorf("still shown: %v, %v", problems, key["next_step"])
	}
}

// TestPlatformDownInARotation: mints go on, and so does a rotation that somebody helps by hand. A platform that does
// not answer is asked once in a wake-up, not once for each client ID.
func TestPlatformDownInARotation(t *testing.T) {
	m := newPlatformMount(t)
	m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-2"})
	m.write("roles/two", fields{"client_id": "client-2"})
	first := m.read("keys/main")
	rotated := m.write("keys/main/rotate", nil)
	m.proxy.onEach(func(int, string, func()) bool { return false })
	m.tick(time.Minute)
	if sent := m.proxy.sent(); len(sent) != 1 {
		t.Errorf("sent %v", sent)
	}
	m.wantProblem("client-1", rotated["pending_kid"], "closed the connection")
	m.wantProblem("client-2", rotated["pending_kid"], "closed the connection")
	m.wantStates("main", "active pending")
	if kid := m.signsWith("token"); kid != first["kid"] {
		t.Errorf("%v signs", kid)
	}
	m.setJWKs("client-1", foreignJWK, first["public_jwk"], rotated["pending_public_jwk"])
	m.tick(15 * time.Minute)
	m.wantStates("main", "retired active")
	m.proxy.onEach(nil)
	m.tick(time.Minute)
	m.wantNoProblem()
	m.wantRegistered("client-2", rotated["pending_kid"])
	if kid := m.signsWith("token"); kid != rotated["pending_kid"] {
		t.Errorf("%v signs", kid)
	}
}

// TestPlatformRoleIsNeeded as long as a key names it.
func TestPlatformRoleIsNeeded(t *testing.T) {
	m := newPlatformMount(t)
	m.refusedWith(logical.DeleteOperation, "roles/manager", nil, "platform_role of keys/main", "name another role there first")
	m.write("keys/main", fields{"registration": "manual", "platform_role": ""})
	m.remove("roles/manager")
}

// TestPlatformOnReadOnlyNode: a node that may not write to storage changes nothing at Redox.
func TestPlatformOnReadOnlyNode(t *testing.T) {
	m := newPlatformMount(t)
	first := m.read("keys/main")["kid"]
	second := m.write("keys/main/rotate", nil)["pending_kid"]
	m.system.ReplicationStateVal = standby
	m.proxy.sent()
	m.tick(time.Minute)
	if sent := m.proxy.sent(); len(sent) != 0 {
		t.Errorf("sent %v", sent)
	}
	// It steps down between the reading and the replacing.
	m.system.ReplicationStateVal = 0
	m.proxy.onEach(func(_ int, _ string, forward func()) bool {
		m.system.ReplicationStateVal = standby
		forward()
		return true
	})
	stored := m.storage.snapshot()
	m.write("keys/main/register", nil)
	if sent := m.proxy.sent(); fmt.Sprint(sent) != "[GET client-1]" {
		t.Errorf("sent %v", sent)
	}
	if !maps.Equal(stored, m.storage.snapshot()) {
		t.Error("storage has changed")
	}
	m.proxy.onEach(nil)
	m.wantRegistered("client-1", "foreign", first)
	m.system.ReplicationStateVal = 0
	m.tick(time.Minute)
	m.wantRegistered("client-1", "foreign", first, second)
}

// TestPlatformWithUnusableClients: mints and reads go on with what a newer version of the plugin has stored of the clients;
// the entry stays as it is, nothing is promoted, and the log names it.
func TestPlatformWithUnusableClients(t *testing.T) {
	m := newPlatformMount(t)
	first := m.read("keys/main")["kid"]
	second := m.write("keys/main/rotate", nil)["pending_kid"]
	const entry, unusable = clientsStoragePrefix + "main", `{"schema_version":99}`
	good := m.storage.snapshot()[entry]
	m.plant(entry, unusable)
	m.restart()
	m.proxy.sent()
	m.tick(time.Minute)
	if _, err := m.failed(logical.UpdateOperation, "keys/main/register", nil); !strings.Contains(err.Error(), entry) {
		t.Errorf("register failed with %v", err)
	}
	if m.storage.snapshot()[entry] != unusable || !strings.Contains(m.log.String(), entry) {
		t.Error("the entry was replaced, or the log does not name it")
	}
	if sent := m.proxy.sent(); len(sent) != 0 {
		t.Errorf("sent %v", sent)
	}
	if kid := m.signsWith("token"); kid != first {
		t.Errorf("%v signs", kid)
	}
	m.plant(entry, good)
	m.tick(time.Minute)
	m.wantRegistered("client-1", "foreign", first, second)
	m.wantStates("main", "retired active")
}

// TestPlatformWithUnreadableClients: what is unreadable is learned anew.
func TestPlatformWithUnreadableClients(t *testing.T) {
	m := newPlatformMount(t)
	first := m.read("keys/main")["kid"]
	second := m.write("keys/main/rotate", nil)["pending_kid"]
	m.plant(clientsStoragePrefix+"main", "not JSON")
	m.restart()
	for range 3 {
		m.tick(time.Minute)
	}
	m.wantRegistered("client-1", "foreign", first, second)
	m.wantStates("main", "retired active")
}

// platformRotation does a whole rotation through the Platform API. Between its steps, the key signs. interrupted runs
// each step, and may make it fail; a step that failed is begun again after a restart.
func platformRotation(t *testing.T, interrupted func(m *platformMount, step func())) {
	m := newPlatformMount(t)
	first := m.read("keys/main")["kid"]
	m.restart()
	do := func(step func()) {
		interrupted(m, step)
		if kid := m.signsWith("token"); kid == nil {
			t.Fatal("the key does not sign")
		}
		m.wantForeignKept()
	}
	do(func() { _, _ = m.request(logical.UpdateOperation, "keys/main/rotate", nil) })
	m.restart()
	if m.states("main") == "active" {
		m.write("keys/main/rotate", nil)
	}
	second, _ := m.read("keys/main")["pending_kid"].(string)
	wakeUp := func() { m.tick(20 * time.Minute) }
	do(wakeUp) // registers, proves and promotes
	m.clock.advance(40 * time.Minute)
	do(wakeUp) // destroys
	do(wakeUp) // takes away
	m.restart()
	for range 5 {
		wakeUp()
		m.wantForeignKept()
		if kid := m.signsWith("token"); kid != second {
			t.Errorf("%v signs after the interruption", kid)
		}
	}
	m.wantStates("main", "destroyed active")
	m.wantRegistered("client-1", "foreign", second)
	m.wantNoProblem()
	if next := m.read("keys/main")["next_step"]; next != "" {
		t.Errorf("next step: %v", next)
	}
	if strings.Contains(m.storage.snapshot()["keys/main"], privateBytes(t, m.mount, "keys/main", 0)) {
		t.Errorf("the private key of %v is still stored", first)
	}
}

// TestPlatformRequestInterrupted loses each single request of a rotation, before and after Redox has carried it out.
func TestPlatformRequestInterrupted(t *testing.T) {
	// one loses the request with a number; it says whether there was such a request.
	one := func(t *testing.T, index int, carriedOut bool) (lost bool) {
		count := 0
		platformRotation(t, func(m *platformMount, step func()) {
			m.proxy.onEach(func(_ int, _ string, forward func()) bool {
				hit := count == index
				count++
				lost = lost || hit
				if !hit || carriedOut {
					forward()
				}
				return !hit
			})
			step()
			m.proxy.onEach(nil)
			if lost {
				m.restart()
			}
		})
		return lost
	}
	for _, carriedOut := range []bool{false, true} {
		index := 0
		for one(t, index, carriedOut) {
			if t.Failed() {
				t.Fatalf("after request %d was lost (carried out: %v)", index, carriedOut)
			}
			index++
		}
		if index < 7 { // registering and taking away are three each, and there is one look between them
			t.Errorf("a rotation took %d requests", index)
		}
	}
}

// TestPlatformStorageInterrupted fails each single storage operation of a rotation, a write also after it was carried
// out.
func TestPlatformStorageInterrupted(t *testing.T) {
	one := func(t *testing.T, index int, carriedOut bool) (failed bool) {
		count := 0
		platformRotation(t, func(m *platformMount, step func()) {
			m.storage.onEach(func(operation, key string) error {
				if carriedOut && operation != "put" {
					return nil
				}
				count++
				if count-1 != index {
					return nil
				}
				failed = true
				if carriedOut {
					written := m.storage.written()
					last := written[len(written)-1]
					m.plant(last.Key, string(last.Value))
				}
				return errors.New("the storage failed")
			})
			step()
			m.storage.onEach(nil)
			if failed {
				m.restart()
			}
		})
		return failed
	}
	for _, carriedOut := range []bool{false, true} {
		index := 0
		for one(t, index, carriedOut) {
			if t.Failed() {
				t.Fatalf("after operation %d failed (carried out: %v)", index, carriedOut)
			}
			index++
		}
		if index < 5 { // rotate, the registrations, what was accepted, the promotion, the destruction
			t.Errorf("a rotation took %d operations", index)
		}
	}
}
