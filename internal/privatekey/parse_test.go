// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"crypto"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"vault-plugin-secrets-redox/internal/jwk"
	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/testkeys"
)

// must is for what can't fail on input that the tests themselves made.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// inputText returns an input as Parse gets it: objects as their JSON text.
func inputText(input any) string {
	if text, ok := input.(string); ok {
		return text
	}
	return string(must(json.Marshal(input)))
}

// same reports whether two keys have the same numbers, the private ones included. Which of two primes is the first does not
// matter: it can't be known of a key that came without them.
func same(a, b *Key) bool {
	if rsaA, isRSA := a.signer.(*rsa.PrivateKey); isRSA {
		rsaB, isRSA := b.signer.(*rsa.PrivateKey)
		return isRSA && rsaA.PublicKey.Equal(&rsaB.PublicKey) && rsaA.D.Cmp(rsaB.D) == 0 && len(rsaA.Primes) == 2 && len(rsaB.Primes) == 2 &&
			(rsaA.Primes[0].Cmp(rsaB.Primes[0]) == 0 || rsaA.Primes[0].Cmp(rsaB.Primes[1]) == 0)
	}
	return a.algorithm == b.algorithm && a.signer.(interface{ Equal(crypto.PrivateKey) bool }).Equal(b.signer)
}

// stored returns a key as it comes back from where it is stored.
func stored(t *testing.T, key *Key) *Key {
	t.Helper()
	text, err := json.Marshal(must(key.Seal()))
	if err != nil {
		t.Fatal(err)
	}
	var sealed Sealed
	if err := json.Unmarshal(text, &sealed); err != nil {
		t.Fatal(err)
	}
	opened, err := sealed.Open()
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// checkRefusal fails the test unless an error is fit to be shown, and names a way out.
func checkRefusal(t *testing.T, err error) {
	t.Helper()
	if refused := (*InputError)(nil); !errors.As(err, &refused) || refused.Problem == "" || refused.WayOut == "" {
		t.Fatalf("the error %q does not name a problem and a way out", err)
	}
	text := err.Error()
	if len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("the error is not fit to be read: %q", text)
	}
}

func TestParse(t *testing.T) {
	for _, test := range testkeys.Importable() {
		t.Run(test.Name, func(t *testing.T) {
			key, kid, err := Parse(inputText(test.Input), "")
			if err != nil {
				t.Fatal(err)
			}
			if kid != test.KID {
				t.Errorf("the kid is %q, want %q", kid, test.KID)
			}
			if !same(key, must(newKey(test.Key))) || !same(stored(t, key), key) {
				t.Error("another key was read")
			}
			if described := must(jwk.New(key.Public(), "")); described.Algorithm != key.Algorithm() ||
				described.RSABits() != key.RSABits() {
				t.Errorf("the key is for %s with %d bits, its JWK %v", key.Algorithm(), key.RSABits(), described)
			}
		})
	}
}

// Each refusal names the reason and a way out, and repeats nothing of the key.
func TestParseRefusals(t *testing.T) {
	for _, test := range append(testkeys.Refusable(),
		testkeys.Case{Name: "empty", Want: "it is missing or empty; give one unencrypted private key"}) {
		t.Run(test.Name, func(t *testing.T) {
			input := ""
			if test.Input != nil {
				input = inputText(test.Input)
			}
			key, kid, err := Parse(input, "")
			checkRefusal(t, err)
			if key != nil || kid != "" {
				t.Error("there is an error, and a key")
			}
			if !strings.Contains(err.Error(), test.Want) || len(err.Error()) > 400 {
				t.Errorf("refused with %q, want %q", err, test.Want)
			}
			scanner := leakcheck.New()
			if test.Key != nil {
				if err := scanner.AddKey("refused", test.Key); err != nil {
					t.Fatal(err)
				}
			}
			if found := scanner.Scan([]byte(err.Error())); len(found) > 0 {
				t.Errorf("the error holds %v", found)
			}
		})
	}
}

// An error means that there is no key. A key that was read comes back the same from where it is stored.
func FuzzParse(f *testing.F) {
	for _, seed := range slices.Concat(testkeys.Importable(), testkeys.Refusable()) {
		f.Add(inputText(seed.Input))
	}
	for _, seed := range []string{"", "null", "true", "12345", "[{}]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		key, kid, err := Parse(input, "")
		if err != nil {
			checkRefusal(t, err)
			if key != nil || kid != "" {
				t.Error("there is an error, and a key")
			}
			return
		}
		if !slices.Contains(Algorithms(), key.algorithm) {
			t.Errorf("the key is for algorithm %q", key.algorithm)
		}
		if !same(stored(t, key), key) {
			t.Error("the key came back from storage as another one")
		}
	})
}

// A key that is imported, whatever its encoding looked like, signs what others verify with the public JWK that is shown
// for it; an error means that there is no key.
func FuzzParseDER(f *testing.F) {
	kinds := []string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"}
	seeds := 0
	for _, seed := range slices.Concat(testkeys.Importable(), testkeys.Refusable()) {
		text, _ := seed.Input.(string)
		block, rest := pem.Decode([]byte(text))
		if block != nil && block.Type == "EC PARAMETERS" {
			block, _ = pem.Decode(rest)
		}
		for i, kind := range kinds {
			if block != nil && block.Type == kind {
				f.Add(block.Bytes, uint8(i))
				seeds++
			}
		}
	}
	if seeds < 10 {
		f.Fatalf("there are only %d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, der []byte, kind uint8) {
		key, kid, err := Parse(testkeys.PEM(kinds[int(kind)%len(kinds)], der), "")
		if kid != "" {
			t.Errorf("PEM has no kid, but %q was read", kid)
		}
		if err != nil {
			if key != nil {
				t.Error("there is an error, and a key")
			}
			checkRefusal(t, err)
			return
		}
		opened, err := must(key.Seal()).Open()
		if err != nil || !same(opened, key) {
			t.Fatalf("the key does not come back from storage: %v", err)
		}
		own, err := jwk.New(key.Public(), "")
		if err != nil {
			t.Fatal(err)
		}
		var public jose.JSONWebKey
		if err := json.Unmarshal([]byte(own.Compact()), &public); err != nil || !public.IsPublic() || !public.Valid() {
			t.Fatalf("others can't read the public JWK: %v", err)
		}
		assertion, err := opened.Sign(newToken(opened.algorithm))
		if err != nil {
			t.Fatal(err)
		}
		signed, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.RS384, jose.ES384})
		if err != nil {
			t.Fatal("the assertion can't be parsed")
		}
		if _, err := signed.Verify(public); err != nil {
			t.Error("the signature is not of the public JWK")
		}
		if key.algorithm != own.Algorithm {
			t.Errorf("the key is for %s, its JWK for %s", key.algorithm, own.Algorithm)
		}
	})
}

// newToken returns a token to sign with an algorithm.
func newToken(algorithm string) *jwt.Token {
	return jwt.NewWithClaims(jwt.GetSigningMethod(algorithm), jwt.MapClaims{"iss": "client-1", "exp": 1772366460})
}
