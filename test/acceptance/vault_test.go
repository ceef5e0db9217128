// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/testvault"
)

const (
	pluginName = "vault-plugin-secrets-redox"
	rootToken  = "acceptance-root"
	// startTimeout bounds how long a server may take to do its work, on a slow machine.
	startTimeout = time.Minute
)

// vaultServer is a Vault server process. Its log is kept at trace level.
type vaultServer struct {
	*testvault.Server
	address   string // http://127.0.0.1:port
	directory string
	rootToken string
	binary    string // of another host than the one that tests run on
}

// directories of one server.
func (s *vaultServer) auditFile() string    { return filepath.Join(s.directory, "audit.log") }
func (s *vaultServer) rawAuditFile() string { return filepath.Join(s.directory, "audit-raw.log") }

// rawStorage configures sys/raw, so that the search for secrets learns the private keys that were made inside.
const rawStorage = "raw_storage_endpoint = true\n"

// startDevServer starts Vault in dev mode, with everything in memory and unsealed.
func startDevServer(directory string) (*vaultServer, error) {
	s := &vaultServer{directory: directory, rootToken: rootToken}
	return s, s.start(testvault.Options{Plugins: filepath.Dir(pluginFile), RootToken: rootToken, Config: rawStorage})
}

// start runs the server.
func (s *vaultServer) start(options testvault.Options) (err error) {
	options.Binary, options.Directory, options.LogLevel = cmp.Or(s.binary, host.Binary), s.directory, "trace"
	if s.Server, err = testvault.Start(context.Background(), options); err == nil {
		s.address = s.Address
	}
	return err
}

// stopAtEnd stops the server when the test ends. Its log becomes part of what is searched for secrets.
func (s *vaultServer) stopAtEnd(t testing.TB, name string) {
	t.Cleanup(func() {
		s.Stop()
		output.record("the log of "+name, readFile(t, s.LogFile()))
	})
}

// awaitActive waits until an unsealed server has taken up its work, which it does soon after.
func (s *vaultServer) awaitActive(token string) error {
	deadline := time.After(startTimeout)
	for {
		r := s.run(token, "", "token", "lookup", "-format=json")
		if r.code == 0 {
			return nil
		}
		select {
		case <-deadline:
			return fmt.Errorf("the server is unsealed but does not work: %s", r.stderr)
		case <-time.After(50 * time.Millisecond): // there is no event to wait for
		}
	}
}

// registerPlugin puts the plugin into the catalog as an operator does: by checksum and version.
func (s *vaultServer) registerPlugin() error { return s.registerWith(pluginName) }

// registerWith puts a build of the plugin into the catalog in its place, with an environment of its own.
func (s *vaultServer) registerWith(file string, environment ...string) error {
	sum, err := testvault.Checksum(filepath.Join(filepath.Dir(pluginFile), file))
	if err != nil {
		return err
	}
	arguments := []string{"plugin", "register", "-sha256=" + sum, "-version=" + pluginVersion, "-command=" + file, "secret", pluginName}
	if len(environment) > 0 { // which only Vault's CLI has a flag for
		arguments = []string{"write", "sys/plugins/catalog/secret/" + pluginName, "sha256=" + sum, "version=" + pluginVersion, "command=" + file}
		for _, variable := range environment {
			arguments = append(arguments, "env="+variable)
		}
	}
	if r := s.run(s.rootToken, "", arguments...); r.code != 0 {
		return fmt.Errorf("registering the plugin failed: %s", r.stderr)
	}
	return nil
}

// environment is what commands run with: nothing of the user's own Vault settings.
func environment(home string, more ...string) []string {
	return append([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "NO_COLOR=1", "VAULT_CLI_NO_COLOR=1"}, more...)
}

// result is what a command printed, and its exit status.
type result struct {
	stdout, stderr string
	code           int
}

// run runs the vault command, and keeps its output for the search for secrets.
func (s *vaultServer) run(token, stdin string, arguments ...string) result {
	r := s.runUnrecorded(token, stdin, arguments...)
	output.record("vault "+strings.Join(arguments, " "), r.stdout+r.stderr)
	return r
}

func (s *vaultServer) runUnrecorded(token, stdin string, arguments ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, host.Binary, arguments...)
	// Vault's own client tries a 5xx again after 1 s and more; here the first answer counts.
	command.Env = environment(s.directory, "VAULT_ADDR="+s.address, "VAULT_TOKEN="+token, "VAULT_MAX_RETRIES=0")
	command.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	r := result{}
	if err := command.Run(); err != nil {
		r.code = command.ProcessState.ExitCode()
	}
	r.stdout, r.stderr = stdout.String(), stderr.String()
	return r
}

// person is somebody with a Vault token, at the command line.
type person struct {
	t     testing.TB
	vault *vaultServer
	token string
}

// try runs a vault command, whatever comes of it.
func (p person) try(arguments ...string) result {
	p.t.Helper()
	return p.vault.run(p.token, "", arguments...)
}

// must runs a vault command that has to succeed, and gives what it printed.
func (p person) must(arguments ...string) string {
	p.t.Helper()
	return p.mustWith("", arguments...)
}

// mustWith is must with something on standard input.
func (p person) mustWith(stdin string, arguments ...string) string {
	p.t.Helper()
	r := p.vault.run(p.token, stdin, arguments...)
	if r.code != 0 {
		p.t.Fatalf("vault %s: exit status %d\n%s%s", strings.Join(arguments, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// data runs a vault command that has to succeed, and gives the data of its answer.
func (p person) data(arguments ...string) map[string]any {
	p.t.Helper()
	return p.secret(arguments...).Data
}

// mount mounts the plugin at a path.
func (p person) mount(path string) {
	p.t.Helper()
	p.must("secrets", "enable", "-path="+path, "-plugin-version="+pluginVersion, pluginName)
}

// secret is what the CLI prints with -format=json.
type secret struct {
	LeaseID       string         `json:"lease_id"`
	LeaseDuration int            `json:"lease_duration"`
	Renewable     bool           `json:"renewable"`
	Data          map[string]any `json:"data"`
	Warnings      []string       `json:"warnings"`
	WrapInfo      *struct {
		Token string `json:"token"`
	} `json:"wrap_info"`
}

func (p person) secret(arguments ...string) secret {
	p.t.Helper()
	var s secret
	text := p.must(append([]string{arguments[0], "-format=json"}, arguments[1:]...)...)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		p.t.Fatalf("vault %s: %v", strings.Join(arguments, " "), err)
	}
	return s
}

// refused runs a vault command that has to be refused with an HTTP status, and gives what it printed about that.
func (p person) refused(status int, arguments ...string) string {
	p.t.Helper()
	r := p.try(arguments...)
	if r.code == 0 {
		p.t.Fatalf("vault %s was to be refused, but succeeded", strings.Join(arguments, " "))
	}
	if !strings.Contains(r.stderr, fmt.Sprintf("Code: %d", status)) {
		p.t.Fatalf("vault %s was to be refused with %d:\n%s", strings.Join(arguments, " "), status, r.stderr)
	}
	return r.stderr
}

// http sends a request to the Vault API, as programs without a client library do.
func (p person) http(method, path, body string) (*http.Response, string) {
	p.t.Helper()
	request, err := http.NewRequest(method, p.vault.address+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if p.token != "" {
		request.Header.Set("X-Vault-Token", p.token)
	}
	response, err := httpClient.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	output.record(method+" "+path, string(text))
	return response, string(text)
}

// httpClient reuses enough connections for a crowd of readers.
var httpClient = sync.OnceValue(func() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 200, MaxConnsPerHost: 200}}
})()
