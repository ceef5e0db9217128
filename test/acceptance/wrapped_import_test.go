// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/testkeys"
)

// TestImportDocumentation runs every command of docs/import.md as it is printed there, in a copy of what they need of a
// clone. Each import makes the key "main", which has to be the one from the file.
func TestImportDocumentation(t *testing.T) {
	t.Parallel()
	blocks := documentedCommands(t, "import.md")
	needOpenSSL(t)

	redox, err := sandbox.Start(sandbox.Options{Log: output.writer("the local Redox")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = redox.Close() })
	e := &engine{person: person{t, shared, rootToken}, path: "redox", redox: redox} // where the documentation has it
	e.mount(e.path)

	for _, algorithm := range []string{"RS384", "ES384"} {
		directory := t.TempDir()
		key, pemKey := newPKCS8(t, algorithm)
		addKey(t, "documented "+algorithm, key)
		jwk, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "of the dashboard"})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(directory, "key.pem"), pemKey)
		writeFile(t, filepath.Join(directory, "key.json"), string(jwk))
		copyExample(t, directory)

		imports := 0
		for _, block := range blocks {
			e.bash(directory, block)
			if e.try("read", e.at("keys/main")).code != 0 {
				if strings.Contains(block, "keys/main") {
					t.Errorf("%s: this made no key:\n%s", algorithm, block)
				}
				continue
			}
			imports++
			e.checkImported(key, strings.Contains(block, "key.json"))
			e.must("write", e.at("keys/main"), "deletion_allowed=true")
			e.must("delete", e.at("keys/main"))
		}
		if imports != 6 {
			t.Errorf("%s: %d imports were done", algorithm, imports)
		}
		for _, name := range []string{"key.der", "key.b64", "aes.key"} {
			if _, err := os.Stat(filepath.Join(directory, name)); !os.IsNotExist(err) {
				t.Errorf("%s: %s was left behind", algorithm, name)
			}
		}
	}
}

// documentedCommands gives the blocks of commands of a page in docs. Blocks of another kind fail the test: nothing that is
// printed there goes untried.
func documentedCommands(t testing.TB, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, block := range regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, block[1])
	}
	other := regexp.MustCompile("(?m)^ *```(yaml|hcl|mermaid|text|json|go|java|js|python|console)$").FindAllString(string(text), -1)
	if fences := strings.Count(string(text), "```"); fences != 2*(len(blocks)+len(other)) || fences == 0 {
		t.Fatalf("%s has %d fences, but %d blocks of sh and %d others that say what they are: some are not run", page, fences, len(blocks), len(other))
	}
	return blocks
}

// checkImported compares the key "main" with the one that was imported, and lets the local Redox try it.
func (e *engine) checkImported(key crypto.Signer, isJWK bool) {
	e.t.Helper()
	data := e.data("read", e.at("keys/main"))
	text, _ := data["public_pem"].(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		e.t.Fatalf("the public key is %q", text)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		e.t.Fatal(err)
	}
	if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
		e.t.Error("another key was imported")
	}
	if hasKID := data["kid"] == "of the dashboard"; hasKID != isJWK {
		e.t.Errorf("the kid is %v", data["kid"])
	}
	e.register("client-1", "main")
	e.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL)
	if e.opens(e.accessToken("token")) != http.StatusOK {
		e.t.Error("the imported key does not work")
	}
	e.must("delete", e.at("config"))
}

// bash runs commands the way somebody pastes them, with the vault command and this server.
func (e *engine) bash(directory, commands string) {
	e.t.Helper()
	vault, err := filepath.Abs(host.Binary)
	if err != nil {
		e.t.Fatal(err)
	}
	tools := e.t.TempDir()
	if err := os.Symlink(vault, filepath.Join(tools, "vault")); err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), startTimeout*5) // go run compiles
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	command.Dir = directory
	command.Env = environment(e.vault.directory, "VAULT_ADDR="+e.vault.address, "VAULT_TOKEN="+e.token,
		"PATH="+tools+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} { // which are in the user's home
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			e.t.Fatal(err)
		}
		command.Env = append(command.Env, name+"="+strings.TrimSpace(string(value)))
	}
	text, err := command.CombinedOutput()
	output.record("bash", string(text))
	if err != nil {
		e.t.Fatalf("%v:\n%s\n%s", err, commands, text)
	}
}

// needOpenSSL fails where the documentation's commands can't be run.
func needOpenSSL(t testing.TB) {
	t.Helper()
	version, err := exec.Command("openssl", "version").Output()
	if err != nil || !regexp.MustCompile(`^OpenSSL ([3-9]|[1-9][0-9])\.`).Match(version) {
		t.Fatalf("OpenSSL 3 or newer is not in the PATH, and docs/import.md can't be tried without it; "+
			"install it (apt-get install openssl, brew install openssl). Found: %q, %v", version, err)
	}
}

// copyExample makes the directory look like a clone, as far as building the example goes.
func copyExample(t testing.TB, directory string) {
	t.Helper()
	for _, name := range []string{"go.mod", "go.sum", "examples/wrap-key/main.go"} {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(directory, name), string(text))
	}
}

func writeFile(t testing.TB, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTransitsImportCommand shows that the tool made for Vault's transit engine passes its other arguments on, and what
// it says of a refusal.
func TestTransitsImportCommand(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	e := newEngine(t, sandbox.Options{})
	key, text := newPKCS8(t, "ES384")
	addKey(t, "transit import", key)
	directory := t.TempDir()
	writeFile(t, filepath.Join(directory, "key.pem"), text)
	e.bash(directory, "openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER | openssl base64 -out key.b64")
	file := "@" + filepath.Join(directory, "key.b64")
	e.must("transit", "import", e.at("keys/main"), file, "kid=kid-1", "deletion_allowed=true")
	if data := e.data("read", e.at("keys/main")); data["kid"] != "kid-1" || data["deletion_allowed"] != true {
		t.Errorf("the key is %v", data)
	}
	r := e.try("transit", "import", e.at("keys/other"), file, "hash_function=SHA512")
	if r.code == 0 || !strings.Contains(r.stderr, "ciphertext: it can't be unwrapped; ") {
		t.Errorf("a wrong hash gives %d: %s", r.code, r.stderr)
	}

	// What was wrapped before the wrapping key was replaced is imported all the same.
	former := e.data("read", e.at("wrapping_key"))["public_key"]
	block, _ := pem.Decode([]byte(former.(string)))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext := testkeys.Wrapped(sha256.New, public.(*rsa.PublicKey), der)
	if rotated := e.data("write", "-f", e.at("wrapping_key/rotate")); rotated["public_key"] == former || rotated["former_expire_time"] == nil {
		t.Errorf("the wrapping key was replaced by %v", rotated)
	}
	e.must("write", e.at("keys/former/import"), "ciphertext="+ciphertext, "kid=kid-2", "deletion_allowed=true")
	e.must("delete", e.at("keys/former"))
	e.must("transit", "import", e.at("keys/latter"), file, "kid=kid-3", "deletion_allowed=true")
	e.must("delete", e.at("keys/latter"))

	// Importing takes two capabilities, and the wrapping key is not for everybody.
	importer := e.as("importer", map[string]string{"wrapping_key": "read", "keys/imported/import": "update"})
	e.must("delete", e.at("keys/main"))
	importer.must("transit", "import", e.at("keys/imported"), file)
	importer.refused(http.StatusForbidden, "read", e.at("keys/imported"))
	nobody := person{t, e.vault, ""}
	if response, _ := nobody.http(http.MethodGet, e.at("wrapping_key"), ""); response.StatusCode != http.StatusForbidden {
		t.Errorf("without a token the wrapping key is answered with %d", response.StatusCode)
	}
}
