// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/testvault"
)

// What all tests share.
var (
	host          testvault.Host
	pluginFile    string
	pluginVersion string
	shared        *vaultServer // in dev mode
)

// TestMain runs the tests in one Vault server, and searches everything they produced for secrets when they are over.
func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	directory, err := os.MkdirTemp("", "redox-acceptance-")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(directory)
	if err := prepare(directory); err != nil {
		return complain(err)
	}
	defer shared.Stop()
	// Parallel tests mostly wait for Vault, or for tokens to expire: more of them than there are processors run at once.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		return complain(err)
	}
	code := m.Run()
	if err := searchEverything(shared); err != nil {
		return complain(err)
	}
	return code
}

// verifyOnly leaves a test to scripts/verify when the tests are run with -short, as scripts/test does, which prints the
// reason.
func verifyOnly(t testing.TB, reason string) {
	t.Helper()
	if testing.Short() {
		t.Skip("left to scripts/verify: " + reason)
	}
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "acceptance:", err)
	return 1
}

// prepare builds the plugin and starts the server with its audit devices.
func prepare(directory string) error {
	binary := os.Getenv("VAULT_BIN")
	if binary == "" {
		return errors.New("VAULT_BIN is not set: run scripts/test, or set VAULT_BIN=$(scripts/build-vault)")
	}
	var err error
	if host, err = testvault.Inspect(binary); err != nil {
		return err
	}
	plugins := filepath.Join(directory, "plugins")
	pluginFile = filepath.Join(plugins, pluginName)
	if err := os.MkdirAll(plugins, 0o700); err != nil {
		return err
	}
	build := exec.Command("../../scripts/build", pluginFile)
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the plugin failed: %w\n%s", err, text)
	}
	if pluginVersion, err = testvault.PluginVersion(pluginFile); err != nil {
		return err
	}

	home := filepath.Join(directory, "vault")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	if shared, err = startDevServer(home); err != nil {
		return err
	}
	for _, arguments := range [][]string{
		{"audit", "enable", "file", "file_path=" + shared.auditFile()},
		{"audit", "enable", "-path=raw", "file", "file_path=" + shared.rawAuditFile(), "log_raw=true"},
	} {
		if r := shared.run(rootToken, "", arguments...); r.code != 0 {
			return fmt.Errorf("vault %s: %s", strings.Join(arguments, " "), r.stderr)
		}
	}
	return shared.registerPlugin()
}

// engine is the plugin mounted for one test, with a local Redox of its own.
type engine struct {
	person // root
	path   string
	redox  *sandbox.Server
}

// newEngine mounts the plugin at a path of its own. The mount stays until the server ends, for the search for secrets.
func newEngine(t testing.TB, options sandbox.Options) *engine {
	t.Helper()
	options.Log = output.writer("the local Redox")
	redox, err := sandbox.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := redox.Close(); err != nil {
			t.Error(err)
		}
	})
	path := strings.ToLower(regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(t.Name(), "-"))
	e := &engine{person: person{t, shared, rootToken}, path: path, redox: redox}
	e.mount(path)
	return e
}

// newReadyEngine is newEngine with an ES384 key "main" that the local Redox knows at the API key "client-1", and a
// configuration that names both.
func newReadyEngine(t testing.TB) *engine {
	t.Helper()
	e := newEngine(t, sandbox.Options{})
	e.must("write", e.at("keys/main"), "algorithm=ES384")
	e.register("client-1", "main")
	e.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL)
	return e
}

// at gives a path of this mount.
func (e *engine) at(path string) string { return e.path + "/" + path }

// register makes the local Redox know a key's public half at an API key, as it is pasted into the dashboard.
func (e *engine) register(clientID, key string) {
	e.t.Helper()
	jwk := strings.TrimSpace(e.must("read", "-field=public_jwk", e.at("keys/"+key)))
	_, err := e.redox.CreateAPIKeyChecked(sandbox.APIKeyRequest{ID: clientID, Name: clientID, JWK: json.RawMessage(jwk)})
	if err != nil {
		e.t.Fatal(err)
	}
}

// as gives somebody whose token has one policy; the policy's paths are below this mount.
func (e *engine) as(name string, capabilities map[string]string) person {
	e.t.Helper()
	var rules strings.Builder
	for path, words := range capabilities {
		quoted := strings.Join(strings.Fields(words), `", "`)
		fmt.Fprintf(&rules, "path %q { capabilities = [\"%s\"] }\n", e.at(path), quoted)
	}
	policy := e.path + "-" + name
	e.mustWith(rules.String(), "policy", "write", policy, "-")
	token := strings.TrimSpace(e.must("token", "create", "-policy="+policy, "-field=token"))
	return person{e.t, e.vault, token}
}

// opens says what the local Redox's FHIR endpoint answers to an access token.
func (e *engine) opens(accessToken string) int {
	e.t.Helper()
	request, err := http.NewRequest(http.MethodGet, e.redox.FHIRURL("redox-fhir-sandbox", sandbox.Development)+"/Patient/1", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+accessToken)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

// token reads an access token as an application does.
func (e *engine) accessToken(path string) string {
	e.t.Helper()
	return strings.TrimSpace(e.must("read", "-field=access_token", e.at(path)))
}
