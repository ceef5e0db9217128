// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"strings"
	"testing"
)

// TestUnusableEntriesAreDeletedByForce destroys stored entries in a real Vault, and deletes them with the command that
// the engine prints.
func TestUnusableEntriesAreDeletedByForce(t *testing.T) {
	t.Parallel()
	s := newOwnServer(t)
	e := mountOn(t, s)
	e.must("write", e.at("roles/team"), "client_id=client-1")
	e.must("read", e.at("token/team"))
	learnStoredKeys(t, s)
	storage := "logical/" + strings.TrimSpace(e.must("read", "-field=uuid", "sys/mounts/"+e.path)) + "/"
	paths := []string{"keys/main", "roles/team", "config"}
	for _, path := range paths {
		e.must("write", "sys/raw/"+storage+path, "value={")
	}
	e.must("plugin", "reload", "-plugin="+pluginName) // nobody has told the engine
	for _, path := range paths {
		command := "vault delete " + e.at(path) + " force=true"
		if printed := e.refused(http.StatusBadRequest, "delete", e.at(path)); !strings.Contains(printed, command) {
			t.Errorf("it does not print %q, but %s", command, printed)
		}
	}
	e.must("write", e.at("keys/other"), "algorithm=ES384") // the broken one does not stand in its way
	for _, path := range paths {
		e.must("delete", e.at(path), "force=true")
		if printed := e.try("read", e.at(path)); printed.code != 2 {
			t.Errorf("%s is still there: %v", path, printed)
		}
	}
	e.must("write", e.at("keys/main"), "algorithm=ES384")
	e.register("client-1", "main")
	e.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL)
	e.must("read", e.at("token"))
}
