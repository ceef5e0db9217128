// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/leakcheck"
)

// goldenEntries are entries as version 2 of the schema stores them, by storage key. They are never rewritten: what a
// released version has stored must be read for ever.
var goldenEntries = map[string]string{
	configStorageKey:            "testdata/entries/v2-config.json",
	rolesStoragePrefix + "team": "testdata/entries/v2-role.json",
	keysStoragePrefix + "main":  "testdata/entries/v2-key.json", // a throw-away key
	wrappingKeyStorage:          wrappingKeyGolden,
}

// formerEntries are the same as version 1 stored them at last.
var formerEntries = map[string]string{
	configStorageKey:            "testdata/entries/v1-config-limits.json",
	rolesStoragePrefix + "team": "testdata/entries/v1-role.json",
	keysStoragePrefix + "main":  "testdata/entries/v1-key-created.json",
	wrappingKeyStorage:          "testdata/entries/v1-wrapping-key.json",
}

// formerConfig is a configuration as it was stored before requests were limited.
const formerConfig = "testdata/entries/v1-config.json"

// formerKey is a key as it was stored before the time was noted at which it was made. The same throw-away key.
const formerKey = "testdata/entries/v1-key.json"

// goldenKeyBeforeRotation is a key as it was stored before keys could be rotated. The same throw-away key.
const goldenKeyBeforeRotation = "testdata/entries/v1-key-before-rotation.json"

// goldenRotation is a key after a rotation with what was learned of its clients, as version 2 of the schema stores them.
// See rotatedMount for what has happened to it; it has throw-away keys.
var goldenRotation = map[string]string{
	keysStoragePrefix + "main":    "testdata/entries/v2-key-rotated.json",
	clientsStoragePrefix + "main": "testdata/entries/v2-clients.json",
}

// lastRotation is the same as version 1 stored it at last.
var lastRotation = map[string]string{
	keysStoragePrefix + "main":    "testdata/entries/v1-key-rotated-created.json",
	clientsStoragePrefix + "main": "testdata/entries/v1-clients.json",
}

// formerRotation is the same in the form that it had before proofs were kept for each version.
var formerRotation = map[string]string{
	keysStoragePrefix + "main":   "testdata/entries/v1-key-rotated.json",
	formerClientsPrefix + "main": "testdata/entries/v1-acceptance.json",
}

func (m *mount) plantGoldenEntries() {
	m.t.Helper()
	for key, file := range goldenEntries {
		m.plantFile(key, file)
	}
}

// plantFile stores what a file holds.
func (m *mount) plantFile(key, file string) {
	m.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	m.plant(key, string(text))
}

func TestGoldenEntriesLoadAndWork(t *testing.T) {
	t.Run("present form", func(t *testing.T) { goldenEntriesLoadAndWork(t, nil, 4000, 16) })
	t.Run("version 1", func(t *testing.T) { goldenEntriesLoadAndWork(t, formerEntries, 4000, 16) })
	for key, file := range map[string]string{keysStoragePrefix + "main": formerKey, configStorageKey: formerConfig} {
		requestLimit, maxConcurrent := 4000, 16
		if file == formerConfig {
			requestLimit, maxConcurrent = 5000, 64 // the defaults
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			goldenEntriesLoadAndWork(t, map[string]string{key: file}, requestLimit, maxConcurrent)
		})
	}
}

// goldenEntriesLoadAndWork uses the golden entries, some of them in a former form.
func goldenEntriesLoadAndWork(t *testing.T, former map[string]string, requestLimit, maxConcurrent int) {
	m := newMount(t)
	m.plantGoldenEntries()
	for key, file := range former {
		m.plantFile(key, file)
	}
	m.configReads(map[string]any{
		"client_id": "client-1", "key": "main", "scope": "fhir:read", "base_url": "https://api.ca.redoxengine.com",
		"token_url": "https://token.example/token", "audience": "https://audience.example",
		"platform_url": "https://platform.example", "jku": "https://jku.example/jwks", "assertion_ttl": 100, "clock_skew": 20,
		"request_timeout": 5, "max_retries": 1, "min_ttl": 25, "request_limit": requestLimit, "max_concurrent_requests": maxConcurrent,
	})
	m.roleReads("team", map[string]any{
		"client_id": "client-2", "key": "main", "scope": "fhir:write", "jku": "https://team.example/jwks",
		"min_ttl": 40, "leased": true,
	})
	key := m.read("keys/main")
	if key["kid"] != "golden-kid" || key["algorithm"] != algorithmES384 || key["deletion_allowed"] != true ||
		key["created_time"] != "2026-01-02T03:04:05Z" {
		t.Errorf("the key reads %v", key)
	}
	m.register("client-2", "main")
	m.write("config", map[string]any{"base_url": m.redox.URL, "token_url": nil, "audience": nil, "jku": nil})
	m.write("keys/main", map[string]any{"deletion_allowed": false}) // makes the secrets' search know it, too
	m.write("roles/team", map[string]any{"jku": nil})
	data := m.read("token/team")
	if data["client_id"] != "client-2" || data["kid"] != "golden-kid" || data["scope"] != "fhir:write" {
		t.Errorf("the token is told to be of %v, %v, %v", data["client_id"], data["kid"], data["scope"])
	}
}

// Whoever changes what is stored must see that it takes a new schema version, or at least a default for what older
// entries lack.
func TestStoredEntriesHaveTheFormOfTheGoldenOnes(t *testing.T) {
	m := newMount(t)
	m.write("keys/main", map[string]any{"algorithm": algorithmES384})
	m.write("config", nil)
	m.write("roles/team", nil)
	m.read("wrapping_key")
	stored := m.storage.snapshot()
	if len(stored) != len(goldenEntries) {
		t.Errorf("stored are %v", slices.Sorted(maps.Keys(stored)))
	}
	for key, file := range goldenEntries {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := members(t, stored[key]), members(t, string(text)); !slices.Equal(got, want) {
			t.Errorf("%s is stored with\n%v, but %s has\n%v", key, got, file, want)
		}
		var h header
		if err := json.Unmarshal([]byte(stored[key]), &h); err != nil || h.SchemaVersion != storageSchemaVersion {
			t.Errorf("%s is stored with schema version %d", key, h.SchemaVersion)
		}
	}
}

// TestGoldenRotationLoadsAndWorks reads what was learned of a key's clients, and goes on from there.
func TestGoldenRotationLoadsAndWorks(t *testing.T) {
	for name, entries := range map[string]map[string]string{"present form": goldenRotation, "version 1": lastRotation, "former form": formerRotation} {
		t.Run(name, func(t *testing.T) { goldenRotationLoadsAndWorks(t, entries) })
	}
}

func goldenRotationLoadsAndWorks(t *testing.T, entries map[string]string) {
	m := newMount(t)
	m.plantGoldenEntries()
	for key, file := range entries {
		m.plantFile(key, file)
	}
	if key := m.read("keys/main"); key["kid"] != "golden-kid-2" {
		t.Errorf("kid %v is active", key["kid"])
	}
	const tokenURL = "https://token.example/token"
	shown := map[string]any{}
	for _, client := range m.clients("main") {
		for field, value := range client {
			if list, isList := value.([]int); isList {
				value = fmt.Sprint(list)
			}
			shown[fmt.Sprint(client["client_id"], " ", field)] = value
		}
		for i, registration := range client["registration"].([]string) {
			shown[fmt.Sprint(client["client_id"], " registration ", i)] = registration
		}
	}
	for field, want := range map[string]any{
		"client-1 token_url": tokenURL, "client-1 version": 2, "client-1 kid": "golden-kid-2", "client-1 proof": "proven",
		"client-1 proven_time": "2026-01-02T03:04:05Z", "client-1 rejected_versions": "[]",
		"client-2 token_url": tokenURL, "client-2 version": 1, "client-2 kid": "golden-kid-1", "client-2 proof": "proven",
		"client-2 proven_time":    "2026-01-02T13:04:05Z",
		"client-1 registration 0": "golden-kid-2: registered", "client-1 registration 1": nil, "client-2 registration 1": nil,
	} {
		if shown[field] != want {
			t.Errorf("%s: %v, not %v", field, shown[field], want)
		}
	}
	if entries[clientsStoragePrefix+"main"] != "" && (shown["client-2 rejected_versions"] != "[2]" || shown["client-2 last_outcome"] != "rejected" ||
		shown["client-2 last_asked_time"] != "2026-01-02T14:04:05Z") {
		t.Errorf("client-2 is shown as %v", shown)
	}
	for field, begins := range map[string]string{
		"client-2 registration 0": "golden-kid-2: it was there and was taken away by somebody",
	} {
		if text, _ := shown[field].(string); !strings.HasPrefix(text, begins) {
			t.Errorf("%s: %q", field, text)
		}
	}
	for path, kid := range map[string]string{"assertion": "golden-kid-2", "assertion/team": "golden-kid-1"} {
		if signed := m.write(path, nil)["kid"]; signed != kid {
			t.Errorf("%s is signed with %v, not %s", path, signed, kid)
		}
	}

	// Both are asked before version 1 goes, at another server, a day after they left the one before.
	m.write("config", map[string]any{"base_url": m.redox.URL, "token_url": nil, "audience": nil, "jku": nil, "scope": nil})
	m.write("roles/team", map[string]any{"jku": nil, "scope": nil})
	m.write("keys/main", map[string]any{"registration": "manual", "platform_role": ""})
	m.setJWKs("client-1", m.read("keys/main")["public_jwk"])
	m.setJWKs("client-2", m.read("keys/main")["public_jwk"])
	m.clock.advance(24*time.Hour - time.Minute)
	m.passNow()
	m.wantStates("main", "retired active")
	m.clock.advance(time.Minute)
	m.passNow()
	m.wantStates("main", "destroyed active")
}

// rotatedMount is a mount whose key "main" was rotated. Both API keys had accepted version 2; ten hours later client-2
// knew version 1 only, so that it minted with that again, and version 2 was rejected at each trial since.
func rotatedMount(t *testing.T) *platformMount {
	m := newPlatformMount(t)
	m.write("keys/main", map[string]any{"retire_grace": "24h"})
	first := m.read("keys/main")["public_jwk"]
	m.setJWKs("client-2", first)
	m.write("roles/team", map[string]any{"client_id": "client-2"})
	m.read("token/team")
	m.write("keys/main/rotate", map[string]any{"kid": "golden-kid-2"})
	m.write("keys/main/activate", nil)
	m.passNow() // sees that version 2 stays where it was registered
	m.setJWKs("client-2", first)
	m.clock.advance(10 * time.Hour)
	m.write("token/team", nil)
	m.clock.advance(time.Hour)
	m.write("keys/main/retire", nil) // client-2 needs it
	return m
}

func TestStoredRotationHasTheFormOfTheGoldenOne(t *testing.T) {
	m := rotatedMount(t)
	for key, file := range goldenRotation {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := members(t, m.storage.snapshot()[key]), members(t, string(text)); !slices.Equal(got, want) {
			t.Errorf("%s is stored with\n%v, but %s has\n%v", key, got, file, want)
		}
	}
}

// members returns the names in a JSON object and in the objects of its arrays, sorted.
func members(t *testing.T, text string) []string {
	t.Helper()
	var names []string
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch value := value.(type) {
		case map[string]any:
			for name, inner := range value {
				if strings.HasSuffix(path, "clients.") {
					name = "DIGEST"
				}
				names = append(names, path+name)
				walk(path+name+".", inner)
			}
		case []any:
			for _, inner := range value {
				walk(path, inner)
			}
		}
	}
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	walk("", value)
	slices.Sort(names)
	return slices.Compact(names)
}

// storageRequest is a request that needs storage.
type storageRequest struct {
	operation logical.Operation
	path      string
	data      map[string]any
}

func TestUnusableEntries(t *testing.T) {
	const newer = "was written by a newer version of this plugin (schema 3, this one knows 2)"
	const unreadable = "is unreadable; restore it"
	// Everything that needs the entry at a key.
	needs := map[string][]storageRequest{
		"config": {
			{logical.ReadOperation, "config", nil},
			{logical.UpdateOperation, "config", map[string]any{"scope": "x"}},
			{logical.ReadOperation, "token", nil},
			{logical.UpdateOperation, "token", nil},
			{logical.ReadOperation, "token/team", nil},
			{logical.UpdateOperation, "assertion", nil},
			{logical.UpdateOperation, "check/team", nil},
		},
		"roles/team": {
			{logical.ReadOperation, "roles/team", nil},
			{logical.UpdateOperation, "roles/team", map[string]any{"scope": "x"}},
			{logical.ReadOperation, "token/team", nil},
			{logical.UpdateOperation, "token/team", nil},
			{logical.UpdateOperation, "assertion/team", nil},
			{logical.UpdateOperation, "check/team", nil},
		},
		"keys/main": {
			{logical.ReadOperation, "keys/main", nil},
			{logical.UpdateOperation, "keys/main", nil},
			{logical.UpdateOperation, "keys/main", map[string]any{"algorithm": algorithmES384}},
			{logical.ReadOperation, "jwks/main", nil},
			{logical.UpdateOperation, "keys/main/rotate", nil},
			{logical.UpdateOperation, "config", map[string]any{"key": "main"}},
			{logical.UpdateOperation, "roles/team", map[string]any{"key": "main"}},
			{logical.ReadOperation, "token", nil},
			{logical.ReadOperation, "token/team", nil},
			{logical.UpdateOperation, "assertion", nil},
			{logical.UpdateOperation, "check", nil},
		},
	}
	// What would delete it, or what it may refer to, says how.
	refused := map[string][]string{
		"config":     {"config", "keys/main"},
		"roles/team": {"roles/team"},
		"keys/main":  {"keys/main"},
	}
	m := newReadyMount(t)
	m.write("roles/team", nil)
	m.write("keys/main", map[string]any{"deletion_allowed": true})
	good := m.storage.snapshot()
	withVersion := func(entry, version string) string {
		return strings.Replace(entry, `"schema_version":2`, `"schema_version":`+version, 1)
	}
	for key, requests := range needs {
		for broken, says := range map[string]string{
			withVersion(good[key], "3"):             newer,
			`{"schema_version":3,"client_id":{}}`:   newer, // whose form nobody knows yet
			withVersion(good[key], "0"):             unreadable,
			withVersion(good[key], "-1"):            unreadable,
			withVersion(good[key], `"1"`):           unreadable,
			withVersion(good[key], "1.5"):           unreadable,
			withVersion(good[key], "null"):          unreadable,
			strings.Replace(good[key], "_v", "", 1): unreadable, // no schema_version
			good[key][:len(good[key])/2]:            unreadable,
			`{"schema_version":1,"scope":["` + misplaced + `"],"jku":1,"versions":"` + misplaced + `"}`: unreadable,
			"null": unreadable, "[]": unreadable, "": unreadable, misplaced: unreadable,
		} {
			m.plant(key, broken)
			for _, r := range requests {
				m.restart() // with nothing cached
				status, err := m.failed(r.operation, r.path, r.data)
				if status != http.StatusInternalServerError || !strings.Contains(err.Error(), `"`+key+`" `+says) {
					t.Errorf("%s %s with %s=%.40s failed with %d %q", r.operation, r.path, key, broken, status, err)
				}
				if strings.Contains(err.Error(), misplaced) {
					t.Errorf("%s %s: the error repeats what is stored: %q", r.operation, r.path, err)
				}
			}
			for _, path := range refused[key] {
				parts := []string{"vault delete redox/" + key + " force=true"}
				if path == key {
					parts = append(parts, `"`+key+`" `+says)
				}
				m.refusedWith(logical.DeleteOperation, path, nil, parts...)
			}
			// Nothing has touched it, and when it is restored all is well, at once.
			if got := m.storage.snapshot()[key]; got != broken {
				t.Errorf("%s was %.40s and is now %.40s", key, broken, got)
			}
			m.plant(key, good[key])
			m.read("token/team")
		}
	}
}

// A storage that fails is not the user's fault. Its error goes back as it is: Vault forwards the request when it is
// logical.ErrReadOnly, and a wrapped one would lose that on the way.
func TestFailingStorage(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", nil)
	broken := errors.New("storage is broken")
	for _, r := range []storageRequest{
		{logical.ReadOperation, "config", nil},
		{logical.UpdateOperation, "config", map[string]any{"key": "main"}},
		{logical.ListOperation, "roles/", nil},
		{logical.ReadOperation, "roles/team", nil},
		{logical.UpdateOperation, "roles/team", map[string]any{"key": "main"}},
		{logical.UpdateOperation, "roles/new", nil},
		{logical.DeleteOperation, "roles/new", nil},
		{logical.ListOperation, "keys/", nil},
		{logical.ReadOperation, "keys/main", nil},
		{logical.UpdateOperation, "keys/main", map[string]any{"deletion_allowed": true}},
		{logical.UpdateOperation, "keys/new", map[string]any{"algorithm": algorithmES384, "deletion_allowed": true}},
		{logical.DeleteOperation, "keys/new", nil},
		{logical.ReadOperation, "jwks", nil},
		{logical.ReadOperation, "jwks/main", nil},
		{logical.ReadOperation, "token/team", nil},
		{logical.UpdateOperation, "token", nil},
		{logical.UpdateOperation, "assertion/team", nil},
		{logical.UpdateOperation, "check/team", nil},
		{logical.DeleteOperation, "roles/team", nil},
		{logical.DeleteOperation, "config", nil},
	} {
		// The first operation fails, then the second, ...: until the request needs no more.
		for failing := 1; ; failing++ {
			m.restart() // with nothing cached
			before, operations := m.storage.snapshot(), 0
			m.storage.onEach(func(string, string) error {
				if operations++; operations == failing {
					return broken
				}
				return nil
			})
			response, err := m.request(r.operation, r.path, r.data)
			m.storage.onEach(nil)
			if operations < failing {
				if err != nil || response.IsError() {
					t.Fatalf("%s %s failed though storage did not: %v, %v", r.operation, r.path, response, err)
				}
				if failing == 1 {
					t.Errorf("%s %s needs no storage", r.operation, r.path)
				}
				break
			}
			if err != broken {
				t.Errorf("%s %s with a failure of storage operation %d gave %v, %v", r.operation, r.path, failing, response, err)
			}
			after := m.storage.snapshot()
			for _, note := range []map[string]string{before, after} {
				delete(note, leftStorageKey) // it is written first, and promises nothing
			}
			if !maps.Equal(before, after) {
				t.Errorf("%s %s failed at storage operation %d, but storage has changed", r.operation, r.path, failing)
			}
		}
	}
}

// What was minted before or during a write is looked at again after it, also when it failed: it may have been carried out
// all the same. Here it was not, so the token is still right, and storage is read to see that.
func TestWritesDropWhatIsCached(t *testing.T) {
	for _, r := range []storageRequest{
		{logical.UpdateOperation, "config", map[string]any{"scope": "x"}},
		{logical.DeleteOperation, "config", nil},
		{logical.UpdateOperation, "roles/team", map[string]any{"scope": "x"}},
		{logical.DeleteOperation, "roles/team", nil},
	} {
		m := newReadyMount(t)
		path := "token/team"
		if r.path == "config" {
			path = "token" // a role would keep config from being deleted
		} else {
			m.write("roles/team", nil)
		}
		before := m.read(path)["access_token"]
		during := before
		m.storage.onEach(func(operation, _ string) error {
			if operation == "put" || operation == "delete" {
				during = m.read(path)["access_token"]
				return logical.ErrReadOnly
			}
			return nil
		})
		if _, err := m.failed(r.operation, r.path, r.data); err != logical.ErrReadOnly {
			t.Errorf("%s %s failed with %v", r.operation, r.path, err)
		}
		reads := m.storage.readCount()
		if after := m.read(path)["access_token"]; after != before || after != during {
			t.Errorf("after a failed %s of %s the token is another one", r.operation, r.path)
		}
		if m.storage.readCount() == reads {
			t.Errorf("after a failed %s of %s a token from before is served unseen", r.operation, r.path)
		}
	}
}

// Vault matches an entry of SealWrapStorage exactly, or as a prefix when it ends in a slash.
func TestPrivateKeysAreSealWrapped(t *testing.T) {
	m := newReadyMount(t)
	m.write("keys/other", map[string]any{"algorithm": algorithmES384})
	m.register("client-2", "other")
	m.write("roles/team", map[string]any{"client_id": "client-2", "key": "other"})
	m.read("token/team")
	scanner := leakcheck.New()
	for _, name := range []string{"main", "other"} {
		k, err := m.store.key(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		private, err := storedPrivateKey(k.Versions[0].PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		if err := scanner.AddKey(name, private); err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	for _, stored := range m.storage.written() {
		if len(scanner.Scan(stored.Value)) == 0 {
			continue
		}
		found++
		if !slices.ContainsFunc(m.SpecialPaths().SealWrapStorage, func(wrapped string) bool {
			return wrapped == stored.Key || strings.HasSuffix(wrapped, "/") && strings.HasPrefix(stored.Key, wrapped)
		}) {
			t.Errorf("%s holds a private key and is not seal wrapped", stored.Key)
		}
	}
	if found != 2 {
		t.Errorf("%d stored entries hold a private key, expected 2", found)
	}
	if !slices.Contains(m.SpecialPaths().SealWrapStorage, wrappingKeyStorage) {
		t.Error("the wrapping key would not be seal wrapped")
	}
	if local := m.SpecialPaths().LocalStorage; len(local) != 0 {
		t.Errorf("%v would not be replicated", local)
	}
}

// Whoever waits for another's write can give up, and readers never wait.
func TestWriteLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &watchedStorage{inner: &logical.InmemStorage{}}
		b, err := Factory(t.Context(), &logical.BackendConfig{
			Logger: hclog.NewNullLogger(), System: logical.TestSystemView(), StorageView: storage,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Cleanup(t.Context())
		do := func(ctx context.Context, operation logical.Operation, path string) error {
			_, err := b.HandleRequest(ctx, &logical.Request{
				Operation: operation, Path: path, Storage: storage, Data: map[string]any{},
			})
			return err
		}
		finish := make(chan struct{})
		storage.onEach(func(operation, _ string) error {
			if operation == "put" {
				<-finish
			}
			return nil
		})
		done := make(chan error)
		go func() { done <- do(t.Context(), logical.CreateOperation, "roles/slow") }()
		synctest.Wait() // until it is about to be stored
		storage.onEach(nil)
		for _, path := range []string{"config", "roles/other"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // of the bubble's clock
			err := do(ctx, logical.CreateOperation, path)
			cancel()
			coded, ok := err.(logical.HTTPCodedError)
			if !ok || coded.Code() != http.StatusGatewayTimeout {
				t.Errorf("a write of %s that waited for another one in vain gave %v", path, err)
			}
			if err := do(t.Context(), logical.ReadOperation, path); err != nil {
				t.Errorf("a read of %s during a write gave %v", path, err)
			}
		}
		close(finish)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := do(t.Context(), logical.CreateOperation, "roles/other"); err != nil {
			t.Error(err)
		}
		if names, _ := storage.inner.List(t.Context(), rolesStoragePrefix); !slices.Equal(names, []string{"other", "slow"}) {
			t.Errorf("the roles are %v", names)
		}
	})
}

func TestGoldenEntriesAreAllUsed(t *testing.T) {
	files, err := filepath.Glob("testdata/entries/*")
	if err != nil {
		t.Fatal(err)
	}
	used := []string{goldenKeyBeforeRotation, formerKey, formerConfig}
	for _, entries := range []map[string]string{goldenEntries, formerEntries, goldenRotation, lastRotation, formerRotation} {
		used = slices.AppendSeq(used, maps.Values(entries))
	}
	slices.Sort(used)
	if !slices.Equal(files, used) {
		t.Errorf("there are %v, but used are %v", files, used)
	}
}
