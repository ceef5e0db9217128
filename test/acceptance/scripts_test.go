// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// script is one of the example programs.
type script struct {
	name    string
	command []string // what runs it
	needs   string   // a program that has to be in the PATH
	install string   // how to get that
}

// exampleScripts gives the example programs, the one in Go built.
func exampleScripts(t testing.TB) []script {
	t.Helper()
	compiled := filepath.Join(t.TempDir(), "resource")
	if text, err := exec.Command("go", "build", "-o", compiled, "../../examples/scripts/go").CombinedOutput(); err != nil {
		t.Fatalf("examples/scripts/go can't be built: %v\n%s", err, text)
	}
	return []script{
		{"go", []string{compiled}, "go", ""},
		{"python", []string{"python3", "../../examples/scripts/resource.py"}, "python3", "Python 3 (Debian: apt-get install python3)"},
		{"javascript", []string{"node", "../../examples/scripts/resource.mjs"}, "node",
			"Node.js 20 or newer (Debian 13: apt-get install nodejs)"},
		{"curl", []string{"bash", "../../examples/scripts/resource.sh"}, "curl", "curl 7.76 or newer (Debian: apt-get install curl)"},
	}
}

// user is an application that runs a script, with a role and a Vault token of its own.
type user struct {
	person
	engine *engine
	script script
	role   string
	tools  string // a directory with the commands vault and curl, which note what they are called with
	asked  int    // how often Vault was asked for the role's token before the script ran
}

// newUsers gives one user of each script.
func newUsers(e *engine) []*user {
	e.t.Helper()
	var users []*user
	for _, s := range exampleScripts(e.t) {
		if _, err := exec.LookPath(s.needs); err != nil {
			e.t.Fatalf("%s is not in the PATH, and the %s example can't be tried without it; install %s", s.needs, s.name, s.install)
		}
		e.register(s.name+"-client", "main")
		e.must("write", e.at("roles/"+s.name), "client_id="+s.name+"-client")
		u := &user{e.as(s.name, map[string]string{"token/" + s.name: "read update"}), e, s, s.name, e.t.TempDir(), 0}
		u.note("vault", host.Binary)
		if s.name == "curl" {
			u.note("curl", s.needs)
		}
		users = append(users, u)
	}
	return users
}

// note puts a command into the user's PATH that notes its arguments, which all users of a machine can see, and does as
// the real one.
func (u *user) note(name, binary string) {
	u.t.Helper()
	found, err := exec.LookPath(binary)
	if err == nil {
		found, err = filepath.Abs(found)
	}
	if err != nil {
		u.t.Fatal(err)
	}
	text := "#!/bin/sh\nprintf '%s\\n' \"$@\" >>" + filepath.Join(u.tools, "arguments") + "\nexec " + found + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(u.tools, name), []byte(text), 0o700); err != nil {
		u.t.Fatal(err)
	}
}

// tokenPath is where Vault has the user's token.
func (u *user) tokenPath() string { return u.engine.at("token/" + u.role) }

// read runs the script, for patient 1.
func (u *user) read() result {
	u.t.Helper()
	u.asked = u.engine.reads(u.tokenPath())
	u.engine.redox.ResetCounters()
	url := u.engine.redox.FHIRURL("redox-fhir-sandbox", sandbox.Development) + "/Patient/1"
	ctx, cancel := context.WithTimeout(u.t.Context(), startTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, u.script.command[0], append(u.script.command[1:], u.tokenPath(), url)...)
	command.Env = environment(u.vault.directory, "VAULT_ADDR="+u.vault.address, "VAULT_TOKEN="+u.token,
		"PATH="+u.tools+string(os.PathListSeparator)+os.Getenv("PATH"))
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	if command.ProcessState == nil {
		u.t.Fatalf("%s does not run: %v", u.script.name, err)
	}
	output.record("the "+u.script.name+" example", stdout.String()+stderr.String())
	u.checkArguments()
	return result{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

// checkArguments looks for secrets in what the commands were called with.
func (u *user) checkArguments() {
	u.t.Helper()
	if u.script.name == "go" {
		return // it calls no command
	}
	arguments, err := os.ReadFile(filepath.Join(u.tools, "arguments"))
	if err != nil || len(arguments) == 0 {
		u.t.Fatalf("%s: no command was called: %v", u.script.name, err)
	}
	if found := output.scanner.Scan(arguments); len(found) > 0 || bytes.Contains(arguments, []byte(u.token)) {
		u.t.Errorf("%s: %v or the Vault token is on a command line", u.script.name, found)
	}
}

// checkPatient checks that the script has printed the patient, and nothing else.
func (u *user) checkPatient(r result) {
	u.t.Helper()
	var patient struct{ ResourceType, ID string }
	if err := json.Unmarshal([]byte(r.stdout), &patient); err != nil || patient.ResourceType != "Patient" || patient.ID != "1" ||
		r.code != 0 || r.stderr != "" {
		u.t.Errorf("%s: exit status %d\n%s%s", u.script.name, r.code, r.stdout, r.stderr)
	}
}

// checkFailed checks that the script has failed, with a message.
func (u *user) checkFailed(r result, message string) {
	u.t.Helper()
	if r.code == 0 || r.stdout != "" || !strings.Contains(r.stderr, message) {
		u.t.Errorf("%s: exit status %d, and not %q:\n%s%s", u.script.name, r.code, message, r.stdout, r.stderr)
	}
}

// counted checks how often the script asked Vault for the token and Redox for the resource, and how many tokens were minted.
func (u *user) counted(vault, resources, tokens int) {
	u.t.Helper()
	counters := u.engine.redox.Counters()
	minted := counters.Token.Clients[u.script.name+"-client"].Issued
	got := []int{u.engine.reads(u.tokenPath()) - u.asked, counters.FHIR.Requests, minted}
	for i, want := range []int{vault, resources, tokens} {
		if got[i] != want {
			what := []string{"Vault was asked for the token", "Redox was asked for the resource", "a token was minted"}[i]
			u.t.Errorf("%s: %s %d times, not %d", u.script.name, what, got[i], want)
		}
	}
}

// deadTokens makes the local Redox issue tokens that it does not take, though they are said to live long: what a client
// sees of a token that Redox ended.
func (e *engine) deadTokens() {
	e.redox.SetFaults(sandbox.Faults{TokenLifetime: sandbox.Duration(time.Nanosecond), ExpiresInRaw: json.RawMessage("300")})
}

// TestScriptsReadResources runs each example program while nothing is wrong.
func TestScriptsReadResources(t *testing.T) {
	verifyOnly(t, "needs Python and Node.js")
	t.Parallel()
	e := newReadyEngine(t)
	for _, u := range newUsers(e) {
		u.checkPatient(u.read())
		u.counted(1, 1, 1)
	}
}

// TestScriptsReplaceRejectedToken has Redox reject the token that all share: each program makes one fresh token, and goes
// on with that.
func TestScriptsReplaceRejectedToken(t *testing.T) {
	verifyOnly(t, "needs Python and Node.js")
	t.Parallel()
	e := newReadyEngine(t)
	users := newUsers(e)
	e.deadTokens()
	for _, u := range users {
		u.opened(http.StatusUnauthorized)
	}
	users[len(users)-1].awaitReplaceable()
	e.redox.SetFaults(sandbox.Faults{})
	for _, u := range users {
		u.checkPatient(u.read())
		u.counted(2, 2, 1)
		u.opened(http.StatusOK)
	}
}

// TestScriptsGiveUp has Redox reject every token: each program makes one fresh token, and no more.
func TestScriptsGiveUp(t *testing.T) {
	verifyOnly(t, "needs Python and Node.js")
	t.Parallel()
	e := newReadyEngine(t)
	users := newUsers(e)
	e.deadTokens()
	for _, u := range users {
		u.opened(http.StatusUnauthorized)
	}
	users[len(users)-1].awaitReplaceable()
	for _, u := range users {
		u.checkFailed(u.read(), "Redox answered 401 to a fresh token, too")
		u.counted(2, 2, 1)
	}
}

// TestScriptsSayWhatIsWrong has other things go wrong: no program tries again, and each says what it was.
func TestScriptsSayWhatIsWrong(t *testing.T) {
	verifyOnly(t, "needs Python and Node.js")
	t.Parallel()
	e := newReadyEngine(t)
	for _, u := range newUsers(e) {
		e.redox.SetFaults(sandbox.Faults{Path: "/fhir", Status: http.StatusForbidden})
		u.checkFailed(u.read(), "Redox answered 403")
		u.counted(1, 1, 1)
		e.redox.SetFaults(sandbox.Faults{Path: "/fhir", Redirect: e.redox.URL + "/sandbox/counters"})
		u.checkFailed(u.read(), "Redox answered 307") // the token must not follow to another server
		u.counted(1, 1, 0)
		e.redox.SetFaults(sandbox.Faults{})
		u.token = "not-a-token"
		u.checkFailed(u.read(), "no token from Vault")
	}
}

// opened reads the user's token, and lets the local Redox try it.
func (u *user) opened(status int) {
	u.t.Helper()
	if got := u.engine.opens(u.engine.accessToken("token/" + u.role)); got != status {
		u.t.Errorf("%s: the token is answered with %d, not %d", u.script.name, got, status)
	}
}

// awaitReplaceable waits until a write makes a new token: within 2 s of a mint it gives the one that is there.
func (u *user) awaitReplaceable() {
	u.t.Helper()
	minted, err := time.Parse(time.RFC3339, u.engine.data("read", u.tokenPath())["last_vault_rotation"].(string))
	if err != nil {
		u.t.Fatal(err)
	}
	await(u.t, "a token that counts as fresh no more", func() bool { return time.Since(minted) > 4*time.Second })
}

// TestScriptsDocumentation runs the commands of the README.
func TestScriptsDocumentation(t *testing.T) {
	verifyOnly(t, "needs Python and Node.js")
	t.Parallel()
	e := newReadyEngine(t)
	names := strings.NewReplacer("redox/", e.path+"/", "redox-team-a", e.path+"-team-a", "https://api.redoxengine.com", e.redox.URL,
		"PATIENT-ID", "1", "../policies", copyExamples(t, "policies", strings.NewReplacer("redox/", e.path+"/")))
	for _, block := range exampleBlocks(t, "scripts", names) {
		e.bash("../../examples/scripts", block)
	}
	if n := e.redox.Counters().FHIR; n.Requests != 4 || n.Rejected != 0 {
		t.Errorf("Redox was asked for %d resources, and rejected %d", n.Requests, n.Rejected)
	}
}
