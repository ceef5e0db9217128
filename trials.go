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

// Proof before promotion: asking Redox for a token with a version, to see whether it is accepted.

// trial is what came of trying the wanted version for one user.
type trial struct {
	user   rotation.User
	answer string // why not; empty when Redox accepted it
}

// tryDue asks Redox for a token with the wanted version of a key for some users. The tokens are given away: only
// whether Redox accepts the version counts. What is learned is noted. When Redox does not answer, the other users stay
// due: waiting once is enough, for other work waits behind this.
func (b *backend) tryDue(ctx context.Context, k *signingKey, clients map[rotation.User]*client, due []rotation.User) ([]trial, error) {
	wanted := rotation.Wanted(k.records())
	if wanted == nil {
		return nil, nil
	}
	var trials []trial
	for _, user := range due {
		c := clients[user]
		if c == nil {
			continue // not configured any more
		}
		refusal, err := b.try(ctx, c, k, wanted.Number)
		if err != nil {
			return trials, err
		}
		learned := outcome{accepted: wanted.Number, acceptedTime: b.now().Wall}
		answer := ""
		if refusal != nil {
			answer = refusal.Error()
			learned = outcome{refused: wanted.Number, refusedTime: b.now().Wall, answer: answer}
			b.Logger().Debug("Redox does not accept a version yet", "key", k.name, "kid", wanted.KeyID,
				"client_id", user.ClientID, "answer", answer)
		}
		b.learned.note(k.name, user, learned)
		trials = append(trials, trial{user, answer})
		if unanswered(refusal) {
			break
		}
	}
	return trials, nil
}

// prove tries the pending version of a key now, for every user that has used the key; if none has, for those that are
// configured to.
func (b *backend) prove(ctx context.Context, k *signingKey) ([]trial, error) {
	users, err := b.findUsers(ctx)
	if err != nil {
		return nil, err
	}
	clients := users[k.name]
	stored, err := b.acceptanceOf(ctx, b.storage, k)
	if err != nil {
		return nil, err
	}
	var due []rotation.User
	for _, standing := range stored.Waiting(k.records()) {
		due = append(due, standing.User)
	}
	if len(stored.Standings) == 0 {
		due = slices.Collect(maps.Keys(clients))
	}
	if err := b.register(ctx, k, clients, false); err != nil {
		return nil, err
	}
	return b.tryDue(ctx, k, clients, due)
}

// trialWait bounds one trial.
const trialWait = 20 * time.Second

// try asks Redox for a token with one version. The refusal is why there is none, nil when there is one.
func (b *backend) try(ctx context.Context, c *client, k *signingKey, number int) (refusal, err error) {
	if missing := b.notServed(ctx, c, k, k.version(number).KeyID); missing != "" {
		return errors.New(missing), nil
	}
	attempt := *c
	attempt.version = k.version(number)
	if attempt.key, err = attempt.version.PrivateKey.Open(); err != nil { // not kept open: trials are rare
		return nil, unreadableEntry(keysStoragePrefix + k.name)
	}
	ctx, cancel := context.WithTimeout(ctx, trialWait)
	defer cancel()
	_, _, err = b.exchange(ctx, &attempt)
	if remote := (*redox.Error)(nil); errors.As(err, &remote) {
		return remote, nil
	}
	return nil, err
}

// keyUsers finds who uses which key, once for all keys of a wake-up, and only if asked.
type keyUsers struct {
	b     *backend
	byKey map[string]map[rotation.User]*client
}

// of returns one client for each user of a key: of the configuration or of a role, disabled ones included, for they may
// come back.
func (u *keyUsers) of(ctx context.Context, key string) (map[rotation.User]*client, error) {
	if u.byKey == nil {
		byKey, err := u.b.findUsers(ctx)
		if err != nil {
			return nil, err
		}
		u.byKey = byKey
	}
	return u.byKey[key], nil
}

// findUsers reads all roles.
func (b *backend) findUsers(ctx context.Context) (map[string]map[rotation.User]*client, error) {
	c, _, err := loadConfig(ctx, b.storage)
	if err != nil {
		return nil, err
	}
	byKey := map[string]map[rotation.User]*client{}
	add := func(r *role) {
		effective := &client{config: r.overlay(*c), role: r}
		if effective.ClientID == "" || effective.Key == "" {
			return
		}
		if byKey[effective.Key] == nil {
			byKey[effective.Key] = map[rotation.User]*client{}
		}
		byKey[effective.Key][effective.user()] = effective
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
	add(&role{}) // last: of several clients for one user the configuration's counts
	return byKey, nil
}
