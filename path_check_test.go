// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// halfSecond into a second, what a Date header says of it in whole seconds is right on average.
const halfSecond = 500 * time.Millisecond

func TestCheckTellsWhatItLearned(t *testing.T) {
	m := newReadyMount(t)
	m.clock.advance(halfSecond)
	m.write("keys/own", map[string]any{"algorithm": algorithmES384, "kid": "own-kid"})
	m.register("client-2", "own")
	m.write("roles/own", map[string]any{"client_id": "client-2", "key": "own", "scope": "fhir:development"})
	cached := m.accessToken(logical.ReadOperation, "token/own")

	m.redox.SetFaults(sandbox.Faults{TokenLifetime: sandbox.Duration(250 * time.Second)})
	got := m.write("check/own", nil)
	want := map[string]any{
		"ok": true, "client_id": "client-2", "kid": "own-kid", "token_url": m.redox.TokenURL(),
		"token_lifetime": int64(250), "scope": "fhir:development", "clock_offset": int64(0),
		"requests_in_progress": int64(0), "requests_waiting": int64(0), "requests_left": int64(1248),
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	if latency, ok := got["latency_ms"].(int64); !ok || latency < 0 || len(got) != len(want)+1 {
		t.Errorf("got %v", got)
	}
	m.wantTokenRequests(2) // a check asks Redox, whatever is cached
	if m.accessToken(logical.ReadOperation, "token/own") != cached {
		t.Error("a check has replaced the shared token")
	}
	if got := m.write("check", nil); got["ok"] != true || got["client_id"] != "client-1" {
		t.Errorf("without a role: %v", got)
	}
}

func TestCheckMeasuresTheClocks(t *testing.T) {
	m := newReadyMount(t)
	m.clock.advance(halfSecond)
	for _, offset := range []time.Duration{-25 * time.Second, 7 * time.Second, 90 * time.Second} {
		m.redox.SetFaults(sandbox.Faults{ClockOffset: sandbox.Duration(offset)})
		if got := m.write("check", nil); got["ok"] != true || got["clock_offset"] != int64(offset/time.Second) {
			t.Errorf("with a clock that is off by %s: %v", offset, got)
		}
	}
}

// TestCheckIgnoresRememberedFailures: it is for whoever has just mended something at Redox.
func TestCheckIgnoresRememberedFailures(t *testing.T) {
	m := newReadyMount(t)
	m.redox.DeleteAPIKey("client-1")
	m.refused(logical.ReadOperation, "token", nil)
	for range 3 {
		if got := m.write("check", nil); got["ok"] != false {
			t.Errorf("got %v", got)
		}
	}
	m.wantTokenRequests(4)
	m.refused(logical.ReadOperation, "token", nil) // a check that fails opens nothing
	m.wantTokenRequests(4)
}

// rejectedAs is an answer of Redox with one of the descriptions that REDOX.md lists, for those that the plugin itself
// can't be brought to cause.
func rejectedAs(description string) func(*mount) {
	body, _ := json.Marshal(map[string]string{"error": "invalid_request", "error_description": description,
		"error_uri": "https://docs.redoxengine.com/"})
	return faults(sandbox.Faults{Status: http.StatusBadRequest, Body: string(body), ContentType: "application/json"})
}

func faults(f sandbox.Faults) func(*mount) { return func(m *mount) { m.redox.SetFaults(f) } }

// configured writes config; in values, "SANDBOX" is the local Redox.
func configured(field, value string) func(*mount) {
	return func(m *mount) {
		m.write("config", map[string]any{field: strings.ReplaceAll(value, "SANDBOX", m.redox.URL)})
	}
}

// TestDiagnosis provokes what can be wrong, one row of REDOX.md's table of errors after the other, then what gateways
// and networks do. check has to name the cause, and the setting or the place in the dashboard that mends it; and a
// reader of the token has to be told the same.
func TestDiagnosis(t *testing.T) {
	const (
		notFound  = "Public key not found, check client_id, kid and Redox dashboard settings"
		badClock  = "NTP clock_skew assertion_ttl"
		proxy     = "token_url proxy"
		badStatus = "later proxy"
	)
	rejected, unauthorized := http.StatusBadRequest, http.StatusUnauthorized
	otherKey := func(m *mount) { // another key under the right kid
		m.write("keys/other", map[string]any{"algorithm": algorithmES384})
		jwk, _ := m.read("keys/other")["public_jwk"].(string)
		kid, _ := m.read("keys/main")["kid"].(string)
		otherKid, _ := m.read("keys/other")["kid"].(string)
		m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-1", JWKSet: json.RawMessage(`{"keys":[` + strings.Replace(jwk, otherKid, kid, 1) + `]}`)})
	}
	jwksURL := func(path string) func(*mount) {
		return func(m *mount) {
			if err := m.redox.SetJWKSURL("client-1", m.redox.URL+path); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name   string
		wrong  func(*mount)
		status int // of Redox's answer, 0 when there is none
		cause  string
		action string // words that must be there
	}{
		// The table in REDOX.md: an empty description.
		{"wrong audience", configured("audience", "https://example.com"), rejected, "no reason its audience agrees", "audience token_url"},
		{"audience of another region", configured("audience", "https://api.ca.redoxengine.com/v2/auth/token"), rejected, "no reason its audience", "audience token_url"},
		{"jku, but a pasted JWK set", configured("jku", "https://example.com/jwks"), rejected, "no reason jku", "jku JWKS dashboard"},
		{"jku other than the JWKS URL", func(m *mount) {
			jwksURL("/jwks")(m)
			configured("jku", "SANDBOX/another")(m)
		}, rejected, "no reason jku", "jku JWKS dashboard"},
		{"another key under this kid", otherKey, unauthorized, "no reason signature", "kid public_jwk dashboard"},
		{"clock 10 minutes behind", faults(sandbox.Faults{ClockOffset: sandbox.Duration(10 * time.Minute)}), rejected, "clock of the Vault server is 10m0s behind", "NTP assertion_ttl"},
		{"clock 10 minutes ahead", faults(sandbox.Faults{ClockOffset: sandbox.Duration(-10 * time.Minute)}), rejected, "clock of the Vault server is 10m0s ahead", "NTP clock_skew"},
		{"clock 45 s ahead", faults(sandbox.Faults{ClockOffset: sandbox.Duration(-45 * time.Second)}), rejected, "clock of the Vault server is 45s ahead", "NTP clock_skew"},
		// The table: the request is not as it was sent.
		{"content type", rejectedAs("x-www-form-urlencoded content-type required"), rejected, "content type is gone", proxy},
		{"no grant_type", rejectedAs("Missing grant_type parameter"), rejected, "grant_type is gone", proxy},
		{"other grant_type", rejectedAs("The grant_type parameter should equal 'client_credentials'"), rejected, "grant_type is another", proxy},
		{"no client_assertion_type", rejectedAs("Missing client assertion type"), rejected, "client_assertion_type is gone", proxy},
		{"other client_assertion_type", rejectedAs("Invalid client assertion type"), rejected, "client_assertion_type is another", proxy},
		{"no client_assertion", rejectedAs("Missing client assertion"), rejected, "client_assertion is gone", proxy},
		{"no kid", rejectedAs("JWT header kid property is required"), rejected, "no kid", "key kid rotate import"},
		// The table: Public key not found.
		{"wrong client ID", configured("client_id", "client-2"), unauthorized, "no public key client ID", "dashboard client_id"},
		{"key not registered", func(m *mount) { m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-1"}) }, unauthorized, "no public key kid", "dashboard kid save"},
		{"another key configured", func(m *mount) {
			m.write("keys/other", map[string]any{"algorithm": algorithmES384})
			configured("key", "other")(m)
		}, unauthorized, "no public key kid", "dashboard kid save"},
		{"JWKS URL not readable", jwksURL("/not-there"), unauthorized, "no public key JWKS", "dashboard JWKS jku internet"},
		{"not found, worded longer", rejectedAs(notFound + " (see docs)"), rejected, "no public key", "dashboard client_id"},
		// The table: Unexpected X claim value.
		{"iss", rejectedAs("Unexpected iss claim value"), rejected, "iss client ID", "client_id dashboard"},
		{"sub", rejectedAs("Unexpected sub claim value"), rejected, "sub client ID", "client_id dashboard"},
		{"aud", rejectedAs("Unexpected aud claim value"), rejected, "audience", "audience token_url"},
		{"iat", rejectedAs("Unexpected iat claim value"), rejected, "time of issue", badClock},
		{"exp", rejectedAs("Unexpected exp claim value"), rejected, "expiry", badClock},
		{"jti", rejectedAs("Unexpected jti claim value"), rejected, "jti", "proxy repeats"},
		{"kid", rejectedAs("Unexpected kid claim value"), rejected, "kid", "kid dashboard"},
		{"alg", rejectedAs("Unexpected alg claim value"), rejected, "algorithm", "RS384 ES384 dashboard"},
		{"jku", rejectedAs("Unexpected jku claim value"), rejected, "JWKS URL", "jku dashboard"},
		{"typ", rejectedAs("Unexpected typ claim value"), rejected, "claim or header", "client_id audience jku kid dashboard"},
		// What Redox does not document.
		{"undocumented words", rejectedAs("The moon is full"), rejected, "rejected", "client_id key audience scope dashboard"},
		{"no body", faults(sandbox.Faults{Status: 401, Body: " "}), unauthorized, "no reason", "audience jku kid"},
		{"forbidden", faults(sandbox.Faults{Status: 403}), 403, "forbidden", "dashboard base_url"},
		{"wrong token_url", configured("token_url", "SANDBOX/v2/oauth/token"), 404, "no token endpoint", "base_url token_url https://api.redoxengine.com/v2/auth/token"},
		{"wrong base_url", configured("base_url", "SANDBOX/api"), 404, "no token endpoint", "base_url token_url"},
		{"HTML page", faults(sandbox.Faults{Body: "<!DOCTYPE html><title>Sign in</title>"}), 200, "HTML page", "base_url token_url proxy"},
		{"HTML page with 400", faults(sandbox.Faults{Status: 400, Body: "<html>Bad Request</html>"}), 400, "web page gateway", "token_url proxy"},
		{"HTML page with 502", faults(sandbox.Faults{Status: 502, Body: "<html>Bad Gateway</html>"}), 502, "gateway failure", badStatus},
		{"429", faults(sandbox.Faults{Status: 429, RetryAfter: "7"}), 429, "limits the rate", "wait address limit"},
		{"500", faults(sandbox.Faults{Status: 500}), 500, "failure of its own", badStatus},
		{"503", faults(sandbox.Faults{Status: 503, RetryAfter: "soon"}), 503, "failure of its own", badStatus},
		{"504", faults(sandbox.Faults{Status: 504}), 504, "failure of its own", badStatus},
		{"redirect", faults(sandbox.Faults{Redirect: "https://elsewhere.test/"}), 307, "redirect not followed", "base_url token_url"},
		// Answers that are no token.
		{"empty access_token", faults(sandbox.Faults{EmptyAccessToken: true}), 200, "access_token", "token_url proxy"},
		{"wrong token_type", faults(sandbox.Faults{TokenType: "mac"}), 200, "token_type other than Bearer", "token_url"},
		{"negative expires_in", faults(sandbox.Faults{ExpiresInRaw: json.RawMessage("-1")}), 200, "expires_in", "token_url"},
		{"expires_in in words", faults(sandbox.Faults{ExpiresInRaw: json.RawMessage(`"five minutes"`)}), 200, "expires_in", "token_url"},
		{"truncated JSON", faults(sandbox.Faults{Body: `{"access_token":"abc`}), 200, "truncated JSON", "token_url"},
		{"larger than 64 KiB", faults(sandbox.Faults{HugeBody: 64 << 10}), 200, "larger than 64 KiB", "token_url proxy"},
		// The network.
		{"broken off", faults(sandbox.Faults{ResetMidBody: true}), 0, "closed the connection before its answer was complete", "firewall proxy"},
		{"reset", faults(sandbox.Faults{Reset: true}), 0, "closed the connection", "firewall proxy"},
		{"nothing listens", configured("base_url", "http://"+closedPort(t)), 0, "refused the connection", "host port base_url token_url firewall"},
		{"unknown host", configured("base_url", "https://redox.invalid"), 0, "", "Vault server"},
		{"https to http", func(m *mount) {
			configured("base_url", strings.Replace(m.redox.URL, "http:", "https:", 1))(m)
		}, 0, "plain HTTP to an https URL", "scheme port base_url"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newReadyMount(t)
			m.clock.advance(halfSecond)
			m.write("config", map[string]any{"max_retries": 0})
			test.wrong(m)
			got := m.write("check", nil)
			if got["ok"] != false {
				t.Fatalf("got %v", got)
			}
			wantWords(t, "cause", got["cause"], test.cause)
			wantWords(t, "action", got["action"], test.action)
			const width, height, names = 80, 24, 24 // of a terminal, and of the CLI's first column
			lines := 2
			for _, value := range got {
				lines += (names + len(fmt.Sprint(value)) + width - 1) / width
			}
			if lines > height {
				t.Errorf("the answer fills %d lines: %v", lines, got)
			}
			if status, answered := got["http_status"]; answered != (test.status != 0) || answered && status != test.status {
				t.Errorf("http_status is %v, want %d", status, test.status)
			}
			response, err := m.request(logical.ReadOperation, "token", nil)
			if response.IsError() {
				err = response.Error()
			}
			text := fmt.Sprint(err)
			for _, part := range []any{got["cause"], got["action"]} {
				if !strings.Contains(text, fmt.Sprint(part)) {
					t.Errorf("a reader is told %q, which lacks %q", text, part)
				}
			}
			if !strings.Contains(m.log.String(), "[WARN]") {
				t.Error("the failed mint is not logged")
			}
		})
	}
}

// wantWords checks that text holds each of the words.
func wantWords(t *testing.T, what string, text any, words string) {
	t.Helper()
	if s, _ := text.(string); s == "" {
		t.Errorf("there is no %s", what)
	}
	for word := range strings.FieldsSeq(words) {
		if !strings.Contains(fmt.Sprint(text), word) {
			t.Errorf("the %s is %q, which lacks %q", what, text, word)
		}
	}
}

// closedPort gives an address that nothing listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// TestCheckIsLiberal: what Redox leaves open is taken where it can mean only one thing.
func TestCheckIsLiberal(t *testing.T) {
	m := newReadyMount(t)
	for raw, want := range map[string]int64{
		`null`: 300, `"300"`: 300, `120.9`: 120, `1e3`: 1000, `86400`: 3600, `1e400`: 3600,
	} {
		m.redox.SetFaults(sandbox.Faults{ExpiresInRaw: json.RawMessage(raw)})
		if got := m.write("check", nil); got["ok"] != true || got["token_lifetime"] != want {
			t.Errorf("expires_in %s: %v", raw, got)
		}
	}
	m.redox.SetFaults(sandbox.Faults{TokenType: "bearer"})
	if got := m.write("check", nil); got["ok"] != true {
		t.Errorf("token_type bearer: %v", got)
	}
}

// TestCheckTellsRedoxsOwnWords, and how long it asks to wait.
func TestCheckTellsRedoxsOwnWords(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"max_retries": 0})
	m.redox.DeleteAPIKey("client-1")
	got := m.write("check", nil)
	if got["error_code"] != "invalid_request" {
		t.Errorf("got %v", got)
	}
	wantWords(t, "error_description", got["error_description"], "Public key not found")
	if _, has := got["retry_after"]; has {
		t.Errorf("got %v", got)
	}
	for _, retryAfter := range []string{"7", m.clock.wall().Add(7 * time.Second).Format(http.TimeFormat)} {
		m.redox.SetFaults(sandbox.Faults{Status: 429, RetryAfter: retryAfter})
		got = m.write("check", nil)
		if got["retry_after"] != int64(7) {
			t.Errorf("Retry-After %s: %v", retryAfter, got)
		}
		if value, has := got["error_code"]; has {
			t.Errorf("error_code is %q, which Redox did not say", value)
		}
	}
}

// TestCheckRetries as a mint does: what passes by itself is no finding.
func TestCheckRetries(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"max_retries": 1})
	m.redox.SetFaults(sandbox.Faults{Status: 503, Count: 1})
	if got := m.write("check", nil); got["ok"] != true {
		t.Errorf("got %v", got)
	}
	m.wantTokenRequests(2)
	if rejected := m.redox.Counters().Token.Rejected; len(rejected) != 0 { // a jti that was used before would be
		t.Errorf("rejected: %v", rejected)
	}
}

// TestCheckOfWhatIsNotSetUp needs no request to Redox.
func TestCheckOfWhatIsNotSetUp(t *testing.T) {
	m := newMount(t)
	for _, c := range []struct{ path, cause, action string }{
		{"check", "client_id: no client ID is configured", "config"},
		{"check/nobody", `no role named "nobody"`, "roles/nobody list"},
		{"check/" + strings.Repeat("x", 129), "longer", "shorter"},
	} {
		got := m.write(c.path, nil)
		if got["ok"] != false || !strings.Contains(fmt.Sprint(got["cause"]), c.cause) {
			t.Errorf("%s: %v", c.path, got)
		}
		wantWords(t, "action", got["action"], c.action)
	}
	m.wantTokenRequests(0)
}

// TestCheckGivenUp is nobody's fault, so no finding either.
func TestCheckGivenUp(t *testing.T) {
	m := newReadyMount(t)
	arrived, _ := m.redox.HoldTokenRequests()
	ctx, giveUp := context.WithCancel(t.Context())
	r, _ := m.readInBackground(ctx, logical.UpdateOperation, "check")
	<-arrived
	giveUp()
	<-r.done
	if r.response != nil || !errors.Is(r.err, context.Canceled) {
		t.Errorf("got %v, %v", r.response, r.err)
	}
}
