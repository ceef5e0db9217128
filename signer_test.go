// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/testkeys"
)

// fields is what a request or an answer holds.
type fields = map[string]any

// Keys as somebody made them outside Vault, and the forms they are brought in.
var (
	outsideRSA, outsideEC = testkeys.RSA, testkeys.EC
	otherOutsideEC        = testkeys.OtherEC
	pemText, pkcs8Text    = testkeys.PEM, testkeys.PKCS8
	jwkMembers, changed   = testkeys.JWK, testkeys.Changed
)

const (
	algorithmRS384 = privatekey.RS384
	algorithmES384 = privatekey.ES384
)

var algorithms = privatekey.Algorithms()

func once[T any](make func() (T, error)) func() T {
	return sync.OnceValue(func() T { return must(make()) })
}

// must is for what can't fail on input that the tests themselves made.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// brought returns a key that was made outside Vault as the engine holds it once it was imported.
func brought(key crypto.PrivateKey) *privatekey.Key {
	imported, _, err := privatekey.Parse(pkcs8Text(key), "")
	return must(imported, err)
}

// verified returns header and claims of an assertion whose signature go-jose verifies with a published key.
func verified(t *testing.T, assertion string, key jose.JSONWebKey) (header, claims map[string]any) {
	t.Helper()
	parsed, err := jwt.ParseSigned(assertion, []jose.SignatureAlgorithm{jose.RS384, jose.ES384})
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Claims(key, &claims); err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(assertion, ".")
	if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(text)), &header); err != nil {
		t.Fatal(err)
	}
	return header, claims
}

// publishedKey returns the key with the kid from the published JWK Set.
func (m *mount) publishedKey(kid string) jose.JSONWebKey {
	m.t.Helper()
	set := m.jwks("jwks")
	keys := set.Key(kid)
	if len(keys) != 1 {
		m.t.Fatalf("the JWKS holds %d keys with kid %q", len(keys), kid)
	}
	return keys[0]
}

func TestAssertionIsWhatRedoxAsksFor(t *testing.T) {
	const jku = "https://vault.example.com/v1/redox/jwks?of=us"
	tests := map[string]struct {
		key        map[string]any
		config     map[string]any
		wantHeader map[string]any // besides kid
		wantAud    string         // empty: the token URL
		wantIat    time.Duration  // from now
		wantExp    time.Duration
	}{
		"RS384": {
			key:        fields{"algorithm": "RS384", "rsa_bits": 2048},
			wantHeader: fields{"alg": "RS384", "typ": "JWT"},
			wantIat:    -30 * time.Second, wantExp: 120 * time.Second,
		},
		"ES384": {
			key:        fields{"algorithm": "ES384"},
			wantHeader: fields{"alg": "ES384", "typ": "JWT"},
			wantIat:    -30 * time.Second, wantExp: 120 * time.Second,
		},
		"own kid and jku": {
			key:        fields{"algorithm": "ES384", "kid": "my key/1"},
			config:     fields{"jku": jku},
			wantHeader: fields{"alg": "ES384", "typ": "JWT", "jku": jku},
			wantIat:    -30 * time.Second, wantExp: 120 * time.Second,
		},
		"the longest life, and another audience": {
			key:        fields{"algorithm": "ES384"},
			config:     fields{"assertion_ttl": 240, "clock_skew": 60, "audience": "https://redox.example.com/token"},
			wantHeader: fields{"alg": "ES384", "typ": "JWT"},
			wantAud:    "https://redox.example.com/token",
			wantIat:    -60 * time.Second, wantExp: 240 * time.Second,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			kid := m.write("keys/main", test.key)["kid"].(string)
			config := fields{"client_id": "client-1", "key": "main"}
			maps.Copy(config, test.config)
			m.write("config", config)
			m.clock.advance(700 * time.Millisecond) // not on a full second

			answer := m.write("assertion", nil)
			assertion := answer["client_assertion"].(string)
			header, claims := verified(t, assertion, m.publishedKey(kid))

			wantHeader := maps.Clone(test.wantHeader)
			wantHeader["kid"] = kid
			if !maps.Equal(header, wantHeader) {
				t.Errorf("header %v, want %v", header, wantHeader)
			}
			wantAud := test.wantAud
			if wantAud == "" {
				wantAud = "https://api.redoxengine.com/v2/auth/token"
			}
			now := m.clock.wall()
			wantClaims := fields{
				"iss": "client-1", "sub": "client-1", "aud": wantAud, // a string, not an array
				"iat": float64(now.Add(test.wantIat).Unix()),
				"exp": float64(now.Add(test.wantExp).Unix()),
				"jti": claims["jti"],
			}
			if !maps.Equal(claims, wantClaims) {
				t.Errorf("claims %v, want %v", claims, wantClaims)
			}
			if life := claims["exp"].(float64) - claims["iat"].(float64); life > 300 {
				t.Errorf("exp is %vs after iat; Redox takes 300s", life)
			}
			if header["alg"] == algorithmES384 {
				signature := must(base64.RawURLEncoding.DecodeString(assertion[strings.LastIndex(assertion, ".")+1:]))
				if len(signature) != 96 {
					t.Errorf("the ES384 signature has %d bytes, not the 96 of RFC 7518 section 3.4", len(signature))
				}
			}
		})
	}
}

func TestAssertionIsNeverTheSameTwice(t *testing.T) {
	m := newReadyMount(t)
	seen := map[any]bool{}
	for range 500 {
		assertion := m.write("assertion", nil)["client_assertion"].(string)
		var claims struct {
			JTI string `json:"jti"`
		}
		text := must(base64.RawURLEncoding.DecodeString(strings.Split(assertion, ".")[1]))
		if err := json.Unmarshal(text, &claims); err != nil {
			t.Fatal(err)
		}
		if len(claims.JTI) < 20 || seen[claims.JTI] {
			t.Fatalf("jti %q is short or was there before", claims.JTI)
		}
		seen[claims.JTI] = true
	}
}

// What a careless programmer might do with a key must not show it.
func TestPrivateKeysNeverPrintThemselves(t *testing.T) {
	for _, outside := range []crypto.Signer{outsideRSA(), outsideEC()} {
		key := brought(outside)
		sealed := must(key.Seal())
		version := must(newKeyVersion(key, "", true, time.Now()))
		if text := fmt.Sprintf("%v %+v %#v %s %d", key, key, key, sealed, sealed); text !=
			"[private key] [private key] [private key] [sealed private key] [sealed private key]" {
			t.Error("the keys do not say what they are")
		}
		scanner := leakcheck.New()
		if err := scanner.AddKey("outside", outside); err != nil {
			t.Fatal(err)
		}

		type hidden struct { // fmt can't call the methods of what is in unexported fields
			key    *privatekey.Key
			value  privatekey.Key
			sealed privatekey.Sealed
			list   []privatekey.Sealed
		}
		printed := fields{
			"key":               key,
			"key as value":      *key,
			"keys":              []*privatekey.Key{key},
			"sealed":            sealed,
			"sealed by pointer": &sealed,
			"list of sealed":    []privatekey.Sealed{sealed},
			"map of sealed":     map[string]privatekey.Sealed{"a": sealed},
			"version":           version,
			"signing key":       &signingKey{Versions: []keyVersion{*version}},
			"unexported":        hidden{key, *key, sealed, []privatekey.Sealed{sealed}},
			"resolved":          &resolved{key: &keySnapshot{signingKey: &signingKey{Versions: []keyVersion{*version}}}},
			"any":               struct{ A, B any }{key, sealed},
		}
		var output bytes.Buffer
		logger := hclog.New(&hclog.LoggerOptions{Output: &output})
		for name, value := range printed {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%o", "%b", "%t", "%c", "%U"} {
				text := fmt.Sprintf(verb, value)
				if found := scanner.Scan([]byte(text)); len(found) > 0 {
					t.Errorf("%s printed with %s shows %v", name, verb, found)
				}
				fmt.Fprintln(&output, errors.Join(fmt.Errorf("failed: "+verb, value)))
			}
			logger.Error("failed", "key", value)
		}

		// JSON is what storing takes, so it shows sealed keys, and nothing else.
		structured := hclog.New(&hclog.LoggerOptions{Output: &output, JSONFormat: true})
		for _, value := range []any{key, *key, []*privatekey.Key{key}, struct{ Key *privatekey.Key }{key}} {
			output.Write(must(json.Marshal(value)))
			structured.Error("failed", "key", value)
		}
		if found := scanner.Scan(output.Bytes()); len(found) > 0 {
			t.Errorf("errors, logs or JSON show %v", found)
		}
	}
}

// A stored private key that can't be used is a fault of the storage, not of the request, and the error says which it is.
func TestUnusableStoredPrivateKey(t *testing.T) {
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	for name, private := range map[string][]byte{
		"none":      nil,
		"broken":    []byte("broken"),
		"on P-256":  must(x509.MarshalPKCS8PrivateKey(p256)),
		"cut short": must(x509.MarshalPKCS8PrivateKey(outsideEC()))[:100],
	} {
		t.Run(name, func(t *testing.T) {
			m := newReadyMount(t)
			k, err := newStore(m.storage.inner).key(context.Background(), "main")
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(must(json.Marshal(private)), &k.Versions[0].PrivateKey); err != nil {
				t.Fatal(err)
			}
			m.plant("keys/main", string(must(json.Marshal(k))))
			m.restart()
			status, err := m.failed(logical.UpdateOperation, "assertion", nil)
			if status != 500 || !strings.Contains(err.Error(), `"keys/main" is unreadable; restore it`) {
				t.Errorf("%d: %v", status, err)
			}
		})
	}
}

// signRaw makes the signature that an assertion has, and nothing else.
func signRaw(key crypto.Signer) (err error) {
	digest := sha512.Sum384([]byte("client assertion"))
	switch key := key.(type) {
	case *rsa.PrivateKey:
		_, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA384, digest[:])
	case *ecdsa.PrivateKey:
		_, err = ecdsa.SignASN1(rand.Reader, key, digest[:])
	}
	return err
}

// rawKey returns a new key for the algorithm, as crypto/rsa or crypto/ecdsa has it.
func rawKey(algorithm string) crypto.Signer {
	if algorithm == algorithmRS384 {
		return must(rsa.GenerateKey(rand.Reader, defaultRSABits))
	}
	return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
}

// What signing costs, beside the signature alone.
func BenchmarkSign(b *testing.B) {
	claims := assertionClaims{clientID: "client-1", audience: "https://api.redoxengine.com/v2/auth/token", kid: "kid",
		now: time.Now(), backdate: 30 * time.Second, lifetime: 120 * time.Second}
	for _, algorithm := range algorithms {
		raw := rawKey(algorithm)
		key := brought(raw)
		b.Run(algorithm+"/assertion", func(b *testing.B) {
			for b.Loop() {
				if _, err := signAssertion(key, claims); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(algorithm+"/signature", func(b *testing.B) {
			for b.Loop() {
				if err := signRaw(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
