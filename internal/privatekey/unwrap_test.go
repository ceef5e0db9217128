// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"hash"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"vault-plugin-secrets-redox/internal/testkeys"
)

// wrappingKey is a throw-away key, in an entry as it is stored.
var wrappingKey = sync.OnceValue(func() *Key {
	var entry struct {
		PrivateKey Sealed `json:"private_key"`
	}
	if err := json.Unmarshal(must(os.ReadFile("../../testdata/entries/v1-wrapping-key.json")), &entry); err != nil {
		panic(err)
	}
	return must(entry.PrivateKey.Open())
})

func under() *rsa.PublicKey { return wrappingKey().Public().(*rsa.PublicKey) }

// wrapped returns the ciphertext for a private key as DER.
func wrapped(newHash func() hash.Hash, der []byte) []byte {
	return must(base64.StdEncoding.DecodeString(testkeys.Wrapped(newHash, under(), der)))
}

func TestUnwrap(t *testing.T) {
	for _, outside := range []crypto.Signer{testkeys.RSA(), testkeys.EC()} {
		der := must(x509.MarshalPKCS8PrivateKey(outside))
		for _, newHash := range []func() hash.Hash{sha1.New, sha256.New224, sha256.New, sha512.New384, sha512.New} {
			key, err := wrappingKey().Unwrap(wrapped(newHash, der), newHash())
			if err != nil {
				t.Fatal(err)
			}
			if !same(key, must(newKey(outside))) {
				t.Error("another key was unwrapped")
			}
		}
	}
}

func TestUnwrapRefusals(t *testing.T) {
	der := must(x509.MarshalPKCS8PrivateKey(testkeys.EC()))
	good := wrapped(sha256.New, der)
	aesKey := testkeys.Random(32)
	first, second := testkeys.OAEP(sha256.New, under(), aesKey), testkeys.AESWrapPadded(aesKey, der)
	short := testkeys.OAEP(sha256.New, under(), aesKey[:16])
	for name, ciphertext := range map[string][]byte{
		"nothing":            nil,
		"a byte":             {0},
		"a byte too few":     good[:511],
		"the AES key alone":  first,
		"another hash":       wrapped(sha1.New, der),
		"AES-128":            slices.Concat(short, testkeys.AESWrapPadded(aesKey[:16], der)),
		"another AES key":    slices.Concat(testkeys.OAEP(sha256.New, under(), testkeys.Random(32)), second),
		"a bit of OAEP":      changedAt(good, 511),
		"a bit of the key":   changedAt(good, 512),
		"the last bit":       changedAt(good, len(good)-1),
		"a byte too many":    append(bytes.Clone(good), 0),
		"in clear":           slices.Concat(first, testkeys.Padded(der)),
		"the last byte gone": good[:len(good)-1],
	} {
		if key, err := wrappingKey().Unwrap(ciphertext, sha256.New()); key != nil || err != errUnwrap {
			t.Errorf("%s: %v, and a key: %v", name, err, key != nil)
		}
	}
	if key, err := must(newKey(testkeys.EC())).Unwrap(good, sha256.New()); key != nil || err != errUnwrap {
		t.Errorf("unwrapped with an EC key: %v, and a key: %v", err, key != nil)
	}
	const notPKCS8 = "what was wrapped is not PKCS#8 DER; wrap what this writes: openssl pkcs8"
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"PKCS#1":         {x509.MarshalPKCS1PrivateKey(testkeys.RSA()), notPKCS8},
		"SEC 1":          {must(x509.MarshalECPrivateKey(testkeys.EC())), notPKCS8},
		"PEM":            {[]byte(testkeys.PKCS8(testkeys.EC())), notPKCS8},
		"public key":     {must(x509.MarshalPKIXPublicKey(testkeys.EC().Public())), notPKCS8},
		"trailing bytes": {append(bytes.Clone(der), 0), "there is trailing data within the key's encoding; export"},
	} {
		key, err := wrappingKey().Unwrap(wrapped(sha256.New, test.content), sha256.New())
		checkRefusal(t, err)
		if key != nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s is refused with %q, want %q", name, err, test.want)
		}
	}
}

// changedAt returns a copy with a bit changed.
func changedAt(ciphertext []byte, i int) []byte {
	ciphertext = bytes.Clone(ciphertext)
	ciphertext[i] ^= 1
	return ciphertext
}

// Whatever is sent, an error means that there is no key. And whatever is wrapped, it is taken for what it is taken for in
// clear.
func FuzzUnwrap(f *testing.F) {
	for _, seed := range slices.Concat(testkeys.Importable(), testkeys.Refusable()) {
		text, _ := seed.Input.(string)
		if block, _ := pem.Decode([]byte(text)); block != nil {
			f.Add(block.Bytes, true)
		}
	}
	good := wrapped(sha256.New, must(x509.MarshalPKCS8PrivateKey(testkeys.EC())))
	f.Add(good, false)
	f.Add(good[:512], false)
	f.Add(testkeys.Random(512+24), false)
	f.Fuzz(func(t *testing.T, input []byte, wrapIt bool) {
		ciphertext := input
		if wrapIt {
			if len(input) < 16 {
				return
			}
			ciphertext = wrapped(sha256.New, input)
		}
		key, err := wrappingKey().Unwrap(ciphertext, sha256.New())
		if err != nil {
			checkRefusal(t, err)
			if key != nil {
				t.Error("there is an error, and a key")
			}
		}
		if !wrapIt || len(testkeys.PEM("PRIVATE KEY", input)) > MaxInputBytes {
			return
		}
		inClear, _, clearErr := Parse(testkeys.PEM("PRIVATE KEY", input), "")
		if pkcs8Content(input) == nil { // in clear other forms are taken, too
			return
		}
		if (err == nil) != (clearErr == nil) {
			t.Fatalf("wrapped: %v, in clear: %v", err, clearErr)
		}
		if err == nil && !same(inClear, key) {
			t.Error("wrapped it is another key than in clear")
		}
	})
}
