// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

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

// openKeys keeps the keys in use parsed: parsing an RSA key costs a good part of a signature. A key is found by its
// stored bytes, so what is found is never out of date; forget is there so that no key outlives its deletion in memory.
type openKeys struct {
	mu     sync.Mutex
	byName map[string][]openKey
}

type openKey struct {
	sealed privatekey.Sealed
	key    *privatekey.Key
}

// open returns the private key of a version of the named signing key, parsed now or before. It is kept if what was read
// is current then, which is asked under the lock that forget takes. An entry that can't be parsed is an unusableEntry.
func (o *openKeys) open(name string, sealed privatekey.Sealed, current func() bool) (*privatekey.Key, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, known := range o.byName[name] {
		if known.sealed.Equal(sealed) {
			return known.key, nil
		}
	}
	key, err := sealed.Open()
	if err != nil {
		return nil, unreadableEntry(keysStoragePrefix + name)
	}
	if current() {
		if o.byName == nil {
			o.byName = map[string][]openKey{}
		}
		o.byName[name] = append(o.byName[name], openKey{sealed, key})
	}
	return key, nil
}

// forget drops the named key's versions.
func (o *openKeys) forget(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.byName, name)
}
