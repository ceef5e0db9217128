// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"slices"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// keyring owns the signing keys of a mount: their entries, what is stored and observed of their clients, and what is
// derived from them, which is the JWK Sets and the opened private keys. internal/rotation decides what becomes of a
// key's versions; this is the one place where that is stored. It asks nobody over the network.
type keyring struct {
	store   *store
	now     func() tokencache.Instant
	logger  hclog.Logger
	changed func(keyChange) // told of each change that this node makes

	observed  observations
	clients   clientsMemory
	opened    openKeys
	published publishedSets
}

func newKeyring(s *store, now func() tokencache.Instant, logger hclog.Logger, changed func(keyChange)) *keyring {
	return &keyring{store: s, now: now, logger: logger, changed: changed}
}

// keyChange is what a keyring tells of a key: that it may have changed, and what is known of the change.
type keyChange struct {
	key string
	// transitions are those of its versions. There are none when only settings have changed, or when storing failed.
	transitions []rotation.Transition
	created     bool // the key was made
	// endTokens is set when tokens minted with the key are not to be served any more.
	endTokens bool
	// observed is set when only something was observed that the maintainer has to store.
	observed bool
}

// keySnapshot is a key at one moment: its entry, what is stored of its clients, and what this node has observed of them
// on top of that.
type keySnapshot struct {
	*signingKey
	stored   *storedClients // shared, never changed
	clients  rotation.Clients
	unusable error // why what is stored of the clients can't be used, nil when it can
}

// rotation returns the snapshot as internal/rotation takes it.
func (s *keySnapshot) rotation() rotation.Key { return s.rotationKey(s.clients) }

// snapshot returns a key, nil when there is none.
func (r *keyring) snapshot(ctx context.Context, name string) (*keySnapshot, error) {
	k, err := r.store.key(ctx, name)
	if err != nil || k == nil {
		return nil, err
	}
	return r.snapshotOf(ctx, k)
}

// existing is snapshot for a field that has to name a key.
func (r *keyring) existing(ctx context.Context, field, name string) (*keySnapshot, error) {
	s, err := r.snapshot(ctx, name)
	if err == nil && s == nil {
		err = noSuchKey(field, name)
	}
	return s, err
}

// snapshotOf adds to a key what is known of its clients. An entry of those that can't be used is logged and counts as
// nothing known: mints find out again what the server accepts.
func (r *keyring) snapshotOf(ctx context.Context, k *signingKey) (*keySnapshot, error) {
	s := &keySnapshot{signingKey: k}
	var err error
	s.stored, err = r.storedClients(ctx, k.name)
	if unusable := (*unusableEntry)(nil); errors.As(err, &unusable) {
		r.logger.Error("what Redox has accepted of a key is not known", "key", k.name, "error", err)
		s.stored, s.unusable, err = &storedClients{}, unusable, nil
	}
	if err != nil {
		return nil, err
	}
	known, _, err := k.rotationKey(s.stored.Clients).Replay(r.observed.events(k.name))
	if err != nil {
		return nil, err
	}
	s.clients = known.Clients
	return s, nil
}

// storedClients returns what is stored of a key's clients, from memory after the first time.
func (r *keyring) storedClients(ctx context.Context, name string) (*storedClients, error) {
	if stored := r.clients.get(name); stored != nil {
		return stored, nil
	}
	generation := r.store.generation()
	stored, err := r.store.clients(ctx, name)
	if err != nil {
		return nil, err
	}
	r.clients.keep(name, stored, func() bool { return r.store.generation() == generation })
	return stored, nil
}

// observeMint notes what came of minting for a client of a key, and tells that there is something to store.
func (r *keyring) observeMint(key string, client rotation.Client, o outcome) {
	r.observed.note(key, client, o)
	r.changed(keyChange{key: key, observed: true})
}

// observeProbe notes what came of a probe for a client of a key. The maintainer, who probes, stores it by itself.
func (r *keyring) observeProbe(key string, client rotation.Client, o outcome) {
	r.observed.note(key, client, o)
}

// hasObserved reports whether something was observed of a key that is not stored yet.
func (r *keyring) hasObserved(key string) bool { return len(r.observed.events(key)) > 0 }

// putClients stores what is known of a key's clients, if that is not stored already. It returns what is stored then.
func (r *keyring) putClients(ctx context.Context, w *writing, name string, stored, known *storedClients) (*storedClients, error) {
	if known.Clients.Equal(stored.Clients) && slices.Equal(known.Registrations, stored.Registrations) {
		return stored, nil
	}
	if err := w.put(ctx, clientsStoragePrefix+name, known); err != nil {
		r.clients.drop(name) // it may have been carried out all the same
		return nil, err
	}
	r.clients.put(name, known)
	return known, nil
}

// storeObserved stores what was observed of a key's clients, and returns what is stored then.
func (r *keyring) storeObserved(ctx context.Context, w *writing, k *signingKey) (*storedClients, error) {
	stored, err := r.storedClients(ctx, k.name)
	if err != nil {
		return nil, err
	}
	taken := r.observed.take(k.name)
	known, _, err := k.rotationKey(stored.Clients).Replay(eventsOf(taken))
	if err != nil {
		r.observed.putBack(k.name, taken)
		return nil, err
	}
	after, err := r.putClients(ctx, w, k.name, stored, &storedClients{Clients: known.Clients, Registrations: stored.Registrations})
	if err != nil {
		r.observed.putBack(k.name, taken)
		return nil, err
	}
	return after, nil
}

// apply applies an event to a key and stores what has changed: first what is known of its clients, then the key, so that
// stopped in between the event can be applied again. It returns the key as it is stored then.
func (r *keyring) apply(ctx context.Context, name string, event rotation.Event) (after *keySnapshot, err error) {
	err = r.store.write(ctx, func(w *writing) error {
		k, err := w.existingKey(ctx, "name", name)
		if err != nil {
			return err
		}
		stored, err := r.storeObserved(ctx, w, k)
		if err != nil {
			return err
		}
		next, transitions, err := k.rotationKey(stored.Clients).Apply(event, r.now().Wall)
		if err != nil {
			return explain(k, err)
		}
		if _, err = r.putClients(ctx, w, name, stored, &storedClients{Clients: next.Clients, Registrations: stored.Registrations}); err != nil {
			return err
		}
		if len(transitions) > 0 {
			k.setRecords(next.Versions)
		}
		if after, err = r.snapshotOf(ctx, k); err != nil || len(transitions) == 0 {
			return err
		}
		return r.put(ctx, w, k, keyChange{transitions: transitions})
	})
	if err != nil {
		return nil, err
	}
	return after, nil
}

// edit is what becomes of a key's entry. The zero value stores settings that cost no token.
type edit struct {
	version   *keyVersion // to be added, nil for none
	cause     string      // of that
	endTokens bool
}

// edit changes a key's settings and adds a version to it; nothing else does either. decide is given the key, which has
// no versions where there was none of that name, and changes its settings; it returns nil when nothing is to be stored.
// The result is nil then, too.
func (r *keyring) edit(ctx context.Context, name string, decide func(*writing, *signingKey) (*edit, error)) (after *keySnapshot, err error) {
	err = r.store.write(ctx, func(w *writing) error {
		k, err := w.key(ctx, name)
		if err != nil {
			return err
		}
		created := k == nil
		if created {
			k = defaultKey()
			k.name = name
		}
		e, err := decide(w, k)
		if err != nil || e == nil {
			return err
		}
		change := keyChange{created: created, endTokens: e.endTokens}
		if e.version != nil {
			unusable, err := w.requireFreeKID(ctx, e.version.KID)
			if err != nil {
				return err
			}
			for _, u := range unusable {
				r.logger.Warn("a new version may have the kid of a key that can't be used", "key", name, "kid", e.version.KID, "error", u)
			}
			transition, err := k.add(e.version, e.cause)
			if err != nil {
				return explain(k, err)
			}
			k.scheduleRotation(r.now().Wall)
			change.transitions = []rotation.Transition{transition}
		}
		if after, err = r.snapshotOf(ctx, k); err != nil {
			return err
		}
		return r.put(ctx, w, k, change)
	})
	if err != nil {
		return nil, err
	}
	return after, nil
}

// put stores a key, drops what was derived from it, and tells of the change.
func (r *keyring) put(ctx context.Context, w *writing, k *signingKey, change keyChange) error {
	change.key = k.name
	for _, t := range change.transitions {
		// Other tokens stay: the server has issued them, whatever signed for them. But not where others may have signed.
		change.endTokens = change.endTokens || k.version(t.Version).Compromised
	}
	err := w.put(ctx, keysStoragePrefix+k.name, k)
	if err != nil { // it may have been carried out all the same
		change.transitions, change.created = nil, false
	}
	r.forget(k.name)
	r.changed(change)
	return err
}

// prune stores what was observed of a key's clients, and drops those that nothing is configured for any more.
func (r *keyring) prune(ctx context.Context, k *signingKey, configured []rotation.Client) error {
	return r.store.write(ctx, func(w *writing) error {
		stored, err := r.storeObserved(ctx, w, k)
		if err != nil {
			return err
		}
		pruned, _, err := k.rotationKey(stored.Clients).Apply(rotation.Prune{Configured: configured}, r.now().Wall)
		if err != nil {
			return err
		}
		_, err = r.putClients(ctx, w, k.name, stored, &storedClients{Clients: pruned.Clients, Registrations: stored.Registrations})
		return err
	})
}

// putRegistrations replaces what is stored of a key's registrations. It returns what was stored before.
func (r *keyring) putRegistrations(ctx context.Context, name string, records []registered) (before []registered, err error) {
	err = r.store.write(ctx, func(w *writing) error {
		stored, err := r.storedClients(ctx, name)
		if err != nil {
			return err
		}
		before = stored.Registrations
		_, err = r.putClients(ctx, w, name, stored, &storedClients{Clients: stored.Clients, Registrations: records})
		return err
	})
	return before, err
}

// delete deletes a key, unless decide refuses that. It reports whether there was one.
func (r *keyring) delete(ctx context.Context, name string, decide func(*writing, *signingKey) error) (deleted bool, err error) {
	err = r.store.write(ctx, func(w *writing) error {
		k, err := w.key(ctx, name)
		if err != nil || k == nil {
			return err
		}
		if err := decide(w, k); err != nil {
			return err
		}
		deleted = true
		return r.remove(ctx, w, name)
	})
	return deleted && err == nil, err
}

// deleteUnusable deletes a key whose entry can't be used. It reports whether there was such an entry.
func (r *keyring) deleteUnusable(ctx context.Context, name string) (deleted bool, err error) {
	err = r.store.write(ctx, func(w *writing) error {
		if _, err := w.key(ctx, name); asUnusable(err) == nil {
			return err
		}
		deleted = true
		return r.remove(ctx, w, name)
	})
	return deleted && err == nil, err
}

// remove deletes the entries of a key, and all that was derived from it.
func (r *keyring) remove(ctx context.Context, w *writing, name string) error {
	defer func() {
		r.forget(name)
		r.clients.drop(name)
		r.changed(keyChange{key: name, endTokens: true})
	}()
	// What is known of clients goes first: without its key it would be taken for that of a later key of this name.
	if err := w.delete(ctx, clientsStoragePrefix+name); err != nil {
		return err
	}
	r.observed.take(name)
	return w.delete(ctx, keysStoragePrefix+name)
}

// open returns the opened private key of a version. generation is the store's, from before the key was read.
func (r *keyring) open(k *signingKey, v *keyVersion, generation uint64) (*privatekey.Key, error) {
	return r.opened.open(k.name, v.PrivateKey, func() bool { return r.store.generation() == generation })
}

// forget drops what was derived from a key.
func (r *keyring) forget(name string) {
	r.published.drop()
	r.opened.forget(name)
}

// invalidateClients follows a change that another node has made to what is stored of a key's clients.
func (r *keyring) invalidateClients(name string) { r.clients.drop(name) }

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
