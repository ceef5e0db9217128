// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// The example of RFC 7638 section 3.1.
func TestThumbprintOfRFC7638(t *testing.T) {
	const example = `{"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxu` +
		`hDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQM` +
		`icAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBni` +
		`Iqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}`
	var key jose.JSONWebKey
	if err := json.Unmarshal([]byte(example), &key); err != nil {
		t.Fatal(err)
	}
	jwk, err := newPublicJWK(key.Key, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; jwk.KeyID != want {
		t.Errorf("the thumbprint is %s, want %s", jwk.KeyID, want)
	}
}

func TestPublicJWKIsReadByOthers(t *testing.T) {
	// A point whose x begins with a zero byte: RFC 7518 section 6.2.1.2 wants all 48 bytes.
	curve := elliptic.P384()
	var short *ecdsa.PrivateKey
	for d := int64(1); short == nil; d++ {
		key := must(ecdsa.ParseRawPrivateKey(curve, big.NewInt(d).FillBytes(make([]byte, 48))))
		if must(key.PublicKey.Bytes())[1] == 0 {
			short = key
		}
	}
	for name, key := range map[string]crypto.Signer{"RSA": outsideRSA(), "EC": outsideEC(), "EC with a short x": short} {
		t.Run(name, func(t *testing.T) {
			own, err := newPublicJWK(key.Public(), "")
			if err != nil {
				t.Fatal(err)
			}
			var read jose.JSONWebKey
			if err := json.Unmarshal([]byte(own.compact()), &read); err != nil {
				t.Fatal(err)
			}
			if !read.IsPublic() || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(read.Key) {
				t.Error("go-jose reads another key")
			}
			thumbprint := must(read.Thumbprint(crypto.SHA256))
			if read.KeyID != base64.RawURLEncoding.EncodeToString(thumbprint) {
				t.Errorf("the kid %s is not the thumbprint", read.KeyID)
			}
			if read.Use != "sig" || strings.ContainsAny(own.compact(), " \n") {
				t.Errorf("unfit to paste: %s", own.compact())
			}
		})
	}
}

func TestPublicJWKRefusesOtherKinds(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	for _, key := range []crypto.PublicKey{public, p256.Public()} {
		if jwk, err := newPublicJWK(key, ""); err == nil {
			t.Errorf("a %T became %v", key, jwk)
		}
	}
}
