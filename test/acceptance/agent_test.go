// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// newAgentEngine is newReadyEngine with tokens that soon end.
func newAgentEngine(t testing.TB, lifetime time.Duration) *engine {
	t.Helper()
	e := newEngine(t, sandbox.Options{TokenLifetime: lifetime})
	e.must("write", e.at("keys/main"), "algorithm=ES384")
	e.register("client-1", "main")
	e.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL)
	return e
}

// exampleFolder is a copy of examples/agent with a test's own addresses, mounts and role.
type exampleFolder struct {
	*engine
	role      string
	directory string
}

// newExampleFolder copies the examples and runs the commands of their README.
func newExampleFolder(e *engine, role string, leased bool, replace ...string) *exampleFolder {
	e.t.Helper()
	x := &exampleFolder{e, role, e.t.TempDir()}
	own := e.path + "-" + role
	replacer := strings.NewReplacer(append(replace,
		"http://127.0.0.1:8200", e.vault.address,
		"redox/", e.at(""),
		"/team-a", "/"+role,
		"leased=false", fmt.Sprintf("leased=%v", leased),
		"policy write redox-agent", "policy write "+own,
		"token_policies=redox-agent", "token_policies="+own,
		"auth enable approle", "auth enable -path="+own+" approle",
		"auth/approle", "auth/"+own,
	)...)
	for name, mode := range map[string]fs.FileMode{
		"README.md": 0o600, "policy.hcl": 0o600, "cache.hcl": 0o600,
		"file.hcl": 0o600, "redox-token.ctmpl": 0o600, "on-change": 0o700,
		"process.hcl": 0o600, "program": 0o700,
	} {
		text, err := os.ReadFile(filepath.Join("../../examples/agent", name))
		if err != nil {
			e.t.Fatal(err)
		}
		x.put(name, replacer.Replace(string(text)), mode)
	}
	x.setUp()
	return x
}

func (x *exampleFolder) put(name, text string, mode fs.FileMode) {
	x.t.Helper()
	if err := os.WriteFile(filepath.Join(x.directory, name), []byte(text), mode); err != nil {
		x.t.Fatal(err)
	}
}

// text is what a file of the folder holds, empty while it isn't there.
func (x *exampleFolder) text(name string) string {
	text, _ := os.ReadFile(filepath.Join(x.directory, name))
	return string(text)
}

// setUp runs the commands of the README's first block.
func (x *exampleFolder) setUp() {
	x.t.Helper()
	_, rest, opened := strings.Cut(x.text("README.md"), "```sh\n")
	commands, _, closed := strings.Cut(rest, "```")
	if !opened || !closed {
		x.t.Fatal("the README has no block of commands")
	}
	binaries := x.t.TempDir()
	binary, err := filepath.Abs(vaultBinary)
	if err == nil {
		err = os.Symlink(binary, filepath.Join(binaries, "vault"))
	}
	if err != nil {
		x.t.Fatal(err)
	}
	shell := exec.Command("sh", "-ec", commands)
	shell.Dir = x.directory
	shell.Env = append(environment(x.directory), "VAULT_ADDR="+x.vault.address, "VAULT_TOKEN="+x.person.token,
		"PATH="+binaries+":"+os.Getenv("PATH"))
	text, err := shell.CombinedOutput()
	output.record("the commands of examples/agent/README.md", string(text))
	if err != nil {
		x.t.Fatalf("the README's commands failed: %v\n%s", err, text)
	}
}

// startAgent runs Vault Agent in the folder, until stop is called or the test ends.
func (x *exampleFolder) startAgent(config string) (stop func()) {
	x.t.Helper()
	agent := &vaultServer{address: x.vault.address, directory: x.directory, ended: make(chan struct{})}
	var log bytes.Buffer
	agent.command = exec.Command(vaultBinary, "agent", "-config="+config, "-log-level=debug")
	agent.command.Dir, agent.command.Env = x.directory, environment(x.directory)
	agent.command.Stdout, agent.command.Stderr = &log, &log
	agent.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	agent.command.WaitDelay = time.Second // for a program that Agent leaves behind
	if err := agent.command.Start(); err != nil {
		x.t.Fatal(err)
	}
	if err := agent.watch(); err != nil {
		x.t.Fatal(err)
	}
	go func() {
		defer close(agent.ended)
		_ = agent.command.Wait() // how it ended is in its log
	}()
	stop = sync.OnceFunc(agent.stop)
	x.t.Cleanup(func() {
		stop()
		output.record("Vault Agent's log", log.String())
		if x.t.Failed() {
			x.t.Logf("Vault Agent's log with %s:\n%s", config, log.String())
		}
	})
	return stop
}

// reads counts the requests for a path that have reached Vault.
func (e *engine) reads(path string) int {
	e.t.Helper()
	text, err := os.ReadFile(e.vault.auditFile())
	if err != nil {
		e.t.Fatal(err)
	}
	count := 0
	for line := range bytes.Lines(text) {
		var entry struct {
			Type    string
			Request struct{ Path string }
		}
		if json.Unmarshal(line, &entry) == nil && entry.Type == "request" && entry.Request.Path == path {
			count++
		}
	}
	return count
}

// watch looks at a file that holds a token until it has seen some renewals, and gives how many tokens those were: at
// every moment Redox takes the token. The log is to have a line for each. It doesn't end the test, as it is not called
// on the test's own goroutine only.
func (x *exampleFolder) watch(file, log string, lifetime time.Duration, renewals int) int {
	deadline := time.After(startTimeout + time.Duration(renewals+1)*lifetime)
	seen := map[string]bool{}
	for {
		if token := x.text(file); token != "" {
			if !x.redox.IsLive(token) {
				x.t.Errorf("%s: the token in %s has ended after %d renewals", x.role, file, len(seen)-1)
				return len(seen)
			}
			seen[token] = true
			if info, err := os.Stat(filepath.Join(x.directory, file)); err != nil || info.Mode().Perm() != 0o600 {
				x.t.Errorf("%s: %s is not for its owner only: %v, %v", x.role, file, info, err)
				return len(seen)
			}
		}
		if len(seen) > renewals && strings.Count(x.text(log), "\n") >= len(seen) {
			return len(seen)
		}
		select {
		case <-deadline:
			x.t.Errorf("%s: waited in vain: %d tokens were seen; %s:\n%s", x.role, len(seen), log, x.text(log))
			return len(seen)
		case <-time.After(20 * time.Millisecond): // there is no event to wait for
		}
	}
}

// usedBy checks that no token was made in vain. Readers that are still at work go on using tokens: they are to be stopped
// before.
func (e *engine) usedBy(tokens, readers int) {
	e.t.Helper()
	// Each reader may have got one more that nobody has looked at yet.
	if n := e.redox.Counters().Token.Requests; n > tokens+readers {
		e.t.Errorf("Redox was asked for %d tokens, and %d were used", n, tokens)
	}
}

// TestAgentRendersFile runs file.hcl, directly and through Agent's cache, with a lease and without: the file has a live
// token at every moment, and Agent asks no more often than there is something new.
func TestAgentRendersFile(t *testing.T) {
	t.Parallel()
	// A renewal every 16 s, when 4 s of the token are left. Of Redox's 300 s it is 29 s.
	const lifetime, renewals = 20 * time.Second, 10
	e := newAgentEngine(t, lifetime)
	cases := []struct {
		role          string
		leased, cache bool
		// mostReads is how often Agent may ask for one token. One with a lease is asked for again at 85 % to 95 % of its
		// ttl, before there is a newer one: then once more, soon after.
		mostReads int
	}{
		{role: "plain", mostReads: 1},
		{role: "plain-cache", cache: true, mostReads: 1},
		{role: "leased", leased: true, mostReads: 3},
		{role: "leased-cache", leased: true, cache: true, mostReads: 3},
	}
	tokens := make([]int, len(cases))
	var watchers sync.WaitGroup
	for i, c := range cases {
		x := newExampleFolder(e, c.role, c.leased)
		if c.cache {
			x.put("file.hcl", x.text("file.hcl")+"\ncache {}\n", 0o600)
		}
		stop := x.startAgent("file.hcl")
		watchers.Go(func() {
			tokens[i] = x.watch("redox-token", "changes.log", lifetime, renewals)
			stop() // else it would use tokens that nobody counts
		})
	}
	watchers.Wait()
	all := 0
	for i, c := range cases {
		all += tokens[i]
		if n := e.reads(e.at("token/" + c.role)); n > (tokens[i]+1)*c.mostReads {
			t.Errorf("%s: %d reads for %d tokens", c.role, n, tokens[i])
		}
	}
	e.usedBy(all, len(cases))
}

// TestAgentRunsProgram runs process.hcl: the program that runs has a live token at every moment.
func TestAgentRunsProgram(t *testing.T) {
	t.Parallel()
	// Agent waits 2 s before it restarts the program. A renewal takes 31 s, so that leaves 7 s of the token.
	const lifetime, renewals = 40 * time.Second, 4
	e := newAgentEngine(t, lifetime)
	x := newExampleFolder(e, "plain", false, `"./program"`, `"./telling-program"`)
	x.put("telling-program", `#!/bin/sh
umask 077
printf %s "$REDOX_ACCESS_TOKEN" > new
mv new environment
exec ./program
`, 0o700)
	x.startAgent("process.hcl")
	tokens := x.watch("environment", "program.log", lifetime, renewals)
	if n := e.reads(e.at("token/plain")); n > tokens+1 {
		t.Errorf("%d reads for %d tokens", n, tokens)
	}
	e.usedBy(tokens, 1)
}

// TestAgentServesPrograms runs cache.hcl: programs of this machine read without a Vault token of their own, and Agent
// never holds on to an old token, with a lease or without.
func TestAgentServesPrograms(t *testing.T) {
	e := newReadyEngine(t)
	for role, leased := range map[string]bool{"plain": false, "leased": true} {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		x := newExampleFolder(e, role, leased, "127.0.0.1:8100", address)
		x.startAgent("cache.hcl")
		program, path := person{t, &vaultServer{address: "http://" + address}, ""}, e.at("token/"+role)
		await(t, "Agent to give a token", func() bool { return tokenOverHTTP(program, path) != "" })
		old := tokenOverHTTP(program, path)
		if old != e.accessToken("token/"+role) {
			t.Errorf("%s: Agent gives another token than Vault", role)
		}
		await(t, "a token that counts as fresh no more", func() bool {
			return e.data("write", "-f", path)["access_token"] != old
		})
		if fresh := tokenOverHTTP(program, path); fresh == old || fresh != e.accessToken("token/"+role) {
			t.Errorf("%s: Agent holds on to an old token", role)
		}
		if response, _ := program.http(http.MethodGet, e.at("config"), ""); response.StatusCode != http.StatusForbidden {
			t.Errorf("%s: a program may read the configuration: %s", role, response.Status)
		}
	}
}
