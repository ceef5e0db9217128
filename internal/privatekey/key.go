// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package privatekey is the only code that touches the bytes of private keys. It generates them, parses what people
// bring, unwraps imports, seals keys for storage and opens them again, and signs JSON Web Tokens. Its types are opaque:
// a Key that is formatted or encoded shows nothing of itself, and a Sealed shows its bytes to encoding/json alone,
// which is what storing takes.
package privatekey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	"github.com/golang-jwt/jwt/v5"

	"vault-plugin-secrets-redox/internal/jwk"
)

// The signature algorithms that Redox accepts (RFC 7518 section 3.1). The kind of a key decides which of them it signs
// with: RSA keys with RS384, P-384 keys with ES384.
const (
	RS384 = jwk.RS384
	ES384 = jwk.ES384
)

// Algorithms returns the signature algorithms, the default first.
func Algorithms() []string { return []string{RS384, ES384} }

// Key is a private key, of a signing key or of the key that opens wrapped imports. It is never changed, so that many
// goroutines may use it at the same time.
type Key struct {
	algorithm string
	signer    crypto.Signer // *rsa.PrivateKey or *ecdsa.PrivateKey
}

// Format implements fmt.Formatter: whatever the verb, it writes "[private key]".
func (*Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[private key]") }

// MarshalJSON implements json.Marshaler: it returns the string "[private key]".
func (*Key) MarshalJSON() ([]byte, error) { return []byte(`"[private key]"`), nil }

// Algorithm returns the algorithm that the key signs with, RS384 or ES384.
func (k *Key) Algorithm() string { return k.algorithm }

// Public returns the public half, an *rsa.PublicKey or an *ecdsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.signer.Public() }

// RSABits returns the size of the modulus in bits, 0 for an EC key.
func (k *Key) RSABits() int {
	if key, ok := k.signer.(*rsa.PrivateKey); ok {
		return key.N.BitLen()
	}
	return 0
}

// Sign returns the token in its compact form (RFC 7515 section 7.1), signed with the key. It fails if the token's
// signing method is not the key's algorithm: a key is used with one algorithm only (RFC 8725 section 3.1). The error
// holds nothing of the key or the token.
func (k *Key) Sign(token *jwt.Token) (string, error) {
	if token.Method.Alg() != k.algorithm {
		return "", fmt.Errorf("a key for %s can't sign with %s", k.algorithm, token.Method.Alg())
	}
	signed, err := token.SignedString(k.signer)
	if err != nil {
		return "", errors.New("the private key could not sign")
	}
	return signed, nil
}

// newKey takes a parsed key of a kind that one of the algorithms signs with. Others are an InputError.
func newKey(parsed any) (*Key, error) {
	switch parsed := parsed.(type) {
	case *rsa.PrivateKey:
		return &Key{RS384, parsed}, nil
	case *ecdsa.PrivateKey:
		if parsed.Curve != elliptic.P384() {
			return nil, refuse("the EC key is on curve "+parsed.Curve.Params().Name, useP384)
		}
		return &Key{ES384, parsed}, nil
	default:
		return nil, refuse("the key is neither RSA nor EC", useRSAOrP384)
	}
}
