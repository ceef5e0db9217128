// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// TestKeyClientsArePaged: the clients of a key are shown in their order, each once, whatever the size of the pages. Those
// that nothing is known of are among them, and those of other keys are not.
func TestKeyClientsArePaged(t *testing.T) {
	m := newReadyMount(t)
	m.write("keys/other", fields{"algorithm": "ES384"})
	m.write("roles/other", fields{"client_id": "client-0", "key": "other"})
	want := []string{"client-1 proven"}
	for _, name := range []string{"client-2", "client-3", "client-4"} {
		m.write("roles/"+name, fields{"client_id": name})
		m.write("roles/"+name+"-too", fields{"client_id": name})
		want = append(want, name+" none")
	}
	m.read("token")
	for limit := 1; limit <= 5; limit++ {
		var got []string
		after := ""
		for {
			page := m.readWith("keys/main/clients", fields{"limit": limit, "after": after})
			clients, _ := page["clients"].([]any)
			if len(clients) > limit {
				t.Fatalf("a page of %d has %d clients", limit, len(clients))
			}
			for _, client := range clients {
				client, _ := client.(map[string]any)
				got = append(got, fmt.Sprint(client["client_id"], " ", client["proof"]))
			}
			if after, _ = page["next_after"].(string); after == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %v, not %v", limit, got, want)
		}
	}
	if clients, _ := m.readWith("keys/main/clients", fields{"after": "client-3"})["clients"].([]any); len(clients) != 1 {
		t.Errorf("after a client ID: %v", clients)
	}
	for _, limit := range []int{0, 1001} {
		if r, err := m.request(logical.ReadOperation, "keys/main/clients", fields{"limit": limit}); err != nil || !r.IsError() ||
			!strings.Contains(r.Error().Error(), "from 1 to 1000") {
			t.Errorf("limit %d: %v, %v", limit, r, err)
		}
	}
	for _, path := range []string{"keys/none/clients", "keys/none/versions"} {
		if r, err := m.request(logical.ReadOperation, path, nil); r != nil || err != nil {
			t.Errorf("%s: %v, %v", path, r, err)
		}
	}
}

// TestKeyListsTell: lists have what a table of keys, or of versions, needs. A key that can't be read takes none with it.
func TestKeyListsTell(t *testing.T) {
	m := newReadyMount(t)
	first := m.read("keys/main")
	second := m.write("keys/main/rotate", nil)
	m.plant("keys/broken", "{")
	for path, want := range map[string]fields{
		"keys": {
			"main":   fields{"algorithm": "ES384", "kid": first["kid"], "rotation": "pending"},
			"broken": fields{"algorithm": "", "kid": "", "rotation": "unreadable"},
		},
		"keys/main/versions": {
			"1": fields{"state": "active", "algorithm": "ES384", "kid": first["kid"], "created_time": first["created_time"]},
			"2": fields{"state": "pending", "algorithm": "ES384", "kid": second["pending_kid"], "created_time": first["created_time"]},
		},
	} {
		response, err := m.request(logical.ListOperation, path, nil)
		if err != nil || !reflect.DeepEqual(response.Data["key_info"], map[string]any(want)) {
			t.Errorf("%s: %v, %v; not %v", path, response, err, want)
		}
	}
}

// readWith is read with parameters of the query.
func (m *mount) readWith(path string, query fields) map[string]any {
	m.t.Helper()
	response, err := m.request(logical.ReadOperation, path, query)
	if err != nil || response.IsError() {
		m.t.Fatalf("read %s: %v, %v", path, response, err)
	}
	return response.Data
}
