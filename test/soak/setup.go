// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// clients are the OAuth API keys that use a signing key whose JWKs are registered by hand, here by the soak.
var clients = map[string][]string{
	"rs": {"client-rs"},
	"es": {"client-es", "client-leased"},
}

// rotated are the keys that rotations and faults are about.
var rotated = []string{"rs", "es", "platform"}

// setUp configures the mount: a key of each algorithm that is registered by hand, one that the engine registers through the
// Platform API, and roles for each, of which one hands out leases.
func (s *soak) setUp(ctx context.Context) error {
	type fields = map[string]any
	write := func(path string, body fields) error {
		_, err := s.vault.Must(ctx, http.MethodPost, mount+path, body)
		return err
	}
	for _, key := range rotated {
		s.dashboard[key] = &sync.Mutex{}
	}
	s.redox.CreateAPIKey(sandbox.APIKey{ID: "client-platform", Name: "client-platform"})
	s.redox.CreateAPIKey(sandbox.APIKey{ID: "manager", Name: "manager", Management: true})
	for key, algorithm := range map[string]string{"rs": "RS384", "es": "ES384", "platform": "ES384", "manager": "ES384"} {
		if err := write("keys/"+key, fields{"algorithm": algorithm}); err != nil {
			return err
		}
		if err := s.learnKey(ctx, key); err != nil {
			return err
		}
		for _, client := range clients[key] {
			s.redox.CreateAPIKey(sandbox.APIKey{ID: client, Name: client})
		}
	}
	if err := errors.Join(s.register(ctx, "rs", false), s.register(ctx, "es", false)); err != nil {
		return err
	}
	manager, err := s.readKey(ctx, "manager")
	if err != nil {
		return err
	}
	if err := s.redox.SetJWK("manager", json.RawMessage(manager.PublicJWK)); err != nil {
		return err
	}
	for _, one := range []struct {
		path string
		body fields
	}{
		{"config", s.config(0)},
		{"roles/rs", fields{"client_id": "client-rs", "key": "rs"}},
		{"roles/es", fields{"client_id": "client-es", "key": "es"}},
		{"roles/leased", fields{"client_id": "client-leased", "key": "es", "leased": true}},
		{"roles/platform", fields{"client_id": "client-platform", "key": "platform"}},
		{"roles/manager", fields{"client_id": "manager", "key": "manager"}},
		// The shortest period there is: runs of more than an hour see rotations that begin by themselves, too.
		{"keys/platform", fields{"registration": "platform", "platform_role": "manager", "rotation_period": "1h"}},
		{"keys/platform/register", nil},
	} {
		if err := write(one.path, one.body); err != nil {
			return err
		}
	}
	return nil
}

// config is the mount's configuration; n makes it another one. Requests that hang are given up soon, so that readers
// recover soon after a fault.
func (s *soak) config(n int) map[string]any {
	return map[string]any{
		"client_id": "client-rs", "key": "rs", "base_url": s.redox.BaseURL, "request_timeout": requestTimeout.String(),
		"max_retries": 2 + n%2,
	}
}

// shownKey is what the soak needs of the answers about a key and its versions.
type shownKey struct {
	PublicJWK        string `json:"public_jwk"`
	PendingPublicJWK string `json:"pending_public_jwk"`
	PendingKID       string `json:"pending_kid"`
	Versions         map[string]struct {
		State     string `json:"state"`
		PublicJWK string `json:"public_jwk"`
	} `json:"versions"`
}

func (s *soak) readKey(ctx context.Context, key string) (*shownKey, error) {
	a, err := s.vault.Do(ctx, http.MethodGet, mount+"keys/"+key, nil)
	if err != nil {
		return nil, err
	}
	var decoded struct{ Data *shownKey }
	if err := json.Unmarshal(a.Body, &decoded); err != nil || a.Status != http.StatusOK || decoded.Data == nil {
		return nil, errors.New("the key can't be read: " + a.Problem())
	}
	if a, err = s.vault.Do(ctx, http.MethodGet, mount+"keys/"+key+"/versions", nil); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(a.Body, &decoded); err != nil || a.Status != http.StatusOK {
		return nil, errors.New("the key's versions can't be read: " + a.Problem())
	}
	return decoded.Data, nil
}

// register does what an operator does in the dashboard, for a key that is registered by hand: add a pending version to those
// that are there, or put it in their place.
func (s *soak) register(ctx context.Context, key string, replace bool) error {
	shown, err := s.readKey(ctx, key)
	if err != nil {
		return err
	}
	set := []json.RawMessage{}
	for _, version := range shown.Versions {
		if version.State != "destroyed" && !(replace && version.State != "pending") {
			set = append(set, json.RawMessage(version.PublicJWK))
		}
	}
	text, err := json.Marshal(map[string]any{"keys": set})
	if err != nil {
		return err
	}
	for _, client := range clients[key] {
		err = errors.Join(err, s.redox.SetJWKSet(client, text))
	}
	return err
}
