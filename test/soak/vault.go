// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

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
	"syscall"
	"time"
)

const (
	rootToken  = "soak-root"
	pluginName = "vault-plugin-secrets-redox"
	mount      = "redox/"
)

// vault is a Vault server in dev mode, with its log and the plugin's at trace.
type vault struct {
	address string // host:port
	log     string
	plugin  string // the binary
	command *exec.Cmd
	ended   chan struct{}
	client  *http.Client
	uuid    string // of the mount, for sys/raw
}

// startVault starts the server on a free port, and mounts the plugin.
func startVault(ctx context.Context, set settings, directory string) (*vault, error) {
	v := &vault{
		log: filepath.Join(directory, "vault.log"), plugin: set.plugin,
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * readers}},
	}
	config := filepath.Join(directory, "vault.hcl")
	text := fmt.Appendf(nil, "plugin_directory = %q\nraw_storage_endpoint = true\n", filepath.Dir(set.plugin))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	err := errPortTaken
	for tries := 0; tries < 5 && errors.Is(err, errPortTaken); tries++ {
		err = v.start(ctx, set.vault, config, directory)
	}
	if err != nil {
		return nil, err
	}
	if err := v.mount(ctx); err != nil {
		v.stop()
		return nil, err
	}
	return v, nil
}

var errPortTaken = errors.New("another process took the port")

func (v *vault) start(ctx context.Context, binary, config, home string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	v.address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		return err
	}
	log, err := os.Create(v.log)
	if err != nil {
		return err
	}
	defer log.Close()
	v.command = exec.Command(binary, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id="+rootToken,
		"-dev-listen-address="+v.address, "-config="+config, "-log-level=trace")
	v.command.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	v.command.Stdout, v.command.Stderr = log, log
	// Ctrl-C is for the soak, which ends the server itself; and if it can't any more, the kernel does.
	v.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := v.command.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	v.ended = ended
	go func() {
		defer close(ended)
		_ = v.command.Wait() // how it ended is in its log
	}()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if status, _, err := v.do(ctx, http.MethodGet, "auth/token/lookup-self", nil); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(v.log)
			if bytes.Contains(text, []byte("address already in use")) {
				return errPortTaken
			}
			return fmt.Errorf("the Vault server ended at once: see %s", v.log)
		case <-ctx.Done():
			v.stop()
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	v.stop()
	return errors.New("the Vault server did not answer within a minute")
}

func (v *vault) stop() {
	_ = v.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-v.ended:
	case <-time.After(20 * time.Second):
		_ = syscall.Kill(-v.command.Process.Pid, syscall.SIGKILL)
		<-v.ended
	}
}

func (v *vault) mount(ctx context.Context) error {
	binary, err := os.ReadFile(v.plugin)
	if err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, v.plugin, "-version").Output()
	if err != nil {
		return fmt.Errorf("the plugin does not tell its version: %w", err)
	}
	sum := sha256.Sum256(binary)
	if _, err := v.must(ctx, http.MethodPut, "sys/plugins/catalog/secret/"+pluginName, map[string]any{
		"sha256": hex.EncodeToString(sum[:]), "command": filepath.Base(v.plugin), "version": strings.TrimSpace(string(version)),
	}); err != nil {
		return err
	}
	if _, err := v.must(ctx, http.MethodPost, "sys/mounts/redox", map[string]any{"type": pluginName}); err != nil {
		return err
	}
	data, err := v.must(ctx, http.MethodGet, "sys/mounts/redox", nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(data["uuid"], &v.uuid)
}

// do makes one request.
func (v *vault) do(ctx context.Context, method, path string, body any) (status int, answer []byte, err error) {
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return 0, nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+v.address+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("X-Vault-Token", rootToken)
	response, err := v.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// must makes a request that has to succeed, and gives the data of its answer.
func (v *vault) must(ctx context.Context, method, path string, body any) (map[string]json.RawMessage, error) {
	status, answer, err := v.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	if status >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("%s %s: HTTP %d: %s", method, path, status, problem(answer))
	}
	var decoded struct{ Data map[string]json.RawMessage }
	if len(answer) > 0 {
		err = json.Unmarshal(answer, &decoded)
	}
	return decoded.Data, err
}

// problem gives the words of an answer that is an error, on one line.
func problem(answer []byte) string {
	var decoded struct{ Errors []string }
	if json.Unmarshal(answer, &decoded) != nil || len(decoded.Errors) == 0 {
		return "no words"
	}
	return strings.Join(strings.Fields(strings.Join(decoded.Errors, "; ")), " ")
}

// leases counts the leases of the leased role.
func (v *vault) leases(ctx context.Context) (int, error) {
	status, answer, err := v.do(ctx, "LIST", "sys/leases/lookup/"+mount+"token/leased", nil)
	if err != nil || status == http.StatusNotFound {
		return 0, err
	}
	if status != http.StatusOK {
		return 0, fmt.Errorf("the leases can't be listed: HTTP %d: %s", status, problem(answer))
	}
	var decoded struct{ Data struct{ Keys []string } }
	err = json.Unmarshal(answer, &decoded)
	return len(decoded.Data.Keys), err
}

// killPlugin ends the plugin's processes of this server as a crash does.
func (v *vault) killPlugin() error {
	pids, err := v.pluginProcesses()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
	}
	return err
}

// pluginProcesses finds them among the children of this server only.
func (v *vault) pluginProcesses() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parent := fmt.Sprintf("\nPPid:\t%d\n", v.command.Process.Pid)
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "status"))
		if err != nil || !strings.Contains(string(status), parent) {
			continue
		}
		binary, err := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		if err == nil && filepath.Base(binary) == filepath.Base(v.plugin) {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, errors.New("no process of the plugin is found")
	}
	return pids, nil
}

// residentBytes is the server's resident memory.
func (v *vault) residentBytes() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kilobytes); n == 1 {
			return kilobytes * 1024, nil
		}
	}
	return 0, errors.New("the server's process tells no resident memory")
}
