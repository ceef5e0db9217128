// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package leakcheck

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// TestFindsKeys hides keys in text in the forms that a careless program could write them in.
func TestFindsKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"rsa": rsaKey, "ec": ecKey} {
		scanner := New()
		if err := scanner.AddKey(name, key); err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		jwk, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "kid"})
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		headless := text[len("-----BEGIN PRIVATE KEY-----"):]
		quoted, err := json.Marshal(string(headless))
		if err != nil {
			t.Fatal(err)
		}
		twice, err := json.Marshal(string(quoted))
		if err != nil {
			t.Fatal(err)
		}
		for form, leak := range map[string]string{
			"PEM":                    string(text),
			"PEM without its header": string(headless),
			"PEM inside JSON":        string(quoted),
			"PEM inside JSON twice":  string(twice),
			"DER":                    string(der),
			"DER in base64":          base64.StdEncoding.EncodeToString(der),
			"DER in base64, shifted": base64.StdEncoding.EncodeToString(append([]byte{1}, der...)),
			"DER in base64, again":   base64.StdEncoding.EncodeToString(append([]byte{1, 2}, der...)),
			"DER in base64url":       base64.RawURLEncoding.EncodeToString(der),
			"DER in hex":             hex.EncodeToString(der),
			"DER in upper-case hex":  fmt.Sprintf("%X", der),
			"DER as Go prints bytes": fmt.Sprint(der),
			"DER as Go code":         fmt.Sprintf("%#v", der),
			"words of a dump":        fmt.Sprintf("main.sign({0x1, %#x, 0x2, ...}, 0x%x?)", word(key), 0xc000012345),
			"bytes of a dump":        "main.sign(" + strings.TrimPrefix(fmt.Sprintf("%#v", first(key)), "[]byte") + ", 0x1)",
			"JWK":                    string(jwk),
			"as Go prints a struct":  fmt.Sprintf("%+v", key),
			"in the middle of a log": "ts=1 level=trace key=" + base64.StdEncoding.EncodeToString(der)[30:] + " done",
		} {
			if len(scanner.Scan([]byte("before "+leak+" after"))) == 0 {
				t.Errorf("%s: not found: %s", name, form)
			}
		}
		harmless := fmt.Sprintf("public %s %x %v", base64.StdEncoding.EncodeToString(public), public, key.Public())
		if found := scanner.Scan([]byte(harmless)); len(found) > 0 {
			t.Errorf("%s: the public key is no secret, but found: %v", name, found)
		}
	}
}

// private gives the private number of a key.
func private(key crypto.Signer) *big.Int {
	if key, ok := key.(*rsa.PrivateKey); ok {
		return key.D
	}
	scalar, err := key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		panic(err)
	}
	return new(big.Int).SetBytes(scalar)
}

// word gives the longest machine word of a private number.
func word(key crypto.Signer) big.Word { return slices.Max(private(key).Bits()) }

// first gives the bytes of a private number that a dump shows of an array.
func first(key crypto.Signer) []byte { return private(key).Bytes()[:10] }

func TestFindsStoredKeys(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	stored := base64.StdEncoding.EncodeToString(der)
	for entry, want := range map[string]int{
		`{"versions":[{"private_key":null},{"private_key":"` + stored + `"}]}`: 1, // a destroyed version and another one
		`{"private_key":"` + stored + `"}`:                                     1, // the wrapping key
		`{"versions":[{"private_key":null}]}`:                                  0,
	} {
		scanner := New()
		count, err := scanner.AddStored("main", entry)
		if found := scanner.Scan(der); err != nil || count != want || len(found) > 0 != (want > 0) {
			t.Errorf("%d keys, %v; found %v", count, err, found)
		}
	}
	for _, entry := range []string{"no JSON", `{"versions":[{"private_key":"` + stored[:len(stored)/2] + `"}]}`} {
		if _, err := New().AddStored("main", entry); err == nil {
			t.Errorf("taken: %s", entry)
		}
	}
}

func TestFindsTexts(t *testing.T) {
	const secret = "a secret of no form that is known"
	scanner := New()
	scanner.AddText("the secret", secret)
	for text, leaks := range map[string]bool{
		"log: " + secret: true, "log: " + secret[:20]: true, "a secret of another form": false, "": false,
	} {
		if found := scanner.Scan([]byte(text)); len(found) > 0 != leaks {
			t.Errorf("%q: found %v", text, found)
		}
	}
}

func TestFindsWhatIsKnownByItsForm(t *testing.T) {
	for text, secret := range map[string]bool{
		"-----BEGIN RSA PRIVATE KEY-----":                           true,
		"-----BEGIN PUBLIC KEY-----":                                false,
		`{"kty":"EC","d":"abcdefghijklmnopqrstuvwxyz"}`:             true,
		`{\"kty\":\"EC\",\"d\":\"abcdefghijklmnopqrstuvwxyz\"}`:     true,
		`{"kty":"RSA","n":"abcdefghijklmnopqrstuvwxyz","e":"AQAB"}`: false,
		"Bearer sandbox-token-abcdefghijklmnopqrstuvwxyz":           true,
		"sandbox-token-": false,
		"eyJhbGciOiJSUzM4NCJ9.eyJpc3MiOiJteS1jbGllbnQifQ.c2ln": true,
		"eyJhbGciOiJSUzM4NCJ9":                                 false,
	} {
		if found := New().Scan([]byte(text)); len(found) > 0 != secret {
			t.Errorf("%s: found %v", text, found)
		}
	}
}
