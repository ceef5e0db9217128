// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A key that is imported, whatever its encoding looked like, signs what others verify with the public JWK that is shown
// for it; an error means that there is no key.
func FuzzImportedDER(f *testing.F) {
	kinds := []string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"}
	seeds := 0
	for _, seed := range append(importable(), refusable()...) {
		text, _ := seed.input.(string)
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
	claims := assertionClaims{
		clientID: "client-1", audience: "https://redox.test", kid: "kid", now: time.Unix(1772366400, 0), lifetime: time.Minute,
	}
	f.Fuzz(func(t *testing.T, der []byte, kind uint8) {
		key, kid, err := parsePrivateKey(pemText(kinds[int(kind)%len(kinds)], der))
		if kid != "" {
			t.Errorf("PEM has no kid, but %q was read", kid)
		}
		if err != nil {
			if key != nil {
				t.Error("there is an error, and a key")
			}
			checkRefusal(t, err, privateKeyField, "")
			return
		}
		opened, err := must(key.seal()).open()
		if err != nil || !opened.key.(interface{ Equal(crypto.PrivateKey) bool }).Equal(key.key) {
			t.Fatalf("the key does not come back from storage: %v", err)
		}
		own, err := newPublicJWK(key.public(), "")
		if err != nil {
			t.Fatal(err)
		}
		var public jose.JSONWebKey
		if err := json.Unmarshal([]byte(own.compact()), &public); err != nil || !public.IsPublic() || !public.Valid() {
			t.Fatalf("others can't read the public JWK: %v", err)
		}
		assertion, err := opened.sign(claims)
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
