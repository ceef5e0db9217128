// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
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

// exampleFolder is a copy of examples/agent or examples/proxy with a test's own addresses, mounts and role.
type exampleFolder struct {
	*engine
	role      string
	directory string
}

// newExampleFolder copies the examples and runs the first commands of their README, which set up what is needed.
func newExampleFolder(e *engine, example, role string, leased bool, replace ...string) *exampleFolder {
	e.t.Helper()
	x := &exampleFolder{e, role, e.t.TempDir()}
	own := e.path + "-" + role
	replacer := strings.NewReplacer(append(replace,
		"http://127.0.0.1:8200", e.vault.address,
		"redox/", e.at(""),
		"/team-a", "/"+role,
		"leased=false", fmt.Sprintf("leased=%v", leased),
		"redox-"+example, own, // the policy and the AppRole role
		"auth enable approle", "auth enable -path="+own+" approle",
		"auth/approle", "auth/"+own,
	)...)
	source := filepath.Join("../../examples", example)
	files, err := os.ReadDir(source)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			e.t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(source, file.Name()))
		if err != nil {
			e.t.Fatal(err)
		}
		x.put(file.Name(), replacer.Replace(string(text)), info.Mode().Perm()&0o700)
	}
	x.bash(x.directory, x.commands()[0])
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

// commands gives the README's blocks of commands.
func (x *exampleFolder) commands() []string {
	x.t.Helper()
	var blocks []string
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(x.text("README.md"), -1) {
		blocks = append(blocks, block[1])
	}
	if len(blocks) == 0 {
		x.t.Fatal("the README has no block of commands")
	}
	return blocks
}

// start runs Vault Agent or Proxy ("agent", "proxy") in the folder, until stop is called or the test ends.
func (x *exampleFolder) start(program, config string) (stop func()) {
	x.t.Helper()
	command := exec.Command(host.Binary, program, "-config="+config, "-log-level=debug")
	command.Dir, command.Env = x.directory, environment(x.directory)
	return startProcess(x.t, "vault "+program+" with "+config, command).Stop
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
		if !bytes.Contains(line, []byte(path)) {
			continue // the log of all tests is long
		}
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
	const lifetime = 20 * time.Second
	renewals := 10
	if testing.Short() {
		renewals = 2
	}
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
	examples := make([]*exampleFolder, len(cases))
	var watchers sync.WaitGroup
	for i, c := range cases {
		x := newExampleFolder(e, "agent", c.role, c.leased)
		if c.cache {
			x.put("file.hcl", x.text("file.hcl")+"\ncache {}\n", 0o600)
		}
		stop := x.start("agent", "file.hcl")
		examples[i] = x
		watchers.Go(func() {
			tokens[i] = x.watch("redox-token", "changes.log", lifetime, renewals)
			stop() // else it would use tokens that nobody counts
		})
	}
	watchers.Wait()
	all := 0
	for i, c := range cases {
		examples[i].bash(examples[i].directory, examples[i].commands()[2])
		all += tokens[i]
		if n := e.reads(e.at("token/" + c.role)); n > (tokens[i]+1)*c.mostReads {
			t.Errorf("%s: %d reads for %d tokens", c.role, n, tokens[i])
		}
	}
	e.usedBy(all, len(cases))
}

// TestAgentRunsProgram runs process.hcl: the program that runs has a live token at every moment.
func TestAgentRunsProgram(t *testing.T) {
	verifyOnly(t, "renewals for two minutes")
	t.Parallel()
	// Agent waits 2 s before it restarts the program. A renewal takes 31 s, so that leaves 7 s of the token.
	const lifetime, renewals = 40 * time.Second, 4
	e := newAgentEngine(t, lifetime)
	x := newExampleFolder(e, "agent", "plain", false, `"./program"`, `"./telling-program"`)
	x.put("telling-program", `#!/bin/sh
umask 077
printf %s "$REDOX_ACCESS_TOKEN" > new
mv new environment
exec ./program
`, 0o700)
	x.start("agent", "process.hcl")
	tokens := x.watch("environment", "program.log", lifetime, renewals)
	x.bash(x.directory, x.commands()[3])
	if n := e.reads(e.at("token/plain")); n > tokens+1 {
		t.Errorf("%d reads for %d tokens", n, tokens)
	}
	e.usedBy(tokens, 1)
}
