// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// publicJWK is the public half of a signing key as RFC 7517 writes it. It has no member that could hold a private
// number.
type publicJWK struct {
	KeyType   string `json:"kty"`
	KeyID     string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`

	Modulus  string `json:"n,omitempty"`
	Exponent string `json:"e,omitempty"`

	Curve string `json:"crv,omitempty"`
	X     string `json:"x,omitempty"`
	Y     string `json:"y,omitempty"`
}

// newPublicJWK describes an RSA or P-384 public key (RFC 7518 sections 6.2.1 and 6.3.1). An empty kid stands for the
// key's thumbprint.
func newPublicJWK(public crypto.PublicKey, kid string) (*publicJWK, error) {
	jwk := &publicJWK{Use: "sig"}
	encode := base64.RawURLEncoding.EncodeToString
	switch public := public.(type) {
	case *rsa.PublicKey:
		jwk.KeyType, jwk.Algorithm = "RSA", algorithmRS384
		jwk.Modulus, jwk.Exponent = encode(public.N.Bytes()), encode(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, x, y
		if err != nil || public.Curve != elliptic.P384() {
			return nil, errors.New("an EC public key is not on curve P-384")
		}
		size := (len(point) - 1) / 2
		jwk.KeyType, jwk.Algorithm, jwk.Curve = "EC", algorithmES384, "P-384"
		jwk.X, jwk.Y = encode(point[1:1+size]), encode(point[1+size:])
	default:
		return nil, fmt.Errorf("a public key of type %T can't be written as a JWK", public)
	}
	jwk.KeyID = kid
	if kid == "" {
		jwk.KeyID = jwk.thumbprint()
	}
	return jwk, nil
}

// thumbprint is RFC 7638's, with SHA-256: a hash of the required members in lexical order.
func (j *publicJWK) thumbprint() string {
	var required any
	if j.KeyType == "RSA" {
		required = struct {
			Exponent string `json:"e"`
			KeyType  string `json:"kty"`
			Modulus  string `json:"n"`
		}{j.Exponent, j.KeyType, j.Modulus}
	} else {
		required = struct {
			Curve   string `json:"crv"`
			KeyType string `json:"kty"`
			X       string `json:"x"`
			Y       string `json:"y"`
		}{j.Curve, j.KeyType, j.X, j.Y}
	}
	text, _ := json.Marshal(required) // strings only: can't fail
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// compact gives the JWK as one line of JSON, fit to paste into the Redox dashboard.
func (j *publicJWK) compact() string {
	text, _ := json.Marshal(j) // strings only: can't fail
	return string(text)
}

// rsaSize is the length of an RSA key's modulus in bits, 0 for other keys.
func rsaSize(public crypto.PublicKey) int {
	if key, ok := public.(*rsa.PublicKey); ok {
		return key.N.BitLen()
	}
	return 0
}
