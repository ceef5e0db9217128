// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"maps"
	"slices"
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

// probeDue probes the wanted version of a key for some clients. The tokens are discarded: only whether the server
// accepts the version counts. What is learned is noted. When the server gives no answer, the other clients stay due:
// waiting once is enough, for other work waits behind this.
func (b *backend) probeDue(ctx context.Context, k *signingKey, clients map[rotation.Client]*client, due []rotation.Client) ([]probed, error) {
	wanted, found := k.rotationKey(rotation.Clients{}).Wanted()
	if !found {
		return nil, nil
	}
	var outcomes []probed
	for _, id := range due {
		c := clients[id]
		if c == nil {
			continue // not configured any more
		}
		rejection, err := b.probe(ctx, c, k, wanted.Number)
		if err != nil {
			return outcomes, err
		}
		learned := outcome{accepted: wanted.Number, acceptedTime: b.now().Wall}
		answer := ""
		if rejection != nil {
			answer = rejection.Error()
			learned = outcome{rejected: wanted.Number, rejectedTime: b.now().Wall, answer: answer}
			b.Logger().Debug("Redox does not accept a version yet", "key", k.name, "kid", wanted.KID,
				"client_id", id.ClientID, "answer", answer)
		}
		b.learned.note(k.name, id, learned)
		outcomes = append(outcomes, probed{id, answer})
		if unanswered(rejection) {
			break
		}
	}
	return outcomes, nil
}

// prove probes the pending version of a key now, for every client that has used the key; if none has, for those that
// are configured to.
func (b *backend) prove(ctx context.Context, k *signingKey) ([]probed, error) {
	byKey, err := b.findClients(ctx)
	if err != nil {
		return nil, err
	}
	clients := byKey[k.name]
	stored, err := b.acceptanceOf(ctx, b.storage, k)
	if err != nil {
		return nil, err
	}
	var due []rotation.Client
	for _, standing := range k.rotationKey(stored.Clients).Waiting() {
		due = append(due, standing.Client)
	}
	if len(stored.Standings) == 0 {
		due = slices.Collect(maps.Keys(clients))
	}
	if err := b.register(ctx, k, clients, false); err != nil {
		return nil, err
	}
	return b.probeDue(ctx, k, clients, due)
}

// probeWait bounds one probe.
const probeWait = 20 * time.Second

// probe asks the server for a token with one version. The rejection is why there is none; it is nil when there is one.
func (b *backend) probe(ctx context.Context, c *client, k *signingKey, number int) (rejection, err error) {
	if missing := b.notServed(ctx, c, k, k.version(number).KID); missing != "" {
		return errors.New(missing), nil
	}
	attempt := *c
	attempt.version = k.version(number)
	if attempt.key, err = attempt.version.PrivateKey.open(); err != nil { // not kept open: probes are rare
		return nil, unreadableEntry(keysStoragePrefix + k.name)
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	_, _, err = b.exchange(ctx, &attempt)
	if remote := (*redox.Error)(nil); errors.As(err, &remote) {
		return remote, nil
	}
	return nil, err
}

// keyClients finds the clients of each key, once for all keys of a wake-up, and only if asked.
type keyClients struct {
	b     *backend
	byKey map[string]map[rotation.Client]*client
}

// of returns the clients of a key: of the configuration or of a role, disabled ones included, for they may come back.
func (f *keyClients) of(ctx context.Context, key string) (map[rotation.Client]*client, error) {
	if f.byKey == nil {
		byKey, err := f.b.findClients(ctx)
		if err != nil {
			return nil, err
		}
		f.byKey = byKey
	}
	return f.byKey[key], nil
}

// findClients reads all roles, and returns the clients by key.
func (b *backend) findClients(ctx context.Context) (map[string]map[rotation.Client]*client, error) {
	c, _, err := loadConfig(ctx, b.storage)
	if err != nil {
		return nil, err
	}
	byKey := map[string]map[rotation.Client]*client{}
	add := func(r *role) {
		effective := &client{config: r.overlay(*c), role: r}
		if effective.ClientID == "" || effective.Key == "" {
			return
		}
		if byKey[effective.Key] == nil {
			byKey[effective.Key] = map[rotation.Client]*client{}
		}
		byKey[effective.Key][effective.id()] = effective
	}
	names, err := b.storage.List(ctx, rolesStoragePrefix)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r, err := loadRole(ctx, b.storage, name)
		if err != nil {
			return nil, err
		}
		if r != nil {
			add(r)
		}
	}
	add(&role{}) // last: where a role has the configuration's client, the configuration counts
	return byKey, nil
}
