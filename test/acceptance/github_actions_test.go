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
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
)

const githubExample = "../../examples/github-actions"

// workflow is the example's workflow and a stand-in for GitHub, which runs it.
type workflow struct {
	*engine
	github *issuer
	claims map[string]any
	mount  string
	script string // what the workflow runs
}

// requestToken is what a job may ask GitHub for a JWT with.
const requestToken = "request-token"

// newWorkflow runs the commands of the README. The JWTs have the claims that GitHub documents.
func newWorkflow(t testing.TB) *workflow {
	t.Helper()
	for _, program := range []string{"jq", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is not in the PATH, and the workflow can't be tried without it; install it (Debian: apt-get install %s)",
				program, program)
		}
	}
	w := &workflow{engine: newReadyEngine(t), github: newIssuer(t, "/.well-known/jwks")}
	w.mount = w.path + "-github"
	names := strings.NewReplacer("https://token.actions.githubusercontent.com", w.github.URL,
		"https://vault.example.com", w.vault.address, "redox/", w.path+"/", "redox-ci", w.path+"-ci",
		"https://api.redoxengine.com", w.redox.URL, "PATIENT-ID", "1", "CI-CLIENT-ID", "client-1",
		"path=github-actions", "path="+w.mount, "auth/github-actions/", "auth/"+w.mount+"/")
	directory := copyExamples(t, githubExample, names)
	for _, block := range exampleBlocks(t, githubExample, names) {
		w.bash(directory, block)
	}
	text, err := os.ReadFile(filepath.Join(directory, "redox.yml"))
	if err != nil {
		t.Fatal(err)
	}
	_, w.script, _ = strings.Cut(string(text), "run: |\n")
	if w.script == "" {
		t.Fatal("the workflow runs nothing")
	}
	w.claims = map[string]any{
		"aud": w.vault.address, "sub": "repo:your-org/your-repository:ref:refs/heads/main",
		"repository": "your-org/your-repository", "repository_id": "123456789", "repository_owner": "your-org",
		"ref": "refs/heads/main", "event_name": "push", "workflow": "Redox",
		"workflow_ref": "your-org/your-repository/.github/workflows/redox.yml@refs/heads/main",
	}
	w.github.mux.HandleFunc("/token", func(answer http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+requestToken {
			answer.WriteHeader(http.StatusUnauthorized)
			return
		}
		claims := changed(w.claims, "aud", r.URL.Query().Get("audience"))
		_ = json.NewEncoder(answer).Encode(map[string]string{"value": w.github.sign(t, claims)})
	})
	return w
}

// run runs the workflow's script as GitHub does, and gives what is in the log, and what GitHub was told to mask.
func (w *workflow) run(environ ...string) (log string, masked []string, succeeded bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), startTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", w.script)
	command.Dir = w.t.TempDir()
	command.Env = append(environment(command.Dir, "VAULT_ADDR="+w.vault.address,
		"PATIENT="+w.redox.FHIRURL("redox-fhir-sandbox", sandbox.Development)+"/Patient/1",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN="+requestToken, "ACTIONS_ID_TOKEN_REQUEST_URL="+w.github.URL+"/token?api-version=2.0"), environ...)
	var all bytes.Buffer
	command.Stdout, command.Stderr = &all, &all
	err := command.Run()
	for line := range strings.Lines(all.String()) {
		if secret, found := strings.CutPrefix(line, "::add-mask::"); found {
			masked = append(masked, strings.TrimSpace(secret))
		} else {
			log += line
		}
	}
	output.record("the workflow", log)
	return log, masked, err == nil
}

// TestWorkflowReadsPatient runs the example's workflow.
func TestWorkflowReadsPatient(t *testing.T) {
	t.Parallel()
	w := newWorkflow(t)
	log, masked, succeeded := w.run()
	if !succeeded || !strings.Contains(log, `"resourceType": "Patient"`) || strings.Contains(log, "Synthetic") {
		t.Errorf("the workflow fails, or shows the patient: %s", log)
	}
	if len(masked) != 3 || !slices.Contains(masked, w.accessToken("token/ci")) {
		t.Errorf("%d secrets are masked, and not the access token", len(masked))
	}
	for _, secret := range masked {
		if secret == "" || strings.Contains(log, secret) {
			t.Error("a secret is in the log")
		}
	}
	if _, _, succeeded := w.run("ACTIONS_ID_TOKEN_REQUEST_TOKEN=other"); succeeded {
		t.Error("without a JWT, the workflow succeeds")
	}
}

// TestWorkflowLogin logs in with JWTs of other workflows, which Vault is to refuse.
func TestWorkflowLogin(t *testing.T) {
	t.Parallel()
	w := newWorkflow(t)
	role := w.path + "-ci"
	somebody, r := w.login(w.mount, role, w.github.sign(t, w.claims))
	if r.code != 0 {
		t.Fatalf("the login fails: %s", r.stderr)
	}
	somebody.must("read", "-field=access_token", w.at("token/ci"))
	somebody.refused(http.StatusForbidden, "write", "-f", w.at("token/ci"))
	somebody.refused(http.StatusForbidden, "read", w.at("token"))
	for name, other := range map[string]any{
		"repository_id": "987654321",
		"aud":           "https://github.com/your-org",
		"event_name":    "pull_request_target",
		"workflow_ref":  "your-org/your-repository/.github/workflows/redox.yml@refs/pull/1/merge",
		"iss":           "https://github.example.com",
	} {
		if _, r := w.login(w.mount, role, w.github.sign(t, changed(w.claims, name, other))); r.code == 0 {
			t.Errorf("who has another %s is let in", name)
		}
	}
	if _, r := w.login(w.mount, role, newIssuer(t, "/.well-known/jwks").sign(t, changed(w.claims, "iss", w.github.URL))); r.code == 0 {
		t.Error("who has another signature is let in")
	}
}
