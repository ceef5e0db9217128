// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// TestConformance reads the engine's assertions with another library than the one that signed them, and holds each
// header and claim against REDOX.md. That a request which breaks a single rule is rejected is shown for every rule by
// the tests of internal/sandbox; that what the engine sends keeps all of them, here.
func TestConformance(t *testing.T) {
	keys := map[string]map[string]any{
		"RS384, 2048 bits": {"algorithm": algorithmRS384, "rsa_bits": 2048},
		"RS384, 3072 bits": {"algorithm": algorithmRS384},
		"ES384":            {"algorithm": algorithmES384},
		"ES384, own kid":   {"algorithm": algorithmES384, "kid": "my key / 1"},
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.write("keys/main", key)
			m.write("config", map[string]any{"client_id": "client-1", "key": "main", "base_url": m.redox.URL})
			for _, c := range []struct {
				name     string
				settings map[string]any
				audience string // default: the token URL
				iat, exp time.Duration
			}{
				{"defaults", nil, "", -30 * time.Second, 120 * time.Second},
				{"scope", map[string]any{"scope": "fhir:development"}, "", -30 * time.Second, 120 * time.Second},
				{"the longest life", map[string]any{"assertion_ttl": 300, "clock_skew": 0}, "", 0, 300 * time.Second},
				{"the most skew", map[string]any{"assertion_ttl": 10, "clock_skew": 290}, "", -290 * time.Second, 10 * time.Second},
				{"audience", map[string]any{"audience": "urn:another"}, "urn:another", -30 * time.Second, 120 * time.Second},
				{"jku", map[string]any{"jku": "SERVED"}, "", -30 * time.Second, 120 * time.Second},
			} {
				t.Run(c.name, func(t *testing.T) {
					c.settings = maps.Clone(c.settings)
					m.write("config", map[string]any{"scope": "", "audience": "", "jku": "", "assertion_ttl": "", "clock_skew": ""})
					m.register("client-1", "main")
					jku := ""
					if c.settings["jku"] != nil {
						jku = m.serveJWKS()
						c.settings["jku"] = jku
						m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-1", JWKSURL: jku})
					}
					m.write("config", c.settings)
					m.clock.advance(time.Second)
					got := m.write("assertion", nil)
					if c.audience == "" {
						c.audience = m.redox.TokenURL()
						if status, _ := m.postForm(got); status != http.StatusOK {
							t.Errorf("Redox answers %d", status)
						}
					}
					header, claims := m.verified(fmt.Sprint(got["client_assertion"]))

					wantHeader := map[string]any{"alg": key["algorithm"], "kid": m.read("keys/main")["kid"], "typ": "JWT"}
					if jku != "" {
						wantHeader["jku"] = jku
					}
					if !maps.Equal(header, wantHeader) {
						t.Errorf("header is %v, want %v", header, wantHeader)
					}
					if jti, _ := claims["jti"].(string); len(jti) < 26 { // 128 random bits in base32
						t.Errorf("jti is %v", claims["jti"])
					}
					delete(claims, "jti")
					now := m.clock.wall()
					wantClaims := map[string]any{
						"iss": "client-1", "sub": "client-1", "aud": c.audience,
						"iat": float64(now.Add(c.iat).Unix()), "exp": float64(now.Add(c.exp).Unix()),
					}
					if !maps.Equal(claims, wantClaims) {
						t.Errorf("claims are %v, want %v", claims, wantClaims)
					}
				})
			}
		})
	}
}

// verified gives the header and the claims of an assertion whose signature go-jose has verified with the public JWK
// that the engine tells operators to register, and with no key besides.
func (m *mount) verified(assertion string) (header, claims map[string]any) {
	m.t.Helper()
	signed, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.RS384, jose.ES384})
	if err != nil {
		m.t.Fatal("go-jose can't parse the assertion")
	}
	var jwk jose.JSONWebKey
	text, _ := m.read("keys/main")["public_jwk"].(string)
	if err := json.Unmarshal([]byte(text), &jwk); err != nil || !jwk.IsPublic() || !jwk.Valid() {
		m.t.Fatalf("public_jwk is no valid public key: %v", err)
	}
	payload, err := signed.Verify(jwk)
	if err != nil {
		m.t.Fatal("the signature is not of public_jwk")
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		m.t.Fatal("the claims are no JSON object")
	}
	protected := signed.Signatures[0].Protected
	header = map[string]any{"alg": protected.Algorithm, "kid": protected.KeyID}
	for name, value := range protected.ExtraHeaders {
		header[string(name)] = value
	}
	if protected.JSONWebKey != nil || protected.Nonce != "" {
		m.t.Error("the header carries more than it should")
	}
	return header, claims
}

// serveJWKS serves the engine's own JWK Set, as Vault does under its URL, and gives that.
func (m *mount) serveJWKS() string {
	body, _ := m.read("jwks")["http_raw_body"].([]byte)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(body)
	}))
	m.t.Cleanup(server.Close)
	return server.URL + "/v1/redox/jwks"
}

// TestConformanceOfClocks: as clock_skew promises, a node whose clock is off still gets a token. Redox allows 10 s
// before iat; exp and the age of iat allow for the rest.
func TestConformanceOfClocks(t *testing.T) {
	m := newReadyMount(t)
	var fails []time.Duration
	for offset := -180 * time.Second; offset <= 180*time.Second; offset += 10 * time.Second {
		m.redox.SetFaults(sandbox.Faults{ClockOffset: sandbox.Duration(offset)})
		if m.write("check", nil)["ok"] != true {
			fails = append(fails, offset)
		}
	}
	for _, offset := range fails {
		// Fast by more than clock_skew and Redox's 10 s, or slow by as much as assertion_ttl.
		if offset > -50*time.Second && offset < 120*time.Second {
			t.Errorf("with Redox's clock %s from this node's there is no token", offset)
		}
	}
	if !slices.Contains(fails, -50*time.Second) || !slices.Contains(fails, 120*time.Second) {
		t.Errorf("only these fail: %v", fails)
	}
}
