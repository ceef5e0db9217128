// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// directory finds the clients of each key: those that the configuration and the roles resolve to. It is asked at each
// decision that can't be taken back, so it keeps the roles parsed, and reads again only those that changed.
type directory struct {
	store *store
	now   func() tokencache.Instant

	mu         sync.Mutex
	last       *configuredClients
	generation uint64 // the store's count of such changes, from before last was read
	// leftUnreadable is when it was first seen that the time at which a client left can't be read: it counts as that.
	leftUnreadable time.Time
}

// configuredClients is what a directory has found. It is shared and never changed.
type configuredClients struct {
	byKey      map[string]*keyClients
	unreadable []string // entries that may name further clients of any key
	leftTime   time.Time
}

// keyClients is the clients of one key.
type keyClients struct {
	rotation.Configuration
	byClient   map[rotation.Client]*configuredClient
	unreadable []string
}

// configuredClient is a client with the ways to ask the server about it.
type configuredClient struct {
	enabled bool
	roles   []*roleConfig // those that differ in what the server is told; enabled ones first
}

func newDirectory(s *store, now func() tokencache.Instant) *directory {
	return &directory{store: s, now: now}
}

// of returns the clients of a key as they are configured now.
func (d *directory) of(ctx context.Context, key string) (*keyClients, error) {
	l, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	found := l.byKey[key]
	if found == nil {
		found = &keyClients{}
	}
	clients := *found
	clients.Incomplete, clients.LeftTime, clients.unreadable = len(l.unreadable) > 0, l.leftTime, l.unreadable
	return &clients, nil
}

// read reads the configuration and all roles. Entries that can't be used are named; a storage that does not answer is an
// error.
func (d *directory) read(ctx context.Context) (*configuredClients, error) {
	generation := d.store.configured.Load()
	d.mu.Lock()
	last, current := d.last, d.generation == generation
	d.mu.Unlock()
	if last != nil && current {
		return last, nil
	}
	l := &configuredClients{byKey: map[string]*keyClients{}}
	var err error
	if l.leftTime, err = d.leftTime(ctx); err != nil {
		return nil, err
	}
	c, _, err := d.store.config(ctx)
	if unusable := asUnusable(err); unusable != nil {
		l.unreadable = append(l.unreadable, unusable.key) // every role inherits from it: no client is known
		d.keep(l, generation)
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := d.store.roleNames(ctx)
	if err != nil {
		return nil, err
	}
	l.add(&role{}, c)
	for _, name := range names {
		r, err := d.store.rememberedRole(ctx, name)
		if unusable := asUnusable(err); unusable != nil {
			l.unreadable = append(l.unreadable, unusable.key)
			continue
		}
		if err != nil {
			return nil, err
		}
		if r != nil { // else it was deleted since it was listed
			l.add(r, c)
		}
	}
	for _, clients := range l.byKey {
		for client, configured := range clients.byClient {
			slices.SortStableFunc(configured.roles, func(a, b *roleConfig) int { return boolOrder(a.disabled) - boolOrder(b.disabled) })
			clients.Clients = append(clients.Clients, rotation.Configured{Client: client, Enabled: configured.enabled})
		}
		slices.SortFunc(clients.Clients, func(a, b rotation.Configured) int { return compareClients(a.Client, b.Client) })
	}
	d.keep(l, generation)
	return l, nil
}

// keep remembers a configuredClients, if that is still current.
func (d *directory) keep(l *configuredClients, generation uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last, d.generation = l, generation
}

// leftTime returns when a client was last taken out of the configuration.
func (d *directory) leftTime(ctx context.Context) (time.Time, error) {
	left, err := d.store.leftTime(ctx)
	if asUnusable(err) == nil {
		return left, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leftUnreadable.IsZero() {
		d.leftUnreadable = d.now().Wall
	}
	return d.leftUnreadable, nil
}

// add adds the client that a role resolves to, if it is one.
func (l *configuredClients) add(r *role, c *config) {
	own := r.overlay(c)
	if !own.isClient() {
		return
	}
	if l.byKey[own.Key] == nil {
		l.byKey[own.Key] = &keyClients{byClient: map[rotation.Client]*configuredClient{}}
	}
	clients := l.byKey[own.Key].byClient
	client := own.client()
	if clients[client] == nil {
		clients[client] = &configuredClient{}
	}
	clients[client].add(&own)
}

// add adds a role to its client, unless another one asks the server the same.
func (c *configuredClient) add(r *roleConfig) {
	c.enabled = c.enabled || !r.disabled
	same := slices.IndexFunc(c.roles, func(known *roleConfig) bool { return known.Scope == r.Scope && known.JKU == r.JKU })
	switch {
	case same < 0:
		c.roles = append(c.roles, r)
	case c.roles[same].disabled:
		c.roles[same] = r
	}
}

// isClient reports whether a role resolves to a client of a key at all.
func (c *roleConfig) isClient() bool { return c.ClientID != "" && c.Key != "" }

// roleChanges notes that a client may leave by the write of a role that follows. after is nil when the role is deleted.
func (w *writing) roleChanges(ctx context.Context, before, after *role, now time.Time) error {
	if before == nil {
		return nil
	}
	c, _, err := w.config(ctx)
	if unusable := asUnusable(err); unusable != nil {
		return w.clientLeaves(ctx, now) // for all that is known
	}
	if err != nil {
		return err
	}
	was := before.overlay(c)
	if !was.isClient() {
		return nil
	}
	if after != nil {
		if is := after.overlay(c); is.client() == was.client() && is.Key == was.Key {
			return nil
		}
	}
	return w.clientLeaves(ctx, now)
}

// configChanges notes that clients may leave by the write of the configuration that follows. The clients of roles are at
// its token URL, and may inherit the rest.
func (w *writing) configChanges(ctx context.Context, before, after *config, now time.Time) error {
	if before.ClientID == after.ClientID && before.Key == after.Key && before.tokenURL() == after.tokenURL() {
		return nil
	}
	roles, err := w.roleNames(ctx)
	if err != nil {
		return err
	}
	was := (&role{}).overlay(before)
	if !was.isClient() && len(roles) == 0 {
		return nil
	}
	return w.clientLeaves(ctx, now)
}

// boolOrder sorts false before true.
func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compareClients(a, b rotation.Client) int {
	return slices.Compare([]string{a.ClientID, a.TokenURL}, []string{b.ClientID, b.TokenURL})
}

// roleConfigs returns one role of each client, for what concerns the client and not a role.
func (c *keyClients) roleConfigs() map[rotation.Client]*roleConfig {
	configs := make(map[rotation.Client]*roleConfig, len(c.byClient))
	for client, configured := range c.byClient {
		configs[client] = configured.roles[0]
	}
	return configs
}
