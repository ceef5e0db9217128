// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/testvault"
)

// localRedox is a local Redox in a process of its own, which takes no part in what is measured of others.
type localRedox struct {
	*testvault.Process
	url string
}

// startSandbox starts a local Redox whose tokens live for lifetime.
func startSandbox(ctx context.Context, binary string, lifetime time.Duration) (*localRedox, error) {
	port, err := testvault.FreePort()
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	var output bytes.Buffer
	command := exec.Command(binary, "-address", address, "-token-lifetime", lifetime.String())
	command.Stdout, command.Stderr = &output, &output
	r := &localRedox{url: "http://" + address}
	if r.Process, err = testvault.StartProcess(command); err != nil {
		return nil, err
	}
	err = r.Await(ctx, func(context.Context) bool {
		response, err := http.Get(r.url)
		return err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK
	})
	if err != nil {
		r.Stop()
		return nil, fmt.Errorf("the local Redox does not run: %w\n%s", err, output.Bytes())
	}
	return r, nil
}

// register makes a local Redox know a public key at a client ID.
func (r *localRedox) register(clientID string, jwk json.RawMessage) error {
	body, err := json.Marshal(map[string]any{"id": clientID, "name": clientID, "jwk": jwk})
	if err != nil {
		return err
	}
	response, err := http.Post(r.url+"/sandbox/apikeys", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		return fmt.Errorf("the local Redox does not take the public key: HTTP %d", response.StatusCode)
	}
	return nil
}

// vault is a Vault server in dev mode, with its audit off.
type vault struct{ *testvault.Server }

func startVault(ctx context.Context, binary, plugins, directory string) (*vault, error) {
	server, err := testvault.Start(ctx, testvault.Options{
		Binary: binary, Plugins: plugins, Directory: directory, RootToken: "bench-root", LogLevel: "error",
	})
	return &vault{server}, err
}

// do makes one request to Vault, and gives the data of its answer.
func (v *vault) do(method, path string, body any) (map[string]any, error) {
	a, err := v.Must(context.Background(), method, path, body)
	return a.Data, err
}

// mount registers a plugin binary under a name, and mounts it there.
func (v *vault) mount(binary, version, name string, arguments ...string) error {
	if err := v.Register(context.Background(), name, binary, version, arguments...); err != nil {
		return err
	}
	return v.Mount(context.Background(), name, name, version)
}

// pluginProcess finds the process of a plugin of this Vault by its binary and its arguments.
func (v *vault) pluginProcess(binary string, arguments ...string) (int, error) {
	found, err := v.Children(binary, arguments...)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no process of %s is found", binary)
	}
	if err != nil {
		return 0, err
	}
	return found[0], nil
}

// processorTime is what a process has used of the processors.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 13 {
		return 0, errors.New("the process's stat can't be read")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100), err // USER_HZ is 100 on Linux
}
