// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// TestAPIReferenceCommands runs the commands of docs/api.md from top to bottom, as they are printed. What else has to be
// there for some of them is done before.
func TestAPIReferenceCommands(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{})
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "key.pem"), []byte(newPrivateKey(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	e.must("write", e.at("keys/main"), "algorithm=ES384", "kid=main-2026")
	e.register("my-client-id", "main")
	configure := func() { e.must("write", e.at("config"), "client_id=my-client-id", "key=main", "base_url="+e.redox.URL) }
	configure()
	before := map[string]func(){
		"write redox/keys/main algorithm": configure, // which was deleted
		"delete redox/keys/old":           func() { e.must("write", e.at("keys/old"), "algorithm=ES384", "deletion_allowed=true") },
		"write -f redox/keys/main/activate": func() {
			key := e.data("read", e.at("keys/main"))
			set := fmt.Sprintf(`{"keys":[%s,%s]}`, key["public_jwk"], key["pending_public_jwk"])
			if err := e.redox.SetJWKSet("my-client-id", json.RawMessage(set)); err != nil {
				t.Fatal(err)
			}
		},
		"write -f redox/keys/main/abandon": func() { e.must("write", "-f", e.at("keys/main/rotate")) },
		"write -f redox/keys/main/register": func() {
			e.must("write", e.at("keys/manager"), "algorithm=ES384")
			jwk := e.must("read", "-field=public_jwk", e.at("keys/manager"))
			if _, err := e.redox.CreateAPIKeyChecked(sandbox.APIKeyRequest{
				ID: "manager", JWK: json.RawMessage(jwk), Management: true}); err != nil {
				t.Fatal(err)
			}
			e.must("write", e.at("roles/manager"), "client_id=manager", "key=manager")
			e.must("write", e.at("keys/main"), "registration=platform", "platform_role=manager")
		},
		"read redox/token/team-a": func() { // its role was deleted
			e.must("write", e.at("roles/team-a"), "client_id=team-a-client-id")
			e.register("team-a-client-id", "main")
		},
	}
	for _, block := range documentedCommands(t, "api.md") {
		for words, prepare := range before {
			if strings.HasPrefix(block, "vault "+words) {
				prepare()
				delete(before, words)
			}
		}
		block = strings.NewReplacer("redox/", e.path+"/", "json redox", "json "+e.path).Replace(block)
		e.bash(directory, block)
	}
	if len(before) > 0 {
		t.Errorf("%d of the commands that are prepared for are not in docs/api.md", len(before))
	}
	text, err := os.ReadFile(filepath.Join(directory, "redox-openapi.json"))
	if err != nil || !json.Valid(text) {
		t.Errorf("the OpenAPI document is no JSON: %v", err)
	}
}
