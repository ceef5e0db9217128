// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package jwk

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

	"vault-plugin-secrets-redox/internal/testkeys"
)

// must is for what can't fail on input that the tests themselves made.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

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
	jwk, err := New(key.Key, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; jwk.KID != want {
		t.Errorf("the thumbprint is %s, want %s", jwk.KID, want)
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
	for name, key := range map[string]crypto.Signer{"RSA": testkeys.RSA(), "EC": testkeys.EC(), "EC with a short x": short} {
		t.Run(name, func(t *testing.T) {
			own, err := New(key.Public(), "")
			if err != nil {
				t.Fatal(err)
			}
			var read jose.JSONWebKey
			if err := json.Unmarshal([]byte(own.Compact()), &read); err != nil {
				t.Fatal(err)
			}
			if !read.IsPublic() || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(read.Key) {
				t.Error("go-jose reads another key")
			}
			thumbprint := must(read.Thumbprint(crypto.SHA256))
			if read.KeyID != base64.RawURLEncoding.EncodeToString(thumbprint) {
				t.Errorf("the kid %s is not the thumbprint", read.KeyID)
			}
			if read.Use != "sig" || strings.ContainsAny(own.Compact(), " \n") {
				t.Errorf("unfit to paste: %s", own.Compact())
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
		if jwk, err := New(key, ""); err == nil {
			t.Errorf("a %T became %v", key, jwk)
		}
	}
}

// A key comes back from PKIX DER as the same JWK, with its size.
func TestPKIX(t *testing.T) {
	for name, test := range map[string]struct {
		key  crypto.Signer
		bits int
	}{"RSA": {testkeys.RSA(), 2048}, "EC": {testkeys.EC(), 0}} {
		der, err := MarshalPKIX(test.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		read, err := FromPKIX(der, "kid-1")
		if err != nil {
			t.Fatal(err)
		}
		if want := must(New(test.key.Public(), "kid-1")); *read != *want || read.KID != "kid-1" {
			t.Errorf("%s: read %v, want %v", name, read, want)
		}
		if read.RSABits() != test.bits {
			t.Errorf("%s: %d bits", name, read.RSABits())
		}
		if broken, err := FromPKIX(der[:len(der)-1], ""); err == nil {
			t.Errorf("%s: DER that is cut off became %v", name, broken)
		}
	}
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	if other, err := FromPKIX(must(MarshalPKIX(p256.Public())), ""); err == nil {
		t.Errorf("a P-256 key became %v", other)
	}
	if der, err := MarshalPKIX("no key"); err == nil {
		t.Errorf("a string became %x", der)
	}
	if bits := (&Public{Modulus: "not base64url"}).RSABits(); bits != 0 {
		t.Errorf("a modulus that can't be read has %d bits", bits)
	}
}
