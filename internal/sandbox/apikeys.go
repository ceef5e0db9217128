// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// The flags Redox's environments have.
const (
	Development = "Development"
	Staging     = "Staging"
	Production  = "Production"
)

// Environment is where an API key belongs. A new sandbox has one of each flag, with the IDs
// "development-environment", "staging-environment" and "production-environment".
type Environment struct {
	ID   string `json:"id"`
	Flag string `json:"environmentFlag"` // Development, Staging or Production
}

// environmentID is the ID of the environment that a new sandbox has for a flag.
func environmentID(flag string) string { return strings.ToLower(flag) + "-environment" }

// APIKey is an OAuth API key as the dashboard keeps it: a client ID, and where its public keys are.
type APIKey struct {
	ID          string          `json:"id"` // also the client ID
	Name        string          `json:"name"`
	JWKSURL     string          `json:"jwksURL,omitempty"`
	JWKSet      json.RawMessage `json:"jwkSet,omitempty"` // {"keys": [...]}, as it was set, foreign members included
	Scope       string          `json:"scope,omitempty"`  // granted to requests that ask for none
	Environment Environment     `json:"environment"`
	Management  bool            `json:"management"` // a user-level key, which may use the Platform API
}

// clone gives a copy that shares no bytes.
func (k APIKey) clone() APIKey {
	k.JWKSet = slices.Clone(k.JWKSet)
	return k
}

// apiKeyStore holds the API keys and environments, in the order they were made.
type apiKeyStore struct {
	mu           sync.Mutex
	keys         map[string]APIKey
	order        []string
	environments map[string]string // flags by ID
}

func newAPIKeyStore() *apiKeyStore {
	s := &apiKeyStore{keys: map[string]APIKey{}, environments: map[string]string{}}
	for _, flag := range []string{Development, Staging, Production} {
		s.environments[environmentID(flag)] = flag
	}
	return s
}

// put adds an API key, or replaces the one with its ID.
func (s *apiKeyStore) put(k APIKey) APIKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.ID == "" {
		k.ID = newID()
	}
	if k.Environment.Flag == "" {
		k.Environment.Flag = Development
		if flag, ok := s.environments[k.Environment.ID]; ok {
			k.Environment.Flag = flag
		}
	}
	if k.Environment.ID == "" {
		k.Environment.ID = environmentID(k.Environment.Flag)
	}
	s.environments[k.Environment.ID] = k.Environment.Flag
	if _, known := s.keys[k.ID]; !known {
		s.order = append(s.order, k.ID)
	}
	s.keys[k.ID] = k.clone()
	return k.clone()
}

func (s *apiKeyStore) get(id string) (APIKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.keys[id]
	return k.clone(), ok
}

// change lets edit change the API key with this ID, and gives the result. False: there is none.
func (s *apiKeyStore) change(id string, edit func(*APIKey)) (APIKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.keys[id]
	if !ok {
		return APIKey{}, false
	}
	edit(&k)
	s.keys[id] = k.clone()
	return k.clone(), true
}

func (s *apiKeyStore) remove(id string) (APIKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.keys[id]
	if ok {
		delete(s.keys, id)
		s.order = slices.DeleteFunc(s.order, func(other string) bool { return other == id })
	}
	return k, ok
}

// list gives the API keys of an environment, or all of them for an empty ID, in the order they were made.
func (s *apiKeyStore) list(environmentID string) []APIKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := []APIKey{}
	for _, id := range s.order {
		if k := s.keys[id]; environmentID == "" || k.Environment.ID == environmentID {
			keys = append(keys, k.clone())
		}
	}
	return keys
}

// environment gives the environment with this ID.
func (s *apiKeyStore) environment(id string) (Environment, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	flag, ok := s.environments[id]
	return Environment{ID: id, Flag: flag}, ok
}

// newID gives a random ID in the form of a version 4 UUID, as Redox's are.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// CreateAPIKey adds an API key, or replaces the one with the same ID, and gives it back with what was left out
// filled in: a random ID, the Development environment. The JWK set is taken as it is, so that tests can make a
// broken one; SetJWKSet checks.
func (s *Sandbox) CreateAPIKey(k APIKey) APIKey { return s.apiKeys.put(k) }

// APIKey gives the API key with this ID, which is its client ID.
func (s *Sandbox) APIKey(id string) (APIKey, bool) { return s.apiKeys.get(id) }

// APIKeys gives all API keys, in the order they were made.
func (s *Sandbox) APIKeys() []APIKey { return s.apiKeys.list("") }

// DeleteAPIKey takes an API key away and says whether it was there. Tokens it got live on until they expire:
// Redox documents no revocation.
func (s *Sandbox) DeleteAPIKey(id string) bool {
	_, ok := s.apiKeys.remove(id)
	return ok
}

// SetJWKSet replaces an API key's JWK set as a whole, and takes its JWKS URL away. It rejects what the Platform
// API rejects.
func (s *Sandbox) SetJWKSet(id string, jwkSet json.RawMessage) error {
	return s.setKeys(id, &keySource{JWKSet: jwkSet})
}

// SetJWKSURL sets an API key's JWKS URL, and takes its JWK set away.
func (s *Sandbox) SetJWKSURL(id, jwksURL string) error {
	return s.setKeys(id, &keySource{JWKSURL: &jwksURL})
}

// SetJWK makes one public JWK (RFC 7517) the API key's whole JWK set.
func (s *Sandbox) SetJWK(id string, jwk json.RawMessage) error {
	return s.setKeys(id, &keySource{JWK: jwk})
}

func (s *Sandbox) setKeys(id string, source *keySource) error {
	if err := source.resolveStated(); err != nil {
		return err
	}
	if _, ok := s.apiKeys.change(id, source.apply); !ok {
		return fmt.Errorf("there is no API key with the ID %q; create it first", printable(id))
	}
	return nil
}
