// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// How a key's versions move on: internal/rotation decides; the code here stores that, and makes it known.

// storeTransitions stores a key whose versions have changed, in one write, and makes the change known. It is the one
// place where versions change their state. The caller holds the write lock.
func (b *backend) storeTransitions(ctx context.Context, storage logical.Storage, k *signingKey, transitions []rotation.Transition) error {
	// Tokens stay: Redox has issued them, whatever signed for them. But not where others may have signed, too.
	changed := b.versionsChanged
	for _, t := range transitions {
		if k.version(t.Version).Compromised {
			changed = b.keyChanged
		}
	}
	defer changed(k.name) // also after a failed Put: it may have been carried out
	if err := writeEntry(ctx, storage, keysStoragePrefix+k.name, k); err != nil {
		return err
	}
	for _, t := range transitions {
		if t.To == rotation.Active {
			b.tokens.ForgetFailures() // the server takes this version: a role that was rejected with another need not wait
		}
		b.Logger().Info("a version of a signing key has changed its state", "key", k.name, "version", t.Version,
			"kid", t.KID, "from", string(t.From), "to", string(t.To), "cause", t.Cause)
		b.metrics.transition(t)
		b.changed(eventKeyVersion+string(t.To), keysStoragePrefix+k.name, logical.UpdateOperation,
			"key", k.name, "version", strconv.Itoa(t.Version), "kid", t.KID, "from", string(t.From), "cause", t.Cause)
	}
	return nil
}

// versionsChanged drops what was derived from the versions of a key, but for its tokens.
func (b *backend) versionsChanged(name string) {
	b.published.drop()
	b.openKeys.forget(name)
}

// keyChanged drops all that was derived from the key.
func (b *backend) keyChanged(name string) {
	b.versionsChanged(name)
	b.tokens.DropFunc(func(t *token) bool { return t.keyName == name })
}

// change applies an event to a key, under the write lock, and stores what has changed: first what is known of its
// clients, then the key, so that stopped in between the event can be applied again. It returns what is stored then.
func (b *backend) change(ctx context.Context, storage logical.Storage, name string, event rotation.Event) (*signingKey, *storedAcceptance, error) {
	unlock, err := b.writes.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	k, err := existingKey(ctx, storage, "name", name)
	if err != nil {
		return nil, nil, err
	}
	stored, err := b.storeLearned(ctx, storage, k)
	if err != nil {
		return nil, nil, err
	}
	next, transitions, err := k.rotationKey(stored.Clients).Apply(event, b.now().Wall)
	if err != nil {
		return nil, nil, explain(k, err)
	}
	if !next.Clients.Equal(stored.Clients) {
		stored.Clients = next.Clients
		if err := writeEntry(ctx, storage, acceptanceStoragePrefix+name, stored); err != nil {
			return nil, nil, err
		}
	}
	if len(transitions) == 0 {
		return k, stored, nil
	}
	k.setRecords(next.Versions)
	return k, stored, b.storeTransitions(ctx, storage, k, transitions)
}

// changeAndShow is change for an endpoint.
func (b *backend) changeAndShow(ctx context.Context, storage logical.Storage, name string, event rotation.Event) (*logical.Response, error) {
	k, stored, err := b.change(ctx, storage, name, event)
	if err != nil {
		return nil, err
	}
	return showKey(k, stored)
}

// explain turns what stands in the way of an event into words with a way out.
func explain(k *signingKey, err error) error {
	refused := func(field, wayOut string) error {
		return fieldError(field, wayOut, "key %q: %s", k.name, err)
	}
	path := keysStoragePrefix + k.name
	switch {
	case errors.Is(err, rotation.ErrPendingExists):
		return refused("name", "bring that one into use with "+path+"/activate, or drop it with "+path+"/abandon")
	case errors.Is(err, rotation.ErrNoPending):
		return refused("name", "make one with "+path+"/rotate")
	case errors.Is(err, rotation.ErrNoSuchVersion):
		return refused("version", "read "+path+" to see which there are")
	case errors.Is(err, rotation.ErrDestroyed):
		return refused("version", "nothing is left to do")
	case errors.Is(err, rotation.ErrNotRetired):
		return refused("version", "activate its successor first; or, if its key is compromised, add destroy_now=true")
	case errors.Is(err, rotation.ErrPendingInUse), errors.Is(err, rotation.ErrVersionInUse):
		return refused("name", "go on with the rotation; or take the version's kid away at Redox and read a fresh token of each role "+
			"that uses it, so that another version takes over")
	}
	return err
}

// nextStep returns what somebody has to do so that a rotation goes on, empty when nothing.
func nextStep(k *signingKey, stored *storedAcceptance) string {
	for _, r := range k.registrations(stored) {
		if r.Problem != "" {
			return "Client ID " + r.ClientID + ": " + r.Problem + "."
		}
	}
	if k.in(rotation.Active) == nil && k.in(rotation.Pending) == nil {
		return "The key has no version to sign with: write to keys/" + k.name + "/rotate."
	}
	if k.in(rotation.Pending) == nil {
		for _, s := range stored.Standings {
			if k.Registration != registrationPlatform && s.Probe.Version == s.Accepted {
				return "Client ID " + s.ClientID + ": Redox refuses the version that it had accepted. Its kid was taken away there, or Redox " +
					"can't read the JWKS URL: mend that; or this Vault was restored from an older state: write to keys/" + k.name + "/rotate."
			}
		}
		if len(k.rotationKey(stored.Clients).Waiting()) > 0 {
			return "Redox does not accept the active version for every client ID: see users, and register public_jwk there."
		}
		return ""
	}
	then := " It takes over by itself once Redox accepts it for every client ID, at most 15 minutes later; keys/" + k.name + "/activate tries at once."
	switch k.Registration {
	case registrationJWKSURL:
		return "Redox has to read the new public key from the JWKS URL; there is nothing to do." + then
	case registrationPlatform:
		return "The engine registers the new public key through the Platform API; there is nothing to do." + then
	default:
		return "Add pending_public_jwk in the Redox dashboard, beside the JWK that is there, at the OAuth API key of each client ID." +
			then
	}
}
