// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package jwk writes public keys as JSON Web Keys (RFC 7517, RFC 7518), and reads and writes them as PKIX DER (RFC 5280
// section 4.1.2.7). It holds public material only.
package jwk

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// The values of the member "alg" (RFC 7518 section 3.1): RSA keys are for RS384, P-384 keys for ES384.
const (
	RS384 = "RS384"
	ES384 = "ES384"
)

// Public is a public key as RFC 7517 writes it. It has no member that could hold a private number.
type Public struct {
	KeyType   string `json:"kty"`
	KID       string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`

	Modulus  string `json:"n,omitempty"`
	Exponent string `json:"e,omitempty"`

	Curve string `json:"crv,omitempty"`
	X     string `json:"x,omitempty"`
	Y     string `json:"y,omitempty"`
}

// New describes an RSA or P-384 public key (RFC 7518 sections 6.2.1 and 6.3.1). An empty kid stands for the key's
// thumbprint. Keys of other kinds are an error.
func New(public crypto.PublicKey, kid string) (*Public, error) {
	described := &Public{Use: "sig"}
	encode := base64.RawURLEncoding.EncodeToString
	switch public := public.(type) {
	case *rsa.PublicKey:
		described.KeyType, described.Algorithm = "RSA", RS384
		described.Modulus, described.Exponent = encode(public.N.Bytes()), encode(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, x, y
		if err != nil || public.Curve != elliptic.P384() {
			return nil, errors.New("an EC public key is not on curve P-384")
		}
		size := (len(point) - 1) / 2
		described.KeyType, described.Algorithm, described.Curve = "EC", ES384, "P-384"
		described.X, described.Y = encode(point[1:1+size]), encode(point[1+size:])
	default:
		return nil, fmt.Errorf("a public key of type %T can't be written as a JWK", public)
	}
	described.KID = kid
	if kid == "" {
		described.KID = described.Thumbprint()
	}
	return described, nil
}

// FromPKIX is New for a public key as MarshalPKIX returned it.
func FromPKIX(der []byte, kid string) (*Public, error) {
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("the public key is not PKIX DER")
	}
	return New(public, kid)
}

// MarshalPKIX returns a public key as a SubjectPublicKeyInfo in DER, which is what a PEM block "PUBLIC KEY" holds.
func MarshalPKIX(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, errors.New("the public key can't be encoded")
	}
	return der, nil
}

// Thumbprint returns the key's thumbprint with SHA-256 (RFC 7638 section 3), in base64url: a hash of the required
// members in lexical order.
func (p *Public) Thumbprint() string {
	var required any
	if p.KeyType == "RSA" {
		required = struct {
			Exponent string `json:"e"`
			KeyType  string `json:"kty"`
			Modulus  string `json:"n"`
		}{p.Exponent, p.KeyType, p.Modulus}
	} else {
		required = struct {
			Curve   string `json:"crv"`
			KeyType string `json:"kty"`
			X       string `json:"x"`
			Y       string `json:"y"`
		}{p.Curve, p.KeyType, p.X, p.Y}
	}
	text, _ := json.Marshal(required) // strings only: can't fail
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Compact returns the JWK as one line of JSON, fit to paste into the Redox dashboard.
func (p *Public) Compact() string {
	text, _ := json.Marshal(p) // strings only: can't fail
	return string(text)
}

// RSABits returns the size of the modulus in bits, 0 for an EC key.
func (p *Public) RSABits() int {
	modulus, err := base64.RawURLEncoding.DecodeString(p.Modulus)
	if err != nil {
		return 0
	}
	return new(big.Int).SetBytes(modulus).BitLen()
}
