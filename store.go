// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/compressutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// Where things are stored. A prefix is spelled with its slash, which seal wrap needs to match what is below it.
const (
	configStorageKey   = "config"
	rolesStoragePrefix = "roles/"
	keysStoragePrefix  = "keys/"
	wrappingKeyStorage = "wrapping_key" // for the import of wrapped keys
	// clientsStoragePrefix is apart from the keys: it is larger, and needs no seal wrap. Its entries are compressed.
	clientsStoragePrefix = "clients/"
	// formerClientsPrefix is where an earlier form of them was.
	formerClientsPrefix = "acceptance/"
	// leftStorageKey is when a client was last taken out of the configuration.
	leftStorageKey = "client_left"
)

// storageSchemaVersion is what stored entries carry. It rises with each change that an older version of the plugin would
// misunderstand, or undo with its next write: that one refuses the entry then. In version 1, what was learned of clients
// was below formerClientsPrefix, and the other entries had fewer fields.
const storageSchemaVersion = 2

// maxNameLength keeps names well under what storage backends take for a path.
const maxNameLength = 128

// store reads and writes the stored entries of one mount. Reads take no lock. Writes happen one at a time, so that what
// refers to a key and the key itself stay consistent: only a *writing can put and delete, and only write makes one.
type store struct {
	storage logical.Storage
	writes  chan struct{} // full while something is written; a channel, so that whoever waits can give up
	changes atomic.Uint64
	// configured counts the changes of what clients are found in.
	configured atomic.Uint64
	parsed     remembered[role]
	// formerReplaced is when the former wrapping key was replaced, zero when there is none, nil while that is not known.
	formerReplaced atomic.Pointer[time.Time]
}

func newStore(storage logical.Storage) *store {
	return &store{storage: storage, writes: make(chan struct{}, 1)}
}

// generation returns a number that is another one after each change of what is stored, by this node or by another.
// What was read since it was taken is current as long as it stays.
func (s *store) generation() uint64 { return s.changes.Load() }

// changed notes that an entry was changed, by this node or by another.
func (s *store) changed(key string) {
	s.changes.Add(1)
	if key == wrappingKeyStorage {
		s.formerReplaced.Store(nil)
	}
	name, isRole := strings.CutPrefix(key, rolesStoragePrefix)
	if isRole || key == configStorageKey || key == leftStorageKey {
		s.configured.Add(1)
		s.parsed.drop(name)
	}
}

// write runs change while nothing else is written, after waiting for that or for the end of ctx.
func (s *store) write(ctx context.Context, change func(*writing) error) error {
	select {
	case s.writes <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.writes }()
	return change(&writing{s})
}

// writing is the right to write to a store. It must not outlive the function that write gives it to.
type writing struct{ *store }

// put stores a value with the present schema version.
func (w *writing) put(ctx context.Context, key string, value storable) error {
	value.setSchemaVersion()
	entry, err := logical.StorageEntryJSON(key, value)
	if err == nil && strings.HasPrefix(key, clientsStoragePrefix) {
		entry.Value, err = compressutil.Compress(entry.Value, &compressutil.CompressionConfig{Type: compressutil.CompressionTypeGzip})
	}
	if err != nil {
		return fmt.Errorf("the entry %q can't be encoded", key)
	}
	defer w.changed(key) // also after a failed Put: it may have been carried out
	return w.storage.Put(ctx, entry)
}

// delete deletes an entry, if it is there.
func (w *writing) delete(ctx context.Context, key string) error {
	defer w.changed(key)
	return w.storage.Delete(ctx, key)
}

// clientLeaves notes that a client may be taken out of the configuration by the write that follows.
func (w *writing) clientLeaves(ctx context.Context, now time.Time) error {
	return w.put(ctx, leftStorageKey, &clientLeft{Time: now.UTC()})
}

// clientLeft is the entry of when a client was last taken out of the configuration.
type clientLeft struct {
	header
	Time time.Time `json:"time"`
}

// header begins every stored entry.
type header struct {
	SchemaVersion int `json:"schema_version"`
}

func (h *header) schemaVersion() int { return h.SchemaVersion }
func (h *header) setSchemaVersion()  { h.SchemaVersion = storageSchemaVersion }

// storable is what embeds a header.
type storable interface {
	schemaVersion() int
	setSchemaVersion()
}

// unusableEntry is an entry that this version of the plugin can't use, as opposed to a storage that does not answer.
type unusableEntry struct {
	key, problem string
	newer        bool // it was written by a newer version of the plugin
}

func (e *unusableEntry) Error() string {
	return fmt.Sprintf("the stored entry %q %s", e.key, e.problem)
}

func unreadableEntry(key string) error {
	if strings.HasPrefix(key, clientsStoragePrefix) || strings.HasPrefix(key, formerClientsPrefix) { // it goes with its key only
		return &unusableEntry{key: key, problem: "is unreadable; restore it from a snapshot of Vault"}
	}
	return &unusableEntry{key: key, problem: "is unreadable; restore it from a snapshot of Vault or delete it"}
}

// asUnusable returns the unusableEntry that an error is, nil when it is another one.
func asUnusable(err error) *unusableEntry {
	unusable := (*unusableEntry)(nil)
	errors.As(err, &unusable)
	return unusable
}

// deleteByForce is the command that deletes an entry that can't be used. An entry is stored under the path of its endpoint.
func (e *unusableEntry) deleteByForce() string {
	return "vault delete redox/" + e.key + " " + forceField + "=true"
}

// mayBeUsedBy refuses to delete what entries that can't be used may refer to. It returns nil when there are none.
func mayBeUsedBy(what string, unusable []*unusableEntry) error {
	if len(unusable) == 0 {
		return nil
	}
	names := make([]string, len(unusable))
	for i, e := range unusable {
		names[i] = e.key
	}
	return fieldError("name", "restore "+names[0]+" from a snapshot of Vault, or delete it: "+unusable[0].deleteByForce(),
		"%s may be used by %s, which can't be read", what, someOf(names))
}

// read decodes the entry at key over what into holds already, so that fields an older version did not know keep their
// defaults. It reports whether there is an entry. An entry of a newer version is an error: every write reads first, so
// such an entry is never overwritten. Errors hold nothing of the entry.
func (s *store) read(ctx context.Context, key string, into storable) (found bool, err error) {
	entry, err := s.storage.Get(ctx, key)
	if err != nil || entry == nil {
		return false, err
	}
	value := entry.Value
	if decompressed, notCompressed, err := compressutil.Decompress(value); err == nil && !notCompressed {
		value = decompressed
	}
	unreadable := json.Unmarshal(value, into) != nil
	version := into.schemaVersion()
	if unreadable { // maybe since a newer version has given a field another type
		var stored header
		if json.Unmarshal(value, &stored) == nil {
			version = stored.SchemaVersion
		}
	}
	switch {
	case version > storageSchemaVersion:
		return false, &unusableEntry{key: key, newer: true, problem: fmt.Sprintf("was written by a newer version of this plugin (schema %d, this one "+
			"knows %d); run that version again, this one leaves the entry as it is", version, storageSchemaVersion)}
	case unreadable || version < 1:
		return false, unreadableEntry(key)
	}
	return true, nil
}

// config returns the configuration over the defaults, and whether one has been written.
func (s *store) config(ctx context.Context) (c *config, written bool, err error) {
	c = defaultConfig()
	written, err = s.read(ctx, configStorageKey, c)
	if err != nil {
		return nil, false, err
	}
	return c, written, nil
}

// role returns a role, nil when there is none.
func (s *store) role(ctx context.Context, name string) (*role, error) {
	if err := checkName("role", name); err != nil {
		return nil, err
	}
	r := &role{}
	found, err := s.read(ctx, rolesStoragePrefix+name, r)
	if err != nil || !found {
		return nil, err
	}
	return r, nil
}

// rememberedRole is role for whoever reads all of them again and again. The role is shared and never changed.
func (s *store) rememberedRole(ctx context.Context, name string) (*role, error) {
	if r := s.parsed.get(name); r != nil {
		return r, nil
	}
	generation := s.generation()
	r, err := s.role(ctx, name)
	if err == nil && r != nil {
		s.parsed.keep(name, r, func() bool { return s.generation() == generation })
	}
	return r, err
}

// leftTime returns when a client was last taken out of the configuration, zero for never.
func (s *store) leftTime(ctx context.Context) (time.Time, error) {
	left := &clientLeft{}
	_, err := s.read(ctx, leftStorageKey, left)
	return left.Time, err
}

// roleNames returns the names of all roles.
func (s *store) roleNames(ctx context.Context) ([]string, error) {
	return s.storage.List(ctx, rolesStoragePrefix)
}

// roles returns all roles by name, and the entries of those that can't be used.
func (s *store) roles(ctx context.Context) (map[string]*role, []*unusableEntry, error) {
	return all(ctx, s.roleNames, s.role)
}

// key returns a signing key, nil when there is none.
func (s *store) key(ctx context.Context, name string) (*signingKey, error) {
	if err := checkName("name", name); err != nil {
		return nil, err
	}
	k := defaultKey()
	k.name = name
	found, err := s.read(ctx, keysStoragePrefix+name, k)
	if err != nil || !found {
		return nil, err
	}
	if len(k.Versions) == 0 {
		return nil, unreadableEntry(keysStoragePrefix + name)
	}
	if k.CreatedTime.IsZero() { // an earlier form had none
		k.CreatedTime = k.Versions[0].CreatedTime
	}
	return k, nil
}

// keyNames returns the names of all signing keys.
func (s *store) keyNames(ctx context.Context) ([]string, error) {
	return s.storage.List(ctx, keysStoragePrefix)
}

// keys returns all signing keys by name, and the entries of those that can't be used.
func (s *store) keys(ctx context.Context) (map[string]*signingKey, []*unusableEntry, error) {
	return all(ctx, s.keyNames, s.key)
}

// all reads what has the names that list returns. What was deleted since it was listed is left out. An entry that can't
// be used is no error here: one must not stand in the way of all others. What it means that it was not looked at, the
// caller decides.
func all[T any](ctx context.Context, list func(context.Context) ([]string, error), read func(context.Context, string) (*T, error)) (
	found map[string]*T, unusable []*unusableEntry, err error,
) {
	names, err := list(ctx)
	if err != nil {
		return nil, nil, err
	}
	found = make(map[string]*T, len(names))
	for _, name := range names {
		one, err := read(ctx, name)
		if e := asUnusable(err); e != nil {
			unusable = append(unusable, e)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if one != nil {
			found[name] = one
		}
	}
	return found, unusable, nil
}

// existingKey is key for a field that has to name one.
func (s *store) existingKey(ctx context.Context, field, name string) (*signingKey, error) {
	k, err := s.key(ctx, name)
	if err == nil && k == nil {
		err = noSuchKey(field, name)
	}
	return k, err
}

func noSuchKey(field, name string) error {
	return fieldError(field, "create it first with a write to keys/"+name, "there is no signing key named %q", name)
}

// requireKey refuses a reference to a key that does not exist. The empty name refers to none.
func (s *store) requireKey(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	_, err := s.existingKey(ctx, "key", name)
	return err
}

// requireFreeKID refuses a kid that another key of this mount has than the one that is excepted: the server tells keys
// apart by it. It returns the keys that could not be looked at.
func (s *store) requireFreeKID(ctx context.Context, kid, except string) (unusable []*unusableEntry, err error) {
	keys, unusable, err := s.keys(ctx)
	if err != nil {
		return nil, err
	}
	for name, k := range keys {
		if name != except && slices.ContainsFunc(k.Versions, func(v keyVersion) bool { return v.KID == kid }) {
			return nil, fieldError("kid", "give another kid", "key %q has this kid", name)
		}
	}
	return unusable, nil
}

// referencesTo names the configuration and the roles that name a key themselves, sorted, and returns those entries that
// may name it, since they can't be used.
func (s *store) referencesTo(ctx context.Context, key string) (references []string, unusable []*unusableEntry, err error) {
	c, _, err := s.config(ctx)
	unusableConfig := asUnusable(err)
	if err != nil && unusableConfig == nil {
		return nil, nil, err
	}
	roles, unusable, err := s.roles(ctx)
	if err != nil {
		return nil, nil, err
	}
	for name, r := range roles {
		if r.Key == key {
			references = append(references, rolesStoragePrefix+name)
		}
	}
	slices.Sort(references)
	if unusableConfig != nil {
		unusable = slices.Insert(unusable, 0, unusableConfig)
	} else if c.Key == key {
		references = slices.Insert(references, 0, configStorageKey)
	}
	return references, unusable, nil
}

// keysRegisteredBy names the keys that are registered with the tokens of a role, sorted, and returns the entries of those
// that may be, since they can't be used.
func (s *store) keysRegisteredBy(ctx context.Context, role string) (registered []string, unusable []*unusableEntry, err error) {
	keys, unusable, err := s.keys(ctx)
	if err != nil {
		return nil, nil, err
	}
	for name, k := range keys {
		if k.PlatformRole == role {
			registered = append(registered, keysStoragePrefix+name)
		}
	}
	slices.Sort(registered)
	return registered, unusable, nil
}

// clients returns what is stored of a key's clients, which is nothing when there is no entry.
func (s *store) clients(ctx context.Context, k *signingKey) (*storedClients, error) {
	stored := &storedClients{}
	found, err := s.read(ctx, clientsStoragePrefix+k.name, stored)
	if err != nil || found {
		return stored, err
	}
	former := &formerClients{}
	if found, err = s.read(ctx, formerClientsPrefix+k.name, former); err != nil || !found {
		return stored, err
	}
	return former.upgrade(k), nil
}

// checkName refuses names that no storage backend should be asked for.
func checkName(field, name string) error {
	if len(name) > maxNameLength {
		return fieldError(field, "choose a shorter one", "the name is longer than %d characters", maxNameLength)
	}
	if strings.Contains(name, "..") { // Vault's storage refuses it as a relative path
		return fieldError(field, "choose one with single dots", "the name has two dots in a row")
	}
	return nil
}
