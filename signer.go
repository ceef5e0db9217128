// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"vault-plugin-secrets-redox/internal/gate"
	"vault-plugin-secrets-redox/internal/privatekey"
)

// assertionClaims is what a client assertion holds (RFC 7523 section 3, REDOX.md).
type assertionClaims struct {
	clientID string
	audience string
	kid      string
	jku      string        // left out when empty
	now      time.Time     // by this node's clock
	backdate time.Duration // how far iat lies before now
	lifetime time.Duration // from now to exp
}

// signAssertion returns a client assertion with a jti of its own, as a compact JWT (RFC 7519) signed with the key. The
// error holds nothing of either.
func signAssertion(key *privatekey.Key, c assertionClaims) (string, error) {
	token := jwt.NewWithClaims(jwt.GetSigningMethod(key.Algorithm()), jwt.MapClaims{
		"iss": c.clientID,
		"sub": c.clientID,
		"aud": c.audience,
		"iat": c.now.Add(-c.backdate).Unix(),
		"exp": c.now.Add(c.lifetime).Unix(),
		"jti": rand.Text(),
	})
	token.Header["kid"] = c.kid
	if c.jku != "" {
		token.Header["jku"] = c.jku
	}
	assertion, err := key.Sign(token)
	if err != nil {
		return "", fmt.Errorf("signing the client assertion with kid %q failed", c.kid)
	}
	return assertion, nil
}

// signing is the gate of all mounts of the process, since they share its processors.
var signing = gate.New(gate.Limits{AtOnce: signaturesAtOnce()}, nil)

// signer opens private keys and signs with them, a few at a time. It keeps none open: an opened key would save 9 % of an RS384
// signature and a third of an ES384 assertion (BenchmarkAssertion), and be one more copy to look after.
type signer struct{ gate *gate.Gate }

// sign returns a client assertion, signed with a version of the named key. claims is called when it is its turn. A version that
// can't be opened is an unusableEntry.
func (s *signer) sign(ctx context.Context, name string, v *keyVersion, claims func() assertionClaims) (assertion string, err error) {
	err = atGate(ctx, s.gate, func() error {
		key, err := v.PrivateKey.Open()
		if err != nil {
			return unreadableEntry(keysStoragePrefix + name)
		}
		assertion, err = signAssertion(key, claims())
		return err
	})
	return assertion, err
}
