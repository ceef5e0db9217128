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
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/leakcheck"
)

// fields is what a request or an answer holds.
type fields = map[string]any

// Keys as somebody made them outside Vault. Each is made once, since an RSA key takes a while.
var (
	outsideRSA      = once(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	otherOutsideRSA = once(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	outsideEC       = once(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) })
	otherOutsideEC  = once(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) })
)

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

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8Text(key crypto.PrivateKey) string {
	return pemText("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
}

// jwkMembers gives a JWK, private or public as the key is, as go-jose writes it.
func jwkMembers(key any) map[string]any {
	var members map[string]any
	if err := json.Unmarshal(must(jose.JSONWebKey{Key: key}.MarshalJSON()), &members); err != nil {
		panic(err)
	}
	return members
}

// changed gives a copy of a JWK with other members; nil takes a member away.
func changed(members, changes map[string]any) map[string]any {
	members = maps.Clone(members)
	for name, value := range changes {
		if members[name] = value; value == nil {
			delete(members, name)
		}
	}
	return members
}

// base64urlUInt is Base64urlUInt (RFC 7518 section 2).
func base64urlUInt(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }

// verified gives header and claims of an assertion whose signature go-jose verifies with a published key.
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

// publishedKey gives the key with the kid from the published JWK Set.
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
		key := must(newPrivateKey(outside))
		sealed := must(key.seal())
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
			key    *privateKey
			value  privateKey
			sealed sealedPrivateKey
			list   []sealedPrivateKey
		}
		printed := fields{
			"key":               key,
			"key as value":      *key,
			"keys":              []*privateKey{key},
			"sealed":            sealed,
			"sealed by pointer": &sealed,
			"list of sealed":    []sealedPrivateKey{sealed},
			"map of sealed":     map[string]sealedPrivateKey{"a": sealed},
			"version":           version,
			"signing key":       &signingKey{Versions: []keyVersion{*version}},
			"unexported":        hidden{key, *key, sealed, []sealedPrivateKey{sealed}},
			"opened":            openKey{sealed, key},
			"client":            &client{version: version, key: key},
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
		for _, value := range []any{key, *key, []*privateKey{key}, struct{ Key *privateKey }{key}} {
			output.Write(must(json.Marshal(value)))
			structured.Error("failed", "key", value)
		}
		if found := scanner.Scan(output.Bytes()); len(found) > 0 {
			t.Errorf("errors, logs or JSON show %v", found)
		}
	}
}

// An error means that there is no key. A key that was read comes back the same from where it is stored.
func FuzzParsePrivateKey(f *testing.F) {
	for _, seed := range slices.Concat(importable(), refusable()) {
		if text, ok := seed.input.(string); ok {
			f.Add(text)
		} else if text, err := json.Marshal(seed.input); err == nil {
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, input string) {
		key, kid, err := parsePrivateKey(input)
		if err != nil {
			if user := (*userError)(nil); !errors.As(err, &user) || user.field != privateKeyField {
				t.Errorf("the error %v does not name the field", err)
			}
			if key != nil || kid != "" {
				t.Error("there is an error, and a key")
			}
			return
		}
		if !slices.Contains(algorithms, key.algorithm) {
			t.Errorf("the key is for algorithm %q", key.algorithm)
		}
		stored, err := json.Marshal(must(key.seal()))
		if err != nil {
			t.Fatal(err)
		}
		var sealed sealedPrivateKey
		if err := json.Unmarshal(stored, &sealed); err != nil {
			t.Fatal(err)
		}
		opened, err := sealed.open()
		if err != nil {
			t.Fatal(err)
		}
		equal := opened.key.(interface{ Equal(crypto.PrivateKey) bool }).Equal(key.key)
		if !equal || opened.algorithm != key.algorithm {
			t.Error("the key came back from storage as another one")
		}
	})
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
			k, err := loadKey(context.Background(), m.storage.inner, "main")
			if err != nil {
				t.Fatal(err)
			}
			k.Versions[0].PrivateKey = sealedDER(private)
			m.plant("keys/main", string(must(json.Marshal(k))))
			m.restart()
			status, err := m.failed(logical.UpdateOperation, "assertion", nil)
			if status != 500 || !strings.Contains(err.Error(), `"keys/main" is unreadable; restore it`) {
				t.Errorf("%d: %v", status, err)
			}
		})
	}
}

// A deleted key stays in nobody's memory, also if it was being read when it was deleted.
func TestParsedKeysGoWithTheirKey(t *testing.T) {
	m := newMount(t)
	create := func() {
		m.write("keys/main", fields{"algorithm": "ES384", "deletion_allowed": true})
		m.write("config", fields{"client_id": "client-1", "key": "main"})
	}
	remove := func() {
		m.write("config", fields{"key": ""})
		m.remove("keys/main")
	}
	kept := func() int {
		m.openKeys.mu.Lock()
		defer m.openKeys.mu.Unlock()
		return len(m.openKeys.byName["main"])
	}

	create()
	for range 3 {
		m.write("assertion", nil)
	}
	if kept() != 1 {
		t.Fatalf("%d parsed keys are kept after three signatures", kept())
	}
	remove()
	if kept() != 0 {
		t.Error("the parsed key is kept after its deletion")
	}

	create()
	m.storage.onEach(func(operation, key string) error {
		if operation == "get" && key == "keys/main" {
			m.storage.onEach(nil)
			entry := must(m.storage.inner.Get(context.Background(), key))
			remove()
			return m.storage.inner.Put(context.Background(), entry) // the reader still gets what was there
		}
		return nil
	})
	m.write("assertion", nil)
	if kept() != 0 {
		t.Error("a key that was deleted while it was read is kept")
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

// What signing costs, beside the signature alone.
func BenchmarkSign(b *testing.B) {
	claims := assertionClaims{clientID: "client-1", audience: "https://api.redoxengine.com/v2/auth/token", kid: "kid",
		now: time.Now(), backdate: 30 * time.Second, lifetime: 120 * time.Second}
	for _, algorithm := range algorithms {
		key, err := generatePrivateKey(algorithm, defaultRSABits)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(algorithm+"/assertion", func(b *testing.B) {
			for b.Loop() {
				if _, err := key.sign(claims); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(algorithm+"/signature", func(b *testing.B) {
			for b.Loop() {
				if err := signRaw(key.key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
