// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/testkeys"
)

func TestGenerate(t *testing.T) {
	for algorithm, bits := range map[string]int{RS384: 2048, ES384: 0} {
		key, err := Generate(algorithm, 2048)
		if err != nil {
			t.Fatal(err)
		}
		if key.Algorithm() != algorithm || key.RSABits() != bits {
			t.Errorf("%s: the key is for %s and has %d bits", algorithm, key.Algorithm(), key.RSABits())
		}
		if again := must(Generate(algorithm, 2048)); same(key, again) {
			t.Errorf("%s: the same key was made twice", algorithm)
		}
	}
	for _, algorithm := range []string{"", "RS256", "none", "ES256"} {
		if key, err := Generate(algorithm, 2048); key != nil || err == nil {
			t.Errorf("a key was made for algorithm %q", algorithm)
		}
	}
}

// What is signed verifies with the public half. A key signs with its own algorithm only, also where another would fit
// its kind.
func TestSign(t *testing.T) {
	all := []jose.SignatureAlgorithm{jose.RS384, jose.ES384}
	for algorithm, outside := range map[string]crypto.Signer{RS384: testkeys.RSA(), ES384: testkeys.EC()} {
		key := must(newKey(outside))
		signed, err := jose.ParseSignedCompact(must(key.Sign(newToken(algorithm))), all)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signed.Verify(outside.Public()); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
		for _, other := range []string{"RS256", RS384, "PS384", ES384, "ES256", "HS384", "none"} {
			if text, err := key.Sign(newToken(other)); other != algorithm && (err == nil || text != "") {
				t.Errorf("a key for %s has signed with %s", algorithm, other)
			}
		}
	}
}

func TestSealed(t *testing.T) {
	first, second := must(newKey(testkeys.EC())), must(newKey(testkeys.OtherEC()))
	sealed := must(first.Seal())
	if sealed.IsZero() || !sealed.Equal(must(first.Seal())) || sealed.Equal(must(second.Seal())) || sealed.Equal(Sealed{}) {
		t.Error("a sealed key is not equal to itself alone")
	}
	if (Sealed{}).IsZero() != true || !(Sealed{}).Equal(Sealed{}) {
		t.Error("no key is one")
	}
	if text := string(must(json.Marshal(Sealed{}))); text != "null" {
		t.Errorf("no key is stored as %s", text)
	}
	read := sealed
	if err := json.Unmarshal([]byte("null"), &read); err != nil || !read.IsZero() {
		t.Errorf("no key is read as one: %v", err)
	}
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.MarshalPKCS8PrivateKey(testkeys.EC()))
	for name, broken := range map[string]Sealed{
		"none": {}, "empty": seal(nil), "broken": seal([]byte("broken")), "cut short": seal(der[:100]),
		"on P-256": seal(must(x509.MarshalPKCS8PrivateKey(p256))),
	} {
		if key, err := broken.Open(); key != nil || err == nil || err.Error() != "the stored private key is unreadable" {
			t.Errorf("%s: %v, and a key: %v", name, err, key != nil)
		}
	}
}

// What a careless programmer might do with a key must not show it.
func TestKeysNeverPrintThemselves(t *testing.T) {
	for _, outside := range []crypto.Signer{testkeys.RSA(), testkeys.EC()} {
		key := must(newKey(outside))
		sealed := must(key.Seal())
		if text := fmt.Sprintf("%v %+v %#v %s %d", key, key, key, sealed, &sealed); text !=
			"[private key] [private key] [private key] [sealed private key] [sealed private key]" {
			t.Errorf("the keys do not say what they are: %d bytes", len(text))
		}
		if text := string(must(json.Marshal(key))); text != `"[private key]"` {
			t.Errorf("as JSON the key has %d bytes", len(text))
		}
		scanner := leakcheck.New()
		if err := scanner.AddKey("outside", outside); err != nil {
			t.Fatal(err)
		}
		type hidden struct { // fmt can't call the methods of what is in unexported fields
			key    *Key
			value  Key
			sealed Sealed
		}
		for _, value := range []any{key, *key, sealed, &sealed, []Sealed{sealed}, hidden{key, *key, sealed}} {
			for _, verb := range strings.Fields("%v %+v %#v %s %q %d %x %X %o %b %t %c %U") {
				if found := scanner.Scan(fmt.Appendf(nil, verb, value)); len(found) > 0 {
					t.Errorf("%T printed with %s shows %v", value, verb, found)
				}
			}
		}
	}
}
