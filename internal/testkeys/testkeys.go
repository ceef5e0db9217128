// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package testkeys makes private keys as people bring them, in every form that can be imported and in many that can't,
// and wraps them as the tools for Vault's transit engine do. It is for tests.
package testkeys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// Keys as somebody made them outside Vault. Each is made once, since an RSA key takes a while.
var (
	RSA      = once(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	OtherRSA = once(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	EC       = once(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) })
	OtherEC  = once(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) })
)

func once[T any](make func() (T, error)) func() T {
	return sync.OnceValue(func() T { return must(make()) })
}

// must is for what can't fail on input that the tests themselves made.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// PEM returns one PEM block.
func PEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// PKCS8 returns the private key as PKCS#8 in PEM.
func PKCS8(key crypto.PrivateKey) string {
	return PEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
}

// JWK returns the members of a JWK, private or public as the key is, as go-jose writes it.
func JWK(key any) map[string]any {
	var members map[string]any
	if err := json.Unmarshal(must(jose.JSONWebKey{Key: key}.MarshalJSON()), &members); err != nil {
		panic(err)
	}
	return members
}

// Changed returns a copy of a JWK with other members; nil takes a member away.
func Changed(members, changes map[string]any) map[string]any {
	members = maps.Clone(members)
	for name, value := range changes {
		if members[name] = value; value == nil {
			delete(members, name)
		}
	}
	return members
}

// base64urlUInt is Base64urlUInt (RFC 7518 section 2).
func base64urlUInt(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
