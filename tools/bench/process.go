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
	"syscall"
	"time"
)

// process is a server that was started here.
type process struct {
	url     string
	command *exec.Cmd
	log     string
	ended   chan struct{}
}

// start starts a server in a process group of its own, with its output in a log file.
func start(ctx context.Context, directory, name string, arguments ...string) (*process, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	p := &process{log: filepath.Join(directory, "log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.command = exec.CommandContext(ctx, name, arguments...)
	p.command.Env = []string{"HOME=" + directory, "PATH=" + os.Getenv("PATH")}
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.command.Wait() // how it ended is in its log
	}()
	return p, nil
}

func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

// await asks until the server answers with 200.
func (p *process) await(url string) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		select {
		case <-p.ended:
			text, _ := os.ReadFile(p.log)
			return fmt.Errorf("the server ended at once:\n%s", text)
		default:
		}
		if response, err := http.Get(url); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	return errors.New("the server did not answer within a minute: " + p.log)
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// startSandbox starts a local Redox whose tokens live for lifetime.
func startSandbox(ctx context.Context, binary, directory string, lifetime time.Duration) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, directory, binary, "-address", address, "-token-lifetime", lifetime.String())
	if err != nil {
		return nil, err
	}
	p.url = "http://" + address
	return p, p.await(p.url)
}

// register makes a local Redox know a public key at a client ID.
func (p *process) register(clientID string, jwk json.RawMessage) error {
	body, err := json.Marshal(map[string]any{"id": clientID, "name": clientID, "jwk": jwk})
	if err != nil {
		return err
	}
	response, err := http.Post(p.url+"/sandbox/apikeys", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		return fmt.Errorf("the local Redox does not take the public key: HTTP %d", response.StatusCode)
	}
	return nil
}

const rootToken = "bench-root"

// vault is a Vault server in dev mode, with its audit off.
type vault struct{ *process }

func startVault(ctx context.Context, binary, plugins, directory string) (*vault, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(directory, "config.hcl")
	if err := os.WriteFile(config, fmt.Appendf(nil, "plugin_directory = %q\n", plugins), 0o600); err != nil {
		return nil, err
	}
	p, err := start(ctx, directory, binary, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id="+rootToken,
		"-dev-listen-address="+address, "-config="+config, "-log-level=error")
	if err != nil {
		return nil, err
	}
	p.url = "http://" + address
	return &vault{p}, p.await(p.url + "/v1/sys/health")
}

// do makes one request to Vault, and gives the data of its answer.
func (v *vault) do(method, path string, body any) (map[string]json.RawMessage, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(method, v.url+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Token", rootToken)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: HTTP %d: %s", method, path, response.StatusCode, answer)
	}
	var decoded struct{ Data map[string]json.RawMessage }
	if len(answer) > 0 {
		err = json.Unmarshal(answer, &decoded)
	}
	return decoded.Data, err
}

// mount registers a plugin binary under a name, and mounts it there.
func (v *vault) mount(plugins, binary, version, name string, arguments ...string) error {
	text, err := os.ReadFile(filepath.Join(plugins, binary))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	_, err = v.do(http.MethodPut, "sys/plugins/catalog/secret/"+name, map[string]any{
		"sha256": hex.EncodeToString(sum[:]), "command": binary, "args": arguments, "version": version,
	})
	if err != nil {
		return err
	}
	_, err = v.do(http.MethodPost, "sys/mounts/"+name, map[string]any{"type": name})
	return err
}

// pluginProcess finds the process of a plugin of this Vault by its binary and an argument, which may be empty.
func (v *vault) pluginProcess(binary, argument string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "status"))
		if err != nil || !strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", v.command.Process.Pid)) {
			continue
		}
		command, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue
		}
		words := strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")
		if filepath.Base(words[0]) == binary && (argument == "" || strings.Contains(string(command), argument)) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no process of %s is found", binary)
}

// residentBytes is a process's resident memory.
func residentBytes(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10, nil
		}
	}
	return 0, errors.New("the process tells no resident memory")
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
