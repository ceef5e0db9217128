// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBackupDocumentation goes through docs/backup.md: a snapshot, a key that leaks and is replaced, a restore of what was
// before, what the engine says then, the way back, and a clone.
func TestBackupDocumentation(t *testing.T) {
	verifyOnly(t, "snapshots and restores for docs/backup.md")
	node := newRaftNode(t, "original")
	unsealKey := node.initialize()
	e := engineAt(node)
	e.accessToken("token")
	leaked := e.data("read", "redox/keys/main")
	page := readSections(t, "backup.md")
	directory := t.TempDir()
	page.run(e, directory, "Take a backup")
	kept, err := os.ReadFile(filepath.Join(directory, "redox-main.json"))
	if err != nil || !strings.Contains(string(kept), fmt.Sprint(leaked["kid"])) {
		t.Errorf("what is kept beside the snapshot has not the kid: %v %s", err, kept)
	}

	// What happens after it: the key leaks and is replaced, a role is made.
	e.replaceAtRedox("rotate")
	e.must("write", "-f", "redox/keys/main/activate")
	e.must("write", "redox/keys/main/retire", "version=1", "destroy_now=true")
	e.must("write", "redox/roles/late", "scope=a")
	node.learnKeys()
	before := e.data("read", "redox/token")

	restore := page.take("Restore")
	e.bash(directory, restore[0])
	e.bash(directory, restore[1])
	check := e.data("write", "-f", "redox/check")
	if check["ok"] != false || check["kid"] != leaked["kid"] ||
		!strings.Contains(fmt.Sprint(check["error_description"]), "Public key not found") {
		t.Errorf("after the restore the check says %v", check)
	}
	if answer := e.refused(http.StatusBadRequest, "read", "redox/token"); !strings.Contains(answer, "Public key not found") {
		t.Errorf("after the restore a reader is told %s", answer)
	}
	if cause := e.data("write", "-f", "redox/check/late")["cause"]; !strings.Contains(fmt.Sprint(cause), "there is no role") {
		t.Errorf("of a role made after the snapshot the check says %v", cause)
	}
	if next := fmt.Sprint(e.data("read", "redox/keys/main")["next_step"]); !strings.Contains(next, "restored") {
		t.Errorf("after the restore next_step is %q", next)
	}

	bringBack := page.take("Bring it back")
	if len(bringBack) != 3 {
		t.Fatalf("there are %d blocks", len(bringBack))
	}
	e.bash(directory, bringBack[0])
	e.replaceAtRedox("")
	e.bash(directory, bringBack[1])
	if e.opens(e.accessToken("token")) != http.StatusOK {
		t.Error("there is no token once the new version is promoted")
	}
	e.bash(directory, bringBack[2])
	after := e.data("read", "redox/token")
	if kid := after["kid"]; kid == leaked["kid"] || kid == before["kid"] ||
		e.opens(fmt.Sprint(after["access_token"])) != http.StatusOK {
		t.Errorf("at last a token is of kid %v", kid)
	}
	versions, _ := e.data("read", "redox/keys/main/versions")["versions"].(map[string]any)
	if first, _ := versions["1"].(map[string]any); first["state"] != "destroyed" || first["compromised"] != true {
		t.Errorf("the version that has leaked is %v", first)
	}
	if _, jwks := e.http(http.MethodGet, "redox/jwks/main", ""); strings.Contains(jwks, fmt.Sprint(leaked["kid"])) {
		t.Errorf("the version that has leaked is published: %s", jwks)
	}
	node.learnKeys()

	// Where Redox reads the JWKS from Vault, a restore alone makes it trust the version that has leaked.
	if err := e.redox.SetJWKSURL("client-1", node.address+"/v1/redox/jwks/main"); err != nil {
		t.Fatal(err)
	}
	e.bash(directory, restore[0])
	if check := e.data("write", "-f", "redox/check"); check["ok"] != true || check["kid"] != leaked["kid"] {
		t.Errorf("with a JWKS URL the check says %v", check)
	}
	for _, step := range []int{0, 2, 1} { // a new version, the leaked one destroyed, and only then proof
		e.bash(directory, bringBack[step])
	}
	if check := e.data("write", "-f", "redox/check"); check["ok"] != true || check["kid"] == leaked["kid"] {
		t.Errorf("with a JWKS URL, brought back, the check says %v", check)
	}
	node.learnKeys()

	clone := newRaftNode(t, "clone")
	clone.initialize()
	if err := e.redox.SetJWK("client-1", json.RawMessage(fmt.Sprint(leaked["public_jwk"]))); err != nil {
		t.Fatal(err)
	}
	node.Stop() // so that the clone can't reach it: there is no firewall here
	c := &engine{person: clone.operator(), path: "redox", redox: e.redox}
	commands := page.take("Clones")
	c.bash(directory, commands[0])
	clone.rootToken = node.rootToken
	c.person = clone.operator()
	await(t, "the clone to work with the original's unseal key", func() bool {
		c.try("operator", "unseal", unsealKey) // again, if the clone was still sealing itself
		return c.try("token", "lookup").code == 0
	})
	if token := c.data("read", "redox/token"); token["kid"] != leaked["kid"] {
		t.Errorf("a clone mints with %v", token["kid"])
	}
	c.bash(directory, commands[1])
	if response, _ := c.http(http.MethodGet, "redox/keys/main", ""); response.StatusCode != http.StatusNotFound {
		t.Errorf("the clone still has its keys: %d", response.StatusCode)
	}
	node.restart()
	node.unseal(unsealKey)
	if err := e.redox.SetJWKSURL("client-1", node.address+"/v1/redox/jwks/main"); err != nil {
		t.Fatal(err)
	}
	if e.opens(e.accessToken("token")) != http.StatusOK {
		t.Error("the original is hurt")
	}
	page.checkAllTaken()
}

// replaceAtRedox makes Redox know the pending version and no other, after a verb on the key if one is named.
func (e *engine) replaceAtRedox(verb string) {
	e.t.Helper()
	if verb != "" {
		e.must("write", "-f", e.at("keys/main/"+verb))
	}
	jwk := strings.TrimSpace(e.must("read", "-field=pending_public_jwk", e.at("keys/main")))
	if err := e.redox.SetJWK("client-1", json.RawMessage(jwk)); err != nil {
		e.t.Fatal(err)
	}
}
