// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// unusableEntries are what no read takes.
var unusableEntries = map[string]string{"unreadable": "{", "of a newer version": `{"schema_version":99}`}

// TestUnusableKeyBlocksNoOther: whatever is done to other keys goes on. The log names the one that could not be looked at,
// once a change.
func TestUnusableKeyBlocksNoOther(t *testing.T) {
	for name, entry := range unusableEntries {
		m := newReadyMount(t)
		m.write("keys/main", fields{"rotation_period": "24h", "retire_grace": "48h"})
		m.write("roles/team", fields{"client_id": "client-1"})
		m.plant("keys/broken", entry)
		warned := func() int {
			return strings.Count(m.log.String(), "a new version may have the kid of a key that can't be used")
		}
		for i, change := range []storageRequest{
			{logical.UpdateOperation, "keys/created", fields{"algorithm": algorithmES384}},
			{logical.UpdateOperation, "keys/brought/import", fields{"private_key": pkcs8Text(outsideEC())}},
			{logical.UpdateOperation, "keys/main/rotate", nil},
		} {
			m.answered(change.operation, change.path, change.data)
			if warned() != i+1 {
				t.Errorf("%s: after %s the log warns %d times", name, change.path, warned())
			}
		}
		if !strings.Contains(m.log.String(), `the stored entry \"keys/broken\"`) {
			t.Errorf("%s: the log does not name the entry:\n%s", name, m.log)
		}
		m.refusedWith(logical.UpdateOperation, "keys/more", fields{"algorithm": algorithmES384, "kid": m.read("keys/main")["kid"]}, `key "main" has this kid`)
		m.setJWKs("client-1", m.read("keys/main")["pending_public_jwk"])
		m.write("keys/main/activate", nil)
		m.clock.advance(25 * time.Hour)
		m.passNow()
		m.wantStates("main", "retired active pending")
		before := warned()
		m.passNow()
		if warned() != before {
			t.Errorf("%s: a pass that changes nothing warns", name)
		}
		m.write("keys/created", fields{"deletion_allowed": true})
		m.remove("keys/created")

		for path, want := range map[string]int{"jwks": 4, "jwks/main": 3} {
			body, _ := m.read(path)[logical.HTTPRawBody].([]byte)
			if got := strings.Count(string(body), `"kid"`); got != want {
				t.Errorf("%s: %s has %d keys, not %d", name, path, got, want)
			}
		}
		status, err := m.failed(logical.ReadOperation, "jwks/broken", nil)
		if status != http.StatusInternalServerError || !strings.Contains(err.Error(), `the stored entry "keys/broken"`) {
			t.Errorf("%s: its own JWKS answers %d, %v", name, status, err)
		}
		if m.read("jwks/none") != nil {
			t.Errorf("%s: a key that is not there has a JWKS", name)
		}
	}
}

// TestUnusableEntriesMayRefer: what an entry that can't be read may refer to is not deleted, not by force either, and the
// command that is printed helps.
func TestUnusableEntriesMayRefer(t *testing.T) {
	for name, entry := range unusableEntries {
		for _, test := range []struct {
			broken string
			path   string
		}{
			{"roles/broken", "keys/main"},
			{"config", "keys/main"},
			{"keys/broken", "roles/team"},
		} {
			m := newReadyMount(t)
			m.write("keys/main", fields{"deletion_allowed": true})
			m.write("config", fields{"key": ""})
			m.write("roles/team", nil)
			m.plant(test.broken, entry)
			for _, data := range []fields{nil, {"force": true}} {
				m.refusedWith(logical.DeleteOperation, test.path, data, "name: ", "may be used by "+test.broken+", which can't be read",
					"restore "+test.broken+" from a snapshot", "vault delete redox/"+test.broken+" force=true")
			}
			m.answered(logical.DeleteOperation, test.broken, fields{"force": true})
			m.remove(test.path)
			if m.storage.snapshot()[test.path] != "" {
				t.Errorf("%s: %s is still there", name, test.path)
			}
		}
	}
}

// TestUnusableEntriesAreDeletedByForce, and by nothing else. What is written then under that name is new.
func TestUnusableEntriesAreDeletedByForce(t *testing.T) {
	for name, entry := range unusableEntries {
		for path, again := range map[string]fields{
			"keys/main":        {"algorithm": algorithmES384},
			"roles/team":       {"scope": "fhir:read"},
			"config":           {"scope": "fhir:read"},
			wrappingKeyStorage: nil,
		} {
			m := newReadyMount(t)
			m.write("roles/team", nil) // inherits from the configuration
			m.read("token/team")
			m.passNow()
			m.plantFile(wrappingKeyStorage, wrappingKeyGolden)
			m.announced()
			m.plant(path, entry)
			for _, data := range []fields{nil, {"force": false}, {"force": ""}} {
				m.refusedWith(logical.DeleteOperation, path, data, "force: the stored entry \""+path+"\"", "vault delete redox/"+path+" force=true")
			}
			before := m.storage.snapshot()
			m.answered(logical.DeleteOperation, path, fields{"force": "true"}) // as the query has it
			delete(before, path)
			if path == "keys/main" {
				delete(before, clientsStoragePrefix+"main")
			}
			after := m.storage.snapshot()
			if left := after[leftStorageKey]; (left != "") != (path == "roles/team" || path == "config") {
				t.Errorf("%s: after %s was deleted, it is noted that a client has left: %q", name, path, left)
			}
			delete(after, leftStorageKey)
			if !maps.Equal(after, before) {
				t.Errorf("%s: after %s was deleted, stored are %v", name, path, slices.Sorted(maps.Keys(after)))
			}
			event := map[string]string{"keys/main": eventKeyDelete, "roles/team": eventRoleDelete, "config": eventConfigDelete}[path]
			if told := m.announced(); !strings.Contains(told, event) {
				t.Errorf("%s: told of the deletion of %s was %q", name, path, told)
			}
			m.answered(logical.DeleteOperation, path, fields{"force": true}) // nothing is there any more
			if again != nil {                                                // a wrapping key takes seconds
				m.write(path, again)
				m.read(path)
			}
		}
	}
}

// TestForceOverrulesNoOtherRule: an entry that can be read is deleted, or not, as without force.
func TestForceOverrulesNoOtherRule(t *testing.T) {
	m := newReadyMount(t)
	m.write("keys/management", fields{"algorithm": algorithmES384})
	m.write("roles/manager", fields{"client_id": "manager", "key": "management"})
	m.write("keys/main", fields{"registration": "platform", "platform_role": "manager"})
	force := fields{"force": true}
	m.refusedWith(logical.DeleteOperation, "keys/main", force, "deletion_allowed: ", "protected")
	m.write("keys/main", fields{"deletion_allowed": true})
	m.refusedWith(logical.DeleteOperation, "keys/main", force, "used by config;")
	m.refusedWith(logical.DeleteOperation, "roles/manager", force, "platform_role of keys/main;")
	m.refusedWith(logical.DeleteOperation, "config", force, "roles inherit from it (manager)")
	m.write("config", fields{"key": "management"})
	m.answered(logical.DeleteOperation, "keys/main", force)
	m.answered(logical.DeleteOperation, "roles/manager", force)
	m.answered(logical.DeleteOperation, "config", force)
}

// TestForceIsForDeletionsOnly: no other operation of these paths has such a field, and a deletion has no other.
func TestForceIsForDeletionsOnly(t *testing.T) {
	m := newDocumentedMount(t)
	for path, field := range map[string]string{"keys/main": "rsa_bits", "roles/team": "scope", "config": "scope", "wrapping_key": ""} {
		m.refusedWith(logical.ReadOperation, path, fields{"force": true}, "force: unknown field")
		if path != "wrapping_key" {
			m.refusedWith(logical.UpdateOperation, path, fields{"force": true}, "force: unknown field; the fields of this path are ", field)
			m.refusedWith(logical.DeleteOperation, path, fields{field: "2048"}, field+": unknown field; the fields of this path are force")
		}
	}
	_, help := m.help("")
	for path, item := range asJSON(t, help)["paths"].(map[string]any) {
		for method, operation := range item.(map[string]any) {
			operation, isOperation := operation.(map[string]any)
			has := strings.Contains(string(must(json.Marshal(operation))), `"force"`)
			if isOperation && has != (method == "delete" || slices.Contains([]string{"activate", "abandon", "retire"}, filepath.Base(path))) {
				t.Errorf("the document of %s %s has force: %v", method, path, has)
			}
		}
	}
}

// TestDeletionByForceWithAFailingStorage: a storage that does not answer is an error still, and not taken for an entry that
// can't be read; and what failed half-way can be done again.
func TestDeletionByForceWithAFailingStorage(t *testing.T) {
	for _, path := range []string{"keys/main", "roles/team", "config", wrappingKeyStorage} {
		for _, entry := range []string{"", "{"} { // "" leaves what is there
			for _, operation := range []string{"get", "delete"} {
				m := newReadyMount(t)
				m.write("roles/team", nil)
				m.plantFile(wrappingKeyStorage, wrappingKeyGolden)
				if entry != "" {
					m.plant(path, entry)
				}
				before := m.storage.snapshot()
				m.storage.onEach(failing(operation, ""))
				if operation == "delete" && entry == "" && path != "roles/team" && path != wrappingKeyStorage {
					continue // refused before
				}
				if _, err := m.failed(logical.DeleteOperation, path, fields{"force": true}); err != errInjected {
					t.Errorf("%s that can't %s: %v", path, operation, err)
				}
				m.storage.onEach(nil)
				after := m.storage.snapshot()
				delete(after, leftStorageKey) // it is written first, and promises nothing
				if !maps.Equal(after, before) {
					t.Errorf("%s that can't %s: storage has changed", path, operation)
				}
				if entry != "" {
					m.answered(logical.DeleteOperation, path, fields{"force": true})
				}
			}
		}
	}
}

// TestDeletionOfAnUnusableKeyForgetsIt: what is remembered of its clients and tokens is not that of a later key.
func TestDeletionOfAnUnusableKeyForgetsIt(t *testing.T) {
	m := newReadyMount(t)
	first := m.read("token")
	// Nobody has told the engine.
	must(0, m.storage.inner.Put(t.Context(), &logical.StorageEntry{Key: "keys/main", Value: []byte("{")}))
	m.answered(logical.DeleteOperation, "keys/main", fields{"force": true})
	m.write("keys/main", fields{"algorithm": algorithmES384})
	if known := must(m.backend.keys.snapshot(t.Context(), "main")); len(known.clients) != 0 || known.hasNews() {
		t.Errorf("the new key knows %v", known.clients)
	}
	m.register("client-1", "main")
	if again := m.read("token"); again["access_token"] == first["access_token"] {
		t.Error("a token of the old key is served")
	}
	if states := m.read("keys/main"); states["active_version"] != 1 || m.versions("main")["1"].(map[string]any)["state"] != string(rotation.Active) {
		t.Errorf("the key is %v", states)
	}
}

// TestKeyringDeletesUnusableKeysOnly: what became readable meanwhile, or is not there, or whose storage fails, stays.
func TestKeyringDeletesUnusableKeysOnly(t *testing.T) {
	r := newRing(t)
	must(r.add("one"))
	r.news()
	stored := r.storage.snapshot()
	for _, name := range []string{"main", "none"} {
		if deleted, err := r.deleteUnusable(t.Context(), name); deleted || err != nil {
			t.Errorf("%s: %v, %v", name, deleted, err)
		}
	}
	r.storage.onEach(failing("get", keysStoragePrefix))
	if deleted, err := r.deleteUnusable(t.Context(), "main"); deleted || err != errInjected {
		t.Errorf("with a storage that fails: %v, %v", deleted, err)
	}
	r.storage.onEach(nil)
	if news := r.news(); len(news) > 0 || !maps.Equal(r.storage.snapshot(), stored) {
		t.Errorf("nothing was deleted; told %+v", news)
	}
	must(0, r.storage.inner.Put(t.Context(), &logical.StorageEntry{Key: keysStoragePrefix + "main", Value: []byte("{")}))
	deleted, err := r.deleteUnusable(t.Context(), "main")
	if news := r.news(); !deleted || err != nil || len(news) != 1 || !news[0].endTokens || len(r.storage.snapshot()) > 0 {
		t.Errorf("%v, %v, told %+v", deleted, err, news)
	}
}

// TestWrappingKeyDeletion: the next read makes another one.
func TestWrappingKeyDeletion(t *testing.T) {
	m := newWrappingMount(t)
	first := m.read("wrapping_key")["public_key"]
	m.remove("wrapping_key")
	if m.storage.snapshot()[wrappingKeyStorage] != "" {
		t.Error("the wrapping key is still there")
	}
	if again := m.read("wrapping_key")["public_key"]; again == first {
		t.Error("the wrapping key is the same")
	}
}
