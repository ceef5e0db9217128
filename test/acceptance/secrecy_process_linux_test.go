// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// These tests look into the plugin's process where the operating system shows it as files. A core dump is out of their
// scope: it has everything that is in memory (docs/security.md).

// pluginProcesses returns the processes of the plugin that a server has started.
func (s *vaultServer) pluginProcesses(t testing.TB) []int {
	t.Helper()
	found, err := s.Children(pluginName)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSecrecyOfTheProcess looks at what the operating system shows of the plugin while it waits for Redox with an
// assertion in its hands: arguments, environment, open files, files left behind; and at the dump of its goroutines that
// it writes to Vault's log when it is told to quit.
func TestSecrecyOfTheProcess(t *testing.T) {
	t.Parallel()
	s := newOwnServer(t)
	temporary, err := os.MkdirTemp("", "r") // short: a socket's path may not be long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temporary) })
	if err := s.registerWith(pluginName, "TMPDIR="+temporary, "HOME="+temporary); err != nil {
		t.Fatal(err)
	}
	e := mountOn(t, s)
	token := e.accessToken("token")
	e.must("write", e.at("keys/rsa"), "rsa_bits=2048")
	learnStoredKeys(t, s)

	arrived, release := e.redox.HoldTokenRequests()
	t.Cleanup(release)
	e.must("write", e.at("roles/other"), "scope=a")
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		e.vault.run(rootToken, "", "read", e.at("token/other"))
	}()
	<-arrived
	processes := s.pluginProcesses(t)
	if len(processes) == 0 {
		t.Fatal("the plugin has no process")
	}
	for _, pid := range processes {
		for _, name := range []string{"cmdline", "environ"} {
			text := readFile(t, fmt.Sprintf("/proc/%d/%s", pid, name))
			wantClean(t, name, text)
			for _, secret := range []string{token, rootToken} {
				if strings.Contains(text, secret) {
					t.Errorf("%s of the plugin holds a token", name)
				}
			}
		}
		descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(descriptors) == 0 {
			t.Fatalf("the plugin has nothing open: %v", err)
		}
		for _, descriptor := range descriptors {
			// The link's mode says what the file was opened for. Go itself reads files of the system.
			if info, err := os.Lstat(descriptor); err != nil || info.Mode()&0o200 == 0 {
				continue
			}
			open, _ := os.Readlink(descriptor)
			if kind, _, _ := strings.Cut(open, ":"); !slices.Contains([]string{"socket", "pipe", "anon_inode", os.DevNull, ""}, kind) {
				t.Errorf("the plugin writes to %s", open)
			}
		}
		if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
			t.Fatal(err)
		}
	}
	wantOnlySockets(t, temporary)
	await(t, "the plugin to have ended", func() bool { return len(s.pluginProcesses(t)) == 0 })
	release()
	<-waiting
	await(t, "a token from the next process", func() bool { return e.try("read", e.at("token")).code == 0 })

	for _, part := range []string{"SIGQUIT: quit", "goroutine ", "main.(*minter).mint", "internal/redox.(*Client).RequestToken"} {
		s.awaitLogged(t, part, 1)
	}
	log := readFile(t, s.LogFile())
	wantClean(t, "the log with the dump", log)
	if found := output.scanner.Scan([]byte(log + fmt.Sprint(token))); len(found) == 0 {
		t.Error("a token in the dump would not be found")
	}
	s.Stop()
	wantOnlySockets(t, temporary)
}

// wantOnlySockets fails the test when there is a file with content in a directory that is the plugin's alone.
func wantOnlySockets(t testing.TB, directory string) {
	t.Helper()
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Type() != fs.ModeSocket {
			t.Errorf("the plugin made the file %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSecrecyOfACrash runs a build of the plugin that panics on purpose when it has just signed, with a text that was made
// of all that is at hand. The caller, and Vault's log, get neither the key nor the assertion.
func TestSecrecyOfACrash(t *testing.T) {
	t.Parallel()
	const file = "crashing"
	const before = "\treturn assertion, nil\n"
	const crash = "\tif c.clientID == \"crash\" {\n" +
		"\t\tpanic(fmt.Sprintf(\"on purpose: %v %+v %#v %s %+v\", key, key, key, must(key.Seal()), *key))\n\t}\n" + before
	// Only the copy that is compiled instead panics.
	source, err := filepath.Abs("../../signer.go")
	if err != nil {
		t.Fatal(err)
	}
	text := readFile(t, source)
	if strings.Count(text, before) != 1 {
		t.Fatalf("%s has changed: there is no place to crash at", source)
	}
	directory := t.TempDir()
	changed, overlay := filepath.Join(directory, "signer.go"), filepath.Join(directory, "overlay.json")
	writeFile(t, changed, strings.Replace(text, before, crash, 1)+
		"\nfunc must[T any](value T, _ error) T { return value }\n")
	replaced, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, overlay, string(replaced))
	build := exec.CommandContext(t.Context(), "../../scripts/build", filepath.Join(filepath.Dir(pluginFile), file))
	build.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}

	s := newOwnServer(t)
	if err := s.registerWith(file); err != nil {
		t.Fatal(err)
	}
	e := mountOn(t, s)
	e.must("write", e.at("keys/rsa"), "rsa_bits=2048")
	e.must("write", e.at("roles/crash"), "client_id=crash", "key=rsa")
	e.must("write", e.at("roles/crash-too"), "client_id=crash")
	learnStoredKeys(t, s) // of both kinds
	for _, arguments := range [][]string{
		{"write", "-f", e.at("assertion/crash")}, {"read", e.at("token/crash-too")},
	} {
		r := e.try(arguments...)
		if r.code == 0 {
			t.Fatal("it did not crash")
		}
		wantClean(t, "what the caller is told", r.stdout+r.stderr)
		await(t, "the next process", func() bool { return e.try("read", e.at("info")).code == 0 })
	}
	s.awaitLogged(t, "on purpose: ", 2)
	s.awaitLogged(t, "main.signAssertion", 2)
	log := readFile(t, s.LogFile())
	wantClean(t, "the log with the panics", log)
	for _, algorithm := range []string{"RS384", "ES384"} {
		const shown = "on purpose: [private key] [private key] [private key] [sealed private key] {algorithm:"
		if !strings.Contains(log, shown+algorithm) {
			t.Errorf("the log does not have %q", shown+algorithm)
		}
	}
}

// awaitLogged waits until a server's log has a text so many times: what a plugin prints gets there a moment later.
func (s *vaultServer) awaitLogged(t testing.TB, text string, times int) {
	t.Helper()
	await(t, fmt.Sprintf("%q in the server's log", text), func() bool {
		return strings.Count(readFile(t, s.LogFile()), text) >= times
	})
}
