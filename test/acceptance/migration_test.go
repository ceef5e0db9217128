// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// migration is a service with a private key of its own, which moves to Vault as docs/migration.md says.
type migration struct {
	*engine
	page      *sections
	directory string
	before    string   // the service's commands for a token, with its own key
	after     []string // with Vault
	oldJWK    string
	oldPEM    string
}

const (
	migratedClient = "service-client"
	migratedKid    = "service-key"
)

// newMigration makes a service that works: its key is registered at Redox, and service.env has its settings.
func newMigration(t testing.TB, page *sections, service []string) *migration {
	t.Helper()
	m := &migration{engine: newEngine(t, sandbox.Options{}), page: page, directory: t.TempDir()}
	m.before, m.after = service[0], service[1:]
	key, text := newPKCS8(t, "RS384")
	addKey(t, "of the service", key)
	m.oldPEM = text
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key.Public(), KeyID: migratedKid, Algorithm: "RS384", Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	m.oldJWK = string(jwk)
	if _, err := m.redox.CreateAPIKeyChecked(sandbox.APIKeyRequest{ID: migratedClient, Name: "service", JWK: jwk}); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(m.directory, "service.env"), fmt.Sprintf(
		"REDOX_CLIENT_ID=%s\nREDOX_KID=%s\nREDOX_BASE_URL=%s\nREDOX_SCOPE=\nREDOX_PRIVATE_KEY='%s'\n",
		migratedClient, migratedKid, m.redox.URL, strings.TrimSpace(text)))
	m.works("before anything is done", true, false)
	return m
}

// run runs a block at this mount.
func (m *migration) run(block string) {
	m.t.Helper()
	m.bash(m.directory, strings.ReplaceAll(block, "redox/", m.path+"/"))
}

// token gets a token as the service does, and says whether Redox takes it.
func (m *migration) token(commands string) bool {
	m.t.Helper()
	file := filepath.Join(m.directory, "access-token")
	_ = os.Remove(file)
	m.run("(\n" + commands + "printf '%s' \"$ACCESS_TOKEN\" >access-token\n) 2>access-token-error || true")
	token, err := os.ReadFile(file)
	return err == nil && len(token) > 0 && m.opens(string(token)) == http.StatusOK
}

// works compares which ways to a token there are: with the service's own key, and through Vault.
func (m *migration) works(when string, old, vault bool) {
	m.t.Helper()
	if m.token(m.before) != old {
		m.t.Errorf("%s: with its own key the service gets a token: %t, but it should be %t", when, !old, old)
	}
	for _, commands := range m.after {
		if m.token(commands) != vault {
			m.t.Errorf("%s: through Vault the service gets a token: %t, but it should be %t\n%s", when, !vault, vault, commands)
		}
	}
}

// atRedox is what somebody does in the Redox dashboard: the JWK set is replaced by these.
func (m *migration) atRedox(jwks ...string) {
	m.t.Helper()
	if err := m.redox.SetJWKSet(migratedClient, json.RawMessage(`{"keys":[`+strings.Join(jwks, ",")+`]}`)); err != nil {
		m.t.Fatal(err)
	}
}

// jwk reads a public JWK of the key "main".
func (m *migration) jwk(field string) string {
	m.t.Helper()
	return strings.TrimSpace(m.must("read", "-field="+field, m.at("keys/main")))
}

// checks says what the engine's check of the role says.
func (m *migration) checks() map[string]any {
	m.t.Helper()
	return m.data("write", "-f", m.at("check/team-a"))
}

// TestMigrationDocumentation goes through docs/migration.md, both ways. After each step, and each way back, the service gets
// its tokens as the page says.
func TestMigrationDocumentation(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	page := readSections(t, "migration.md")
	service := page.take("The service, before and after")
	settings := page.take("What becomes of the old settings")[0]
	leftovers, end := page.take("Find leftover copies"), page.take("At the end")[0]
	t.Run("A", func(t *testing.T) {
		m := newMigration(t, page, service)
		m.run(settings)
		m.wayA()
		m.leftovers(leftovers)
		m.run(end)
		if _, err := os.Stat(filepath.Join(m.directory, "service.env")); !os.IsNotExist(err) {
			t.Error("service.env is left behind")
		}
	})
	t.Run("B", func(t *testing.T) { newMigration(t, page, service).wayB() })
	page.checkAllTaken()
}

func (m *migration) wayA() {
	m.run(m.page.take("A1. Import the key")[0])
	if check := m.checks(); check["ok"] != true || check["kid"] != migratedKid {
		m.t.Errorf("after the import the check says %v", check)
	}
	m.works("A1", true, true)

	replace := m.page.take("A3. Replace the key")
	m.run(replace[0])
	m.works("A3, rotated", true, true)
	m.must("write", "-f", m.at("keys/main/abandon")) // the way back
	m.works("A3, abandoned", true, true)
	m.run(replace[0])
	m.atRedox(m.oldJWK, m.jwk("pending_public_jwk"))
	m.run(replace[1])
	if check := m.checks(); check["ok"] != true || check["kid"] == migratedKid {
		m.t.Errorf("after activation the check says %v", check)
	}
	m.works("A3, activated", true, true)

	m.atRedox(m.jwk("public_jwk"))
	m.must("write", "-f", m.at("token/team-a")) // not one from memory
	m.works("A4, without the old JWK at Redox", false, true)
	m.atRedox(m.oldJWK, m.jwk("public_jwk"))
	m.works("A4, the way back", true, true)
	m.atRedox(m.jwk("public_jwk"))
	m.run(m.page.take("A4. Make the old copies worthless")[0])
	m.works("A4, destroyed", false, true)
}

func (m *migration) wayB() {
	blocks := m.page.take("B1. Make the key in Vault")
	m.run(blocks[0])
	m.run(blocks[1])
	if check := m.checks(); check["ok"] != false ||
		!strings.Contains(fmt.Sprint(check["error_description"]), "Public key not found") {
		m.t.Errorf("before the JWK is added the check says %v", check)
	}
	m.works("B1, not added yet", true, false)
	m.atRedox(m.jwk("public_jwk"))
	m.run(blocks[1])
	m.works("B1, replaced by mistake", false, true)
	m.atRedox(m.oldJWK, m.jwk("public_jwk"))
	m.works("B1", true, true)
	m.atRedox(m.oldJWK)
	m.works("B1, the way back", true, true) // Vault's token lives on
	m.atRedox(m.jwk("public_jwk"))
	m.must("write", "-f", m.at("token/team-a"))
	m.works("B3", false, true)
}

// leftovers plants copies of the key where they are looked for.
func (m *migration) leftovers(blocks []string) {
	if len(blocks) != 3 {
		m.t.Fatalf("there are %d blocks", len(blocks))
	}
	find := func(block string) string {
		m.t.Helper()
		m.run("(\n" + block + ") >found.txt")
		text, err := os.ReadFile(filepath.Join(m.directory, "found.txt"))
		if err != nil {
			m.t.Fatal(err)
		}
		output.record("bash", string(text))
		return string(text)
	}
	key, other := newPKCS8(m.t, "ES384")
	addKey(m.t, "another one", key)
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key.(crypto.PrivateKey), KeyID: "x"})
	if err != nil {
		m.t.Fatal(err)
	}
	for name, text := range map[string]string{"deploy/values.yaml": "key: |\n  " + m.oldPEM, "notes/key.json": string(jwk),
		"harmless.json": m.oldJWK, "found.pem": m.oldPEM, "other.pem": other} {
		writeFile(m.t, filepath.Join(m.directory, name), text)
	}
	files := find(blocks[0])
	for name, want := range map[string]bool{
		"service.env": true, "deploy/values.yaml": true, "notes/key.json": true, "found.pem": true,
		"harmless.json": false, "old-public.pem": false,
	} {
		if strings.Contains(files, name) != want {
			m.t.Errorf("%s is found: %t, in\n%s", name, !want, files)
		}
	}
	m.run("git init -q\ncommit() { git -c user.name=a -c user.email=a@example.com commit -qm \"$1\"; }\n" +
		"git add deploy && commit with-a-key\ngit rm -qr deploy && commit taken-away\ngit add harmless.json && commit harmless")
	commits := find(blocks[1])
	if !strings.Contains(commits, "with-a-key") || !strings.Contains(commits, "taken-away") ||
		strings.Contains(commits, "harmless") {
		m.t.Errorf("git is said to have it in\n%s", commits)
	}
	if answer := find(blocks[2]); !strings.Contains(answer, "it is the old key") {
		m.t.Errorf("the old key is not recognized: %s", answer)
	}
	writeFile(m.t, filepath.Join(m.directory, "found.pem"), other)
	if answer := find(blocks[2] + "true\n"); strings.Contains(answer, "it is the old key") {
		m.t.Errorf("another key is taken for the old one: %s", answer)
	}
}
