// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
)

// Proof before promotion: to probe is to ask the server for a token with a version, to see whether it takes that.

// probed is what came of probing the wanted version for one client.
type probed struct {
	client rotation.Client
	answer string // why not; empty when the server accepted it
}

// probe probes the wanted version of a key for some clients. The tokens are discarded: only whether the server accepts
// the version counts. What is observed is noted. When the server gives no answer, the other clients stay due: waiting
// once is enough, for other work waits behind this.
func (m *maintainer) probe(ctx context.Context, s *keySnapshot, clients map[rotation.Client]*roleConfig, due []rotation.Client) ([]probed, error) {
	wanted, found := s.rotation().Wanted()
	if !found {
		return nil, nil
	}
	var outcomes []probed
	for _, client := range due {
		c := clients[client]
		if c == nil {
			continue // not configured any more
		}
		rejection, err := m.probeClient(ctx, c, s.signingKey, s.version(wanted.Number))
		if err != nil {
			return outcomes, err
		}
		observed := outcome{accepted: wanted.Number, acceptedTime: m.now().Wall}
		answer := ""
		if rejection != nil {
			answer = rejection.Error()
			observed = outcome{rejected: wanted.Number, rejectedTime: m.now().Wall, answer: answer}
			m.telemetry.logger.Debug("Redox does not accept a version yet", "key", s.name, "kid", wanted.KID,
				"client_id", client.ClientID, "answer", answer)
		}
		m.keys.observeProbe(s.name, client, observed)
		outcomes = append(outcomes, probed{client, answer})
		if unanswered(rejection) {
			break
		}
	}
	return outcomes, nil
}

// probeWait bounds one probe.
const probeWait = 20 * time.Second

// probeClient asks the server for a token with one version. The rejection is why there is none; it is nil when there is
// one.
func (m *maintainer) probeClient(ctx context.Context, c *roleConfig, k *signingKey, v *keyVersion) (rejection, err error) {
	if missing := m.notServed(ctx, c, k, v.KID); missing != "" {
		return errors.New(missing), nil
	}
	key, err := v.PrivateKey.Open() // not kept open: probes are rare
	if err != nil {
		return nil, unreadableEntry(keysStoragePrefix + k.name)
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	_, _, err = m.minter.request(ctx, c, key, v.KID)
	if remote := (*redox.Error)(nil); errors.As(err, &remote) {
		return remote, nil
	}
	return nil, err
}

// activate probes the pending version of a key now, for every client that has used the key (if none has, for those that
// are configured to), and promotes it if it was accepted for all. It returns the key before and after. Without a pending
// version it changes nothing.
func (m *maintainer) activate(ctx context.Context, name string) (before, after *keySnapshot, err error) {
	s, err := m.keys.existing(ctx, "name", name)
	if err != nil {
		return nil, nil, err
	}
	if s.in(rotation.Pending) == nil {
		if s.in(rotation.Active) == nil {
			return nil, nil, explain(s.signingKey, rotation.ErrNoPending)
		}
		return s, s, nil
	}
	clients, err := (&configuredClients{store: m.store}).of(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	var due []rotation.Client
	for _, standing := range s.rotation().Waiting() {
		due = append(due, standing.Client)
	}
	if len(s.clients.Standings) == 0 {
		due = slices.Collect(maps.Keys(clients))
	}
	if err := m.register(ctx, s, clients, false); err != nil {
		return nil, nil, err
	}
	outcomes, err := m.probe(ctx, s, clients, due)
	if err != nil {
		return nil, nil, err
	}
	after, err = m.keys.apply(ctx, name, rotation.Activate{})
	if not := (*rotation.NotAcceptedError)(nil); errors.As(err, &not) {
		return nil, nil, notAccepted(name, not.Waiting, outcomes)
	}
	return s, after, err
}

// notAccepted explains which clients the pending version was not accepted for, and why: those that it was probed for,
// and those that it was not.
func notAccepted(name string, waiting []rotation.Client, outcomes []probed) error {
	answers := map[string]string{} // by client ID
	for _, client := range waiting {
		answers[client.ClientID] = "not tried"
	}
	for _, o := range outcomes {
		if o.answer != "" {
			answers[o.client.ClientID] = o.answer
		}
	}
	clientIDs := map[string][]string{} // by answer: most have the same
	for _, clientID := range slices.Sorted(maps.Keys(answers)) {
		clientIDs[answers[clientID]] = append(clientIDs[answers[clientID]], clientID)
	}
	problem := "no client ID uses the key, so there is nobody to ask Redox for"
	if len(answers) > 0 {
		var words []string
		for _, answer := range slices.Sorted(maps.Keys(clientIDs)) {
			words = append(words, "client ID "+someOf(clientIDs[answer])+": "+answer)
		}
		problem = "Redox does not accept the pending version for every client ID: " + strings.Join(words, "; ")
	}
	return fieldError("name", "see to it that Redox knows pending_public_jwk, then activate again; or, where Vault can't reach Redox, add force=true",
		"key %q stays as it is: %s", name, problem)
}

// configuredClients finds the clients of each key, once for all keys of a pass, and only if asked.
type configuredClients struct {
	store *store
	byKey map[string]map[rotation.Client]*roleConfig
}

// of returns the clients of a key: of the configuration or of a role, disabled ones included, for they may come back.
func (c *configuredClients) of(ctx context.Context, key string) (map[rotation.Client]*roleConfig, error) {
	if c.byKey == nil {
		byKey, err := findClients(ctx, c.store)
		if err != nil {
			return nil, err
		}
		c.byKey = byKey
	}
	return c.byKey[key], nil
}

// findClients reads the configuration and all roles, and returns their clients by key.
func findClients(ctx context.Context, s *store) (map[string]map[rotation.Client]*roleConfig, error) {
	c, _, err := s.config(ctx)
	if err != nil {
		return nil, err
	}
	roles, unusable, err := s.roles(ctx)
	if err != nil {
		return nil, err
	}
	if len(unusable) > 0 { // any client may be that of such a role
		return nil, unusable[0]
	}
	byKey := map[string]map[rotation.Client]*roleConfig{}
	add := func(r *role) {
		own := r.overlay(c)
		if own.ClientID == "" || own.Key == "" {
			return
		}
		if byKey[own.Key] == nil {
			byKey[own.Key] = map[rotation.Client]*roleConfig{}
		}
		byKey[own.Key][own.client()] = &own
	}
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		add(roles[name])
	}
	add(&role{}) // last: where a role has the configuration's client, the configuration counts
	return byKey, nil
}
