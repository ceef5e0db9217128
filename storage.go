// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// Where things are stored. A prefix is spelled with its slash, which seal wrap needs to match what is below it.
const (
	configStorageKey   = "config"
	rolesStoragePrefix = "roles/"
	keysStoragePrefix  = "keys/"
	wrappingKeyStorage = "wrapping_key" // for the import of wrapped keys
	// acceptanceStoragePrefix is apart from the keys: it changes with mints, and needs no seal wrap.
	acceptanceStoragePrefix = "acceptance/"
	storageSchemaVersion    = 1
)

// mostNameLength keeps names well under what storage backends take for a path.
const mostNameLength = 128

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
type unusableEntry struct{ key, problem string }

func (e *unusableEntry) Error() string {
	return fmt.Sprintf("the stored entry %q %s", e.key, e.problem)
}

func unreadableEntry(key string) error {
	return &unusableEntry{key, "is unreadable; restore it from a snapshot of Vault"}
}

// readEntry decodes the entry at key over what into holds already, so that fields an older version did not know keep
// their defaults. It says whether there is an entry. An entry of a newer version is an error: every write reads first,
// so such an entry is never overwritten. Errors hold nothing of the entry.
func readEntry(ctx context.Context, storage logical.Storage, key string, into storable) (found bool, err error) {
	entry, err := storage.Get(ctx, key)
	if err != nil || entry == nil {
		return false, err
	}
	unreadable := json.Unmarshal(entry.Value, into) != nil
	version := into.schemaVersion()
	if unreadable { // maybe since a newer version has given a field another type
		var stored header
		if json.Unmarshal(entry.Value, &stored) == nil {
			version = stored.SchemaVersion
		}
	}
	switch {
	case version > storageSchemaVersion:
		return false, &unusableEntry{key, fmt.Sprintf("was written by a newer version of this plugin (schema %d, this one "+
			"knows %d); run that version again, this one leaves the entry as it is", version, storageSchemaVersion)}
	case unreadable || version < 1:
		return false, unreadableEntry(key)
	}
	return true, nil
}

// writeEntry stores value under key with the present schema version.
func writeEntry(ctx context.Context, storage logical.Storage, key string, value storable) error {
	value.setSchemaVersion()
	entry, err := logical.StorageEntryJSON(key, value)
	if err != nil {
		return fmt.Errorf("the entry %q can't be encoded", key)
	}
	return storage.Put(ctx, entry)
}

// checkName refuses names that no storage backend should be asked for.
func checkName(field, name string) error {
	if len(name) > mostNameLength {
		return fieldError(field, "choose a shorter one", "the name is longer than %d characters", mostNameLength)
	}
	if strings.Contains(name, "..") { // Vault's storage refuses it as a relative path
		return fieldError(field, "choose one with single dots", "the name has two dots in a row")
	}
	return nil
}

// writeLock lets one change of config, roles and keys happen at a time, so that what refers to a key and the key
// itself stay consistent. Readers never take it. It is a channel so that who waits can give up.
type writeLock chan struct{}

func newWriteLock() writeLock { return make(writeLock, 1) }

// lock waits for the lock or the end of ctx. The caller calls unlock when err is nil.
func (l writeLock) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
