// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// nomadJob reads the example's job with Nomad's own parser.
func nomadJob(t testing.TB, into any) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(nomadExample, "redox-app.nomad.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	t.Log("building tools/nomad takes a minute or so the first time, and downloads some 100 MB")
	command := exec.Command("go", "run", "-C", "../../tools/nomad", ".", file)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	text, err := command.Output()
	if err != nil {
		t.Fatalf("Nomad does not take the job: %v\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// TestNomadLogin runs the commands of the README, and logs in with JWTs like those of Nomad.
func TestNomadLogin(t *testing.T) {
	verifyOnly(t, "builds tools/nomad")
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
	var job struct {
		ID, Namespace string
		TaskGroups    []struct {
			Tasks []struct {
				Vault      struct{ Role string }
				Identities []struct{ Audience []string }
			}
		}
	}
	nomadJob(t, &job)
	task := job.TaskGroups[0].Tasks[0]
	claims := map[string]any{
		"sub": "global:default:redox-app:app:app:vault_default", "aud": task.Identities[0].Audience[0],
		"nomad_namespace": job.Namespace, "nomad_job_id": job.ID, "nomad_task": "app", "nomad_allocation_id": "1",
	}
	somebody, r := e.login(mount, task.Vault.Role, nomad.sign(t, claims))
	if r.code != 0 {
		t.Fatalf("the login fails: %s", r.stderr)
	}
	if e.opens(somebody.must("read", "-field=access_token", e.at("token/team-a"))) != http.StatusOK {
		t.Error("the token does not work")
	}
	somebody.refused(http.StatusForbidden, "read", e.at("config"))
	somebody.refused(http.StatusForbidden, "read", e.at("token"))
	for name, other := range map[string]string{"nomad_job_id": "other", "nomad_namespace": "other", "aud": "consul.io"} {
		if _, r := e.login(mount, task.Vault.Role, nomad.sign(t, changed(claims, name, other))); r.code == 0 {
			t.Errorf("who has another %s is let in", name)
		}
	}
	if _, r := e.login(mount, task.Vault.Role, newIssuer(t, "/.well-known/jwks.json").sign(t, claims)); r.code == 0 {
		t.Error("who has another signature is let in")
	}
}

// TestNomadTemplate renders the job's template with the library that Nomad has, and Nomad's settings: the file has a live
// token at every moment.
func TestNomadTemplate(t *testing.T) {
	verifyOnly(t, "builds tools/nomad, renewals for two minutes")
	t.Parallel()
	// A renewal every 31 s, when 9 s of the token are left. Of Redox's 300 s it is 29 s.
	const lifetime, renewals = 40 * time.Second, 2
	e := newAgentEngine(t, lifetime)
	e.must("write", e.at("roles/team-a"), "leased=false")
	var job struct {
		TaskGroups []struct {
			Tasks []struct {
				Templates []struct {
					EmbeddedTmpl, DestPath, Perms string
					ErrMissingKey                 bool
				}
			}
		}
	}
	nomadJob(t, &job)
	template := job.TaskGroups[0].Tasks[0].Templates[0]
	x := &exampleFolder{e, "team-a", t.TempDir()}
	// As Nomad sets it (in its source, client/allocrunner/taskrunner/template and client/config), but for what watch asks for:
	// permissions and a log.
	x.put("config.hcl", fmt.Sprintf(`
vault {
  renew_token = false
}
wait {
  min = "5s"
  max = "4m"
}
template {
  contents             = %q
  destination          = %q
  error_on_missing_key = %v
  perms                = "0600"
  exec {
    command = ["./on-change"]
  }
}
`, strings.ReplaceAll(template.EmbeddedTmpl, "redox/", e.at("")), template.DestPath, template.ErrMissingKey), 0o600)
	x.put("on-change", "#!/bin/sh\necho changed >>changes.log\n", 0o700)
	reader := e.as("reader", map[string]string{"token/team-a": "read"})
	stop := x.startConsulTemplate(reader)
	tokens := x.watch(template.DestPath, "changes.log", lifetime, renewals)
	stop()
	if n := e.reads(e.at("token/team-a")); n > tokens+1 {
		t.Errorf("%d reads for %d tokens", n, tokens)
	}
	e.usedBy(tokens, 1)
}

// startConsulTemplate runs consul-template in the folder.
func (x *exampleFolder) startConsulTemplate(reader person) (stop func()) {
	x.t.Helper()
	binary := filepath.Join(x.t.TempDir(), "consul-template")
	build := exec.Command("go", "build", "-C", "../../tools/nomad", "-o", binary, "github.com/hashicorp/consul-template")
	if text, err := build.CombinedOutput(); err != nil {
		x.t.Fatalf("consul-template can't be built: %v\n%s", err, text)
	}
	command := exec.Command(binary, "-config=config.hcl", "-log-level=debug")
	command.Dir = x.directory
	command.Env = environment(x.directory, "VAULT_ADDR="+x.vault.address, "VAULT_TOKEN="+reader.token)
	return startProcess(x.t, "consul-template", command).Stop
}
