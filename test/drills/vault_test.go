// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"vault-plugin-secrets-redox/internal/testvault"
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
	*testvault.Server
	name      string
	directory string
	unsealKey string
}

func (v *server) auditFile() string { return filepath.Join(v.directory, "audit.log") }

// newServer starts a server that is not initialized yet.
func newServer(name string) (*server, error) {
	v := &server{name: name, directory: filepath.Join(directory, name)}
	var err error
	v.Server, err = testvault.Start(context.Background(), testvault.Options{
		Binary: vaultBinary, Plugins: filepath.Dir(pluginFile), Directory: v.directory, Node: name,
		Config: "raw_storage_endpoint = true\n",
	})
	return v, err
}

// must sends a request that has to succeed.
func (v *server) must(method, path string, body any) (testvault.Answer, error) {
	return v.Must(context.Background(), method, path, body)
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
	if err := json.Unmarshal(a.Body, &initialized); err != nil {
		return err
	}
	v.Token, v.unsealKey = initialized.Token, initialized.Keys[0]
	if err := v.unseal(); err != nil {
		return err
	}
	if err := v.awaitActive(); err != nil {
		return err
	}
	if err := v.Register(context.Background(), pluginName, filepath.Base(pluginFile), pluginVersion); err != nil {
		return err
	}
	settings := map[string]any{
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
		a, err := v.Do(context.Background(), "GET", "auth/token/lookup-self", nil)
		return err == nil && a.Status == http.StatusOK
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

// pluginProcesses gives the process IDs of the server's plugin.
func (v *server) pluginProcesses() ([]int, error) {
	found, err := v.Children(filepath.Base(pluginFile))
	if err == nil && len(found) == 0 {
		err = errors.New("no process of the plugin was found below the Vault server's")
	}
	return found, err
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
