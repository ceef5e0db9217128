// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	pluginName = "vault-plugin-secrets-redox"
	// patience bounds how long anything may take that a drill only waits for, on a slow machine.
	patience = 90 * time.Second
	// glance is the pause between two looks at a state that another process tells nobody of.
	glance = 50 * time.Millisecond
)

// server is a Vault server process with integrated storage on disk, alone or in a cluster.
type server struct {
	process
	in        *drills
	name      string
	directory string
	config    string
	address   string // http://127.0.0.1:port
	rootToken string
	unsealKey string
}

func (v *server) logFile() string   { return filepath.Join(v.directory, "vault.log") }
func (v *server) auditFile() string { return filepath.Join(v.directory, "audit.log") }

// newServer starts a server that is not initialized yet.
func newServer(in *drills, name string) (*server, error) {
	v := &server{in: in, name: name, directory: filepath.Join(in.directory, name)}
	data := filepath.Join(v.directory, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	var err error
	for range 5 { // the port may be taken by another process meanwhile
		var ports [2]int
		for i := range ports {
			if ports[i], err = freePort(); err != nil {
				return nil, err
			}
		}
		v.address = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
		v.config = fmt.Sprintf(`
plugin_directory = %q
disable_mlock = true
api_addr = %q
cluster_addr = "http://127.0.0.1:%d"
storage "raft" {
  path = %q
  node_id = %q
  performance_multiplier = 1
}
listener "tcp" {
  address = %q
  cluster_address = "127.0.0.1:%d"
  tls_disable = true
}
`, filepath.Dir(in.plugin), v.address, ports[1], data, name, strings.TrimPrefix(v.address, "http://"), ports[1])
		if err = v.start(); err == nil {
			return v, nil
		}
	}
	return nil, err
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// start runs the server's process, and waits until it answers.
func (v *server) start() error {
	file := filepath.Join(v.directory, "config.hcl")
	if err := os.WriteFile(file, []byte(v.config), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(v.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	v.command = exec.Command(v.in.vault, "server", "-config="+file)
	v.command.Env = []string{"HOME=" + v.directory, "PATH=" + os.Getenv("PATH"), "NO_COLOR=1"}
	v.command.Stdout, v.command.Stderr = log, log
	if err := v.begin(); err != nil {
		return err
	}
	answers := func() bool {
		response, err := plainClient.Get(v.address + "/v1/sys/health")
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	}
	deadline := time.Now().Add(patience)
	for !answers() {
		select {
		case <-v.ended:
			v.dismissWatchdog()
			return fmt.Errorf("the Vault server ended at once; the end of its log:\n%s", v.endOfLog())
		case <-time.After(glance):
		}
		if time.Now().After(deadline) {
			v.stop()
			return fmt.Errorf("the Vault server does not answer; the end of its log:\n%s", v.endOfLog())
		}
	}
	return nil
}

func (v *server) endOfLog() string {
	text, _ := os.ReadFile(v.logFile())
	return string(text[max(0, len(text)-2000):])
}

// plainClient never waits long: a paused server must not stop a drill.
var plainClient = &http.Client{Timeout: 5 * time.Second}

// apiClient is for whoever does administration.
var apiClient = &http.Client{Timeout: time.Minute}

// answer is what Vault said to a request.
type answer struct {
	status int
	Data   map[string]any `json:"data"`
	Errors []string       `json:"errors"`
	Auth   struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
	raw []byte
}

func (a *answer) problem() error {
	if a.status < 300 {
		return nil
	}
	return fmt.Errorf("the answer is %d: %s", a.status, strings.Join(a.Errors, "; "))
}

// do sends a request with the root token. Its error is of the connection; a refusal is in the answer.
func (v *server) do(ctx context.Context, method, path string, body any) (*answer, error) {
	var encoded []byte
	switch body := body.(type) {
	case nil:
	case []byte:
		encoded = body
	default:
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, v.address+"/v1/"+path, bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Token", v.rootToken)
	response, err := apiClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	a := &answer{status: response.StatusCode}
	if a.raw, err = io.ReadAll(response.Body); err != nil {
		return nil, err
	}
	_ = json.Unmarshal(a.raw, a) // a snapshot is no JSON
	return a, nil
}

// must sends a request that has to succeed.
func (v *server) must(method, path string, body any) (*answer, error) {
	a, err := v.do(context.Background(), method, path, body)
	if err == nil {
		err = a.problem()
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return a, nil
}

// initialize makes the server a cluster of one, with the plugin in its catalog, and an audit device if one is wanted.
func (v *server) initialize(audit bool) error {
	a, err := v.must("PUT", "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	if err != nil {
		return err
	}
	var initialized struct {
		Keys  []string `json:"keys_base64"`
		Token string   `json:"root_token"`
	}
	if err := json.Unmarshal(a.raw, &initialized); err != nil {
		return err
	}
	v.rootToken, v.unsealKey = initialized.Token, initialized.Keys[0]
	if err := v.unseal(); err != nil {
		return err
	}
	if err := v.awaitActive(); err != nil {
		return err
	}
	binary, err := os.ReadFile(v.in.plugin)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(binary)
	settings := map[string]any{
		"sys/plugins/catalog/secret/" + pluginName: map[string]any{
			"sha256": hex.EncodeToString(sum[:]), "command": filepath.Base(v.in.plugin), "version": v.in.version},
		"sys/policies/acl/reader": map[string]any{
			"policy": `path "+/token/*" { capabilities = ["read"] }`},
	}
	if audit {
		settings["sys/audit/file"] = map[string]any{"type": "file", "options": map[string]any{"file_path": v.auditFile()}}
	}
	for path, body := range settings {
		if _, err := v.must("PUT", path, body); err != nil {
			return err
		}
	}
	return nil
}

func (v *server) unseal() error {
	_, err := v.must("PUT", "sys/unseal", map[string]any{"key": v.unsealKey})
	return err
}

// awaitActive waits until an unsealed server has taken up its work.
func (v *server) awaitActive() error {
	return await(v.name+" to work", func() bool {
		a, err := v.do(context.Background(), "GET", "auth/token/lookup-self", nil)
		return err == nil && a.status == http.StatusOK
	})
}

// reader gives a Vault token that may read tokens and nothing else.
func (v *server) reader() (string, error) {
	a, err := v.must("POST", "auth/token/create", map[string]any{"policies": []string{"reader"}, "no_parent": true})
	if err != nil {
		return "", err
	}
	return a.Auth.ClientToken, nil
}

// pluginProcesses gives the process IDs of the server's plugin, as Linux tells them.
func (v *server) pluginProcesses() ([]int, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", v.command.Process.Pid))
	if err != nil {
		return nil, err
	}
	var found []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			id, err := strconv.Atoi(word)
			if err != nil {
				return nil, err
			}
			if file, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", id)); err == nil && file == v.in.plugin {
				found = append(found, id)
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no process of the plugin was found below the Vault server's")
	}
	return found, nil
}

// await waits for another process to come to a state that it tells nobody of.
func await(what string, reached func() bool) error {
	deadline := time.Now().Add(patience)
	for !reached() {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain for %s", what)
		}
		time.Sleep(glance)
	}
	return nil
}
