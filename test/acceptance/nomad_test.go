// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const nomadExample = "../../examples/nomad"

// copyExamples copies files of an example and the policies to a new directory, with a test's own names, and gives the
// example's directory there.
func copyExamples(t testing.TB, example string, replace *strings.Replacer) string {
	t.Helper()
	directory := t.TempDir()
	for _, folder := range []string{filepath.Base(example), "policies"} {
		files, err := filepath.Glob(filepath.Join("../../examples", folder, "*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("examples/%s has no files: %v", folder, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(directory, folder, filepath.Base(file)), replace.Replace(string(text)))
		}
	}
	return filepath.Join(directory, filepath.Base(example))
}

// exampleBlocks gives the blocks of commands of an example's README.
func exampleBlocks(t testing.TB, example string, replace *strings.Replacer) []string {
	t.Helper()
	var blocks []string
	for _, block := range documentedCommands(t, filepath.Join("../examples", filepath.Base(example), "README.md")) {
		blocks = append(blocks, replace.Replace(block))
	}
	return blocks
}

// login gives somebody who logged in with a JWT, or what Vault says to it.
func (e *engine) login(mount, role, jwt string) (person, result) {
	e.t.Helper()
	r := e.vault.runUnrecorded("", jwt, "write", "-field=token", "auth/"+mount+"/login", "role="+role, "jwt=-")
	return person{e.t, e.vault, strings.TrimSpace(r.stdout)}, r
}

// TestNomadLogin runs the commands of the README, and logs in with JWTs like those of Nomad.
func TestNomadLogin(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	nomad := newIssuer(t, "/.well-known/jwks.json")
	mount := e.path + "-nomad"
	names := strings.NewReplacer("redox/", e.path+"/", "http://127.0.0.1:4646", nomad.URL, "redox-team-a", e.path+"-team-a",
		"path=jwt-nomad", "path="+mount, "auth/jwt-nomad/", "auth/"+mount+"/")
	directory := copyExamples(t, nomadExample, names)
	for _, block := range exampleBlocks(t, nomadExample, names) {
		e.bash(directory, block)
	}
	// What the job says: who logs in to which role.
	job := readFile(t, nomadExample+"/redox-app.nomad.hcl")
	const id, role, audience = "redox-app", "redox-app", "vault.io"
	for _, line := range []string{`job "` + id + `" {`, `role = "` + role + `"`, `aud = ["` + audience + `"]`} {
		if !strings.Contains(strings.Join(strings.Fields(job), " "), line) {
			t.Errorf("the job has not %s", line)
		}
	}
	claims := map[string]any{
		"sub": "global:default:redox-app:app:app:vault_default", "aud": audience,
		"nomad_namespace": "default", "nomad_job_id": id, "nomad_task": "app", "nomad_allocation_id": "1",
	}
	somebody, r := e.login(mount, role, nomad.sign(t, claims))
	if r.code != 0 {
		t.Fatalf("the login fails: %s", r.stderr)
	}
	if e.opens(somebody.must("read", "-field=access_token", e.at("token/team-a"))) != http.StatusOK {
		t.Error("the token does not work")
	}
	somebody.refused(http.StatusForbidden, "read", e.at("config"))
	somebody.refused(http.StatusForbidden, "read", e.at("token"))
	for name, other := range map[string]string{"nomad_job_id": "other", "nomad_namespace": "other", "aud": "consul.io"} {
		if _, r := e.login(mount, role, nomad.sign(t, changed(claims, name, other))); r.code == 0 {
			t.Errorf("who has another %s is let in", name)
		}
	}
	if _, r := e.login(mount, role, newIssuer(t, "/.well-known/jwks.json").sign(t, claims)); r.code == 0 {
		t.Error("who has another signature is let in")
	}
}
