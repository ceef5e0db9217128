// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
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

// signer opens private keys and signs with them, a few at a time. It keeps the keys in use open: to open an RSA key costs a
// good part of a signature. A key is found by its stored bytes, so what is found is never out of date; forget is there so
// that no key outlives its deletion in memory.
type signer struct {
	gate *gate.Gate

	mu     sync.Mutex // not held while a key is opened
	byName map[string][]openKey
}

type openKey struct {
	sealed privatekey.Sealed
	key    *privatekey.Key
}

// sign returns a client assertion. claims is called when it is its turn.
func (s *signer) sign(ctx context.Context, key *privatekey.Key, claims func() assertionClaims) (assertion string, err error) {
	err = atGate(ctx, s.gate, func() error {
		assertion, err = signAssertion(key, claims())
		return err
	})
	return assertion, err
}

// open returns the private key of a version of the named signing key, opened when it is its turn, or before. It is kept if
// what was read is current then, which is asked under the lock that forget takes. An entry that can't be opened is an
// unusableEntry.
func (s *signer) open(ctx context.Context, name string, sealed privatekey.Sealed, current func() bool) (key *privatekey.Key, err error) {
	if key = s.find(name, sealed); key != nil {
		return key, nil
	}
	err = atGate(ctx, s.gate, func() error {
		if key = s.find(name, sealed); key != nil { // another has opened it meanwhile
			return nil
		}
		if key, err = sealed.Open(); err != nil {
			return unreadableEntry(keysStoragePrefix + name)
		}
		s.keep(name, openKey{sealed, key}, current)
		return nil
	})
	return key, err
}

// find returns a key that is open, nil when it is not.
func (s *signer) find(name string, sealed privatekey.Sealed) *privatekey.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.byName[name] {
		if known.sealed.Equal(sealed) {
			return known.key
		}
	}
	return nil
}

func (s *signer) keep(name string, opened openKey, current func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !current() || slices.ContainsFunc(s.byName[name], func(known openKey) bool { return known.sealed.Equal(opened.sealed) }) {
		return
	}
	if s.byName == nil {
		s.byName = map[string][]openKey{}
	}
	s.byName[name] = append(s.byName[name], opened)
}

// forget drops the named key's versions.
func (s *signer) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, name)
}
