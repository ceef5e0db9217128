// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// keyring owns the signing keys of a mount: their entries, what is stored and observed of their clients, and what is
// derived from them, which is the JWK Sets. internal/rotation decides what becomes of a key's versions; this is the one
// place where that is stored. It asks nobody over the network.
type keyring struct {
	store   *store
	node    *node
	now     func() tokencache.Instant
	logger  hclog.Logger
	changed func(keyChange) // told of each change that this node makes

	observed  observations
	clients   remembered[storedClients]
	published publishedSets
}

func newKeyring(s *store, n *node, now func() tokencache.Instant, logger hclog.Logger, changed func(keyChange)) *keyring {
	return &keyring{store: s, node: n, now: now, logger: logger, changed: changed}
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

// keySnapshot is a key at one moment: its entry, what is stored of its clients, and what this node has heard of them since
// it started.
type keySnapshot struct {
	*signingKey
	stored   *storedClients   // shared, never changed
	clients  rotation.Clients // of all clients, or of the one that was asked for
	unusable error            // why what is stored of the clients can't be used, nil when it can
}

// rotation returns the snapshot as internal/rotation takes it.
func (s *keySnapshot) rotation() rotation.Key { return s.rotationKey(s.clients) }

// hasNews reports whether something was heard that is worth storing, or what is stored can't be used.
func (s *keySnapshot) hasNews() bool {
	return s.unusable != nil || s.stored.former || !s.clients.SameBut(s.stored.Clients)
}

// snapshot returns a key, nil when there is none.
func (r *keyring) snapshot(ctx context.Context, name string) (*keySnapshot, error) {
	return r.snapshotFor(ctx, name, nil)
}

// snapshotFor returns a key with what is known of one client only, which is less work where there are many. Without one
// it is snapshot.
func (r *keyring) snapshotFor(ctx context.Context, name string, client *rotation.Client) (*keySnapshot, error) {
	k, err := r.store.key(ctx, name)
	if err != nil || k == nil {
		return nil, err
	}
	return r.snapshotOf(ctx, k, client)
}

// existing is snapshot for a field that has to name a key.
func (r *keyring) existing(ctx context.Context, field, name string) (*keySnapshot, error) {
	s, err := r.snapshot(ctx, name)
	if err == nil && s == nil {
		err = noSuchKey(field, name)
	}
	return s, err
}

// snapshotOf adds to a key what is known of its clients, or of one. It is read after the key, and written before it. An
// entry that can't be used is logged and counts as nothing known: nothing is destroyed until all clients were asked anew.
func (r *keyring) snapshotOf(ctx context.Context, k *signingKey, client *rotation.Client) (*keySnapshot, error) {
	s := &keySnapshot{signingKey: k}
	var err error
	s.stored, err = r.storedClients(ctx, k)
	if unusable := asUnusable(err); unusable != nil {
		r.logger.Error("what is known of a key's clients can't be used; each is asked anew", "key", k.name, "error", err)
		s.stored, s.unusable, err = &storedClients{unusable: true}, unusable, nil
	}
	if err != nil {
		return nil, err
	}
	clients := s.stored.Clients
	if client != nil {
		digest := client.Digest()
		clients = rotation.Clients{digest: clients[digest]}
	}
	now := r.now()
	known, _, err := k.rotationKey(clients).Replay(r.observed.events(k, client, now), now.Wall)
	if err != nil {
		return nil, err
	}
	s.clients = known.Clients
	return s, nil
}

// storedClients returns what is stored of a key's clients, from memory after the first time.
func (r *keyring) storedClients(ctx context.Context, k *signingKey) (*storedClients, error) {
	if stored := r.clients.get(k.name); stored != nil {
		return stored, nil
	}
	generation := r.store.generation()
	stored, err := r.store.clients(ctx, k)
	if err != nil {
		return nil, err
	}
	r.clients.keep(k.name, stored, func() bool { return r.store.generation() == generation })
	return stored, nil
}

// observe notes what a mint or a probe heard about a client of a key. A node that may not write keeps nothing: what it
// knows is what the node that may has stored.
func (r *keyring) observe(k *signingKey, client rotation.Client, news heardOf) (isNews bool) {
	return r.node.mayWrite() && r.observed.note(k, client, news)
}

// observeMint is observe for a mint: it tells when there is something to store.
func (r *keyring) observeMint(k *signingKey, client rotation.Client, news heardOf) {
	if r.observe(k, client, news) {
		r.changed(keyChange{key: k.name, observed: true})
	}
}

// putClients stores what is known of a key's clients, if that is not stored already. It returns what is stored then.
func (r *keyring) putClients(ctx context.Context, w *writing, name string, stored, known *storedClients) (*storedClients, error) {
	if !stored.unusable && !stored.former && known.Clients.SameBut(stored.Clients) && slices.Equal(known.Registrations, stored.Registrations) {
		return stored, nil
	}
	if err := w.put(ctx, clientsStoragePrefix+name, known); err != nil {
		r.clients.drop(name) // it may have been carried out all the same
		return nil, err
	}
	r.clients.put(name, known)
	if stored.former { // it is never read again, so it matters little whether it goes
		if err := w.delete(ctx, formerClientsPrefix+name); err != nil {
			r.logger.Warn("the former entry of a key's clients can't be deleted", "key", name, "error", err)
		}
	}
	return known, nil
}

// settle stores what was heard of a key's clients and what came of probes, and does what may be done by now: promote,
// destroy. It judges by what is configured at this moment. The clients are stored before the key, so that stopped in
// between it can be done again. It returns the key as it is stored then.
func (r *keyring) settle(ctx context.Context, name string, directory *directory, probes []rotation.Event) (after *keySnapshot, err error) {
	err = r.store.write(ctx, func(w *writing) error {
		k, err := w.existingKey(ctx, "name", name)
		if err != nil {
			return err
		}
		configured, err := directory.of(ctx, name)
		if err != nil {
			return err
		}
		before, err := r.snapshotOf(ctx, k, nil)
		if err != nil {
			return err
		}
		if unusable := asUnusable(before.unusable); unusable != nil && unusable.newer {
			return unusable // another version of the plugin knows better
		}
		next, transitions, err := before.rotation().Replay(append(probes, rotation.Settle{Configuration: configured.Configuration}), r.now().Wall)
		if err != nil {
			return err
		}
		stored, err := r.putClients(ctx, w, name, before.stored, &storedClients{Clients: next.Clients, Registrations: before.stored.Registrations})
		if err != nil {
			return err
		}
		if len(transitions) > 0 {
			k.setRecords(next.Versions)
			if err := r.put(ctx, w, k, keyChange{transitions: transitions}); err != nil {
				return err
			}
		}
		if configured.Stop(r.now().Wall) == rotation.Go {
			r.observed.keep(k, configured.byClient)
		}
		after = &keySnapshot{signingKey: k, stored: stored, clients: next.Clients}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return after, nil
}

// apply applies a step of an operator to a key, and stores the key. What is known of its clients is not needed and may be
// unreadable: a compromised version must go whatever else is broken. It returns the key as it is stored then.
func (r *keyring) apply(ctx context.Context, name string, event rotation.Event) (after *keySnapshot, err error) {
	err = r.store.write(ctx, func(w *writing) error {
		k, err := w.existingKey(ctx, "name", name)
		if err != nil {
			return err
		}
		next, transitions, err := k.rotationKey(nil).Apply(event, r.now().Wall)
		if err != nil {
			return explain(k, err)
		}
		k.setRecords(next.Versions)
		if err := r.put(ctx, w, k, keyChange{transitions: transitions}); err != nil {
			return err
		}
		if after, err = r.snapshotOf(ctx, k, nil); err != nil {
			r.logger.Error("a key was changed, but what is known of its clients can't be read", "key", name, "error", err)
			after = &keySnapshot{signingKey: k, stored: &storedClients{}, unusable: err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return after, nil
}

// edit is what becomes of a key's entry. The zero value stores settings that cost no token.
type edit struct {
	version *keyVersion // to be added, nil for none
	cause   string      // of that
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
			k.name, k.CreatedTime = name, r.now().Wall.UTC()
			r.observed.begin(k)
		}
		e, err := decide(w, k)
		if err != nil || e == nil {
			return err
		}
		change := keyChange{created: created}
		if e.version != nil {
			unusable, err := w.requireFreeKID(ctx, e.version.KID, name)
			if err != nil {
				return err
			}
			for _, u := range unusable {
				r.logger.Warn("a new version may have the kid of a key that can't be used", "key", name, "kid", e.version.KID, "error", u)
			}
			if change.transitions, err = k.bring(e.version, e.cause); err != nil {
				return explain(k, err)
			}
			k.scheduleRotation(r.now().Wall)
		}
		if after, err = r.snapshotOf(ctx, k, nil); err != nil {
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
	r.published.drop()
	r.changed(change)
	return err
}

// putRegistrations replaces what is stored of a key's registrations. It returns what was stored before.
func (r *keyring) putRegistrations(ctx context.Context, name string, records []registered) (before []registered, err error) {
	err = r.store.write(ctx, func(w *writing) error {
		k, err := w.existingKey(ctx, "name", name)
		if err != nil {
			return err
		}
		stored, err := r.storedClients(ctx, k)
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
		r.published.drop()
		r.clients.drop(name)
		r.changed(keyChange{key: name, endTokens: true})
	}()
	// What is known of clients goes first: without its key it would be taken for that of a later key of this name.
	for _, prefix := range []string{formerClientsPrefix, clientsStoragePrefix} {
		if err := w.delete(ctx, prefix+name); err != nil {
			return err
		}
	}
	r.observed.drop(name)
	return w.delete(ctx, keysStoragePrefix+name)
}

// invalidateKeys follows a change that another node has made to a key.
func (r *keyring) invalidateKeys() { r.published.drop() }

// invalidateClients follows a change that another node has made to what is stored of a key's clients: that node knows
// better than what was heard here before.
func (r *keyring) invalidateClients(name string) {
	r.clients.drop(name)
	r.observed.drop(name)
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
		return refused("version", "if another version is meant, find its number with: vault list -detailed redox/"+path+"/versions")
	case errors.Is(err, rotation.ErrNotRetired):
		return refused("version", "activate its successor first; or, if its key is compromised, add destroy_now=true")
	case errors.Is(err, rotation.ErrTooManyHeld):
		oldest := slices.IndexFunc(k.Versions, func(v keyVersion) bool { return v.Held() })
		return refused("name", fmt.Sprintf("read next_step of %s for who needs the oldest, version %d; where nobody has to, write %s/retire version=%d force=true",
			path, k.Versions[oldest].Number, path, k.Versions[oldest].Number))
	}
	return err
}
