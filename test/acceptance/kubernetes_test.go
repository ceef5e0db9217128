// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const exampleManifests = "../../examples/kubernetes"

// TestKubernetesExamples runs the README's commands for the engine, reads the token as a pod with that policy does, and
// lets tools/kubernetes check the manifests, and whether their programs understand Vault's answer.
func TestKubernetesExamples(t *testing.T) {
	verifyOnly(t, "builds tools/kubernetes")
	t.Parallel()
	e := newReadyEngine(t)
	text, err := os.ReadFile(filepath.Join(exampleManifests, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, opened := strings.Cut(string(text), "```sh\n")
	commands, _, closed := strings.Cut(rest, "```")
	if !opened || !closed {
		t.Fatal("the README has no block of commands")
	}
	directory, policy := t.TempDir(), e.path+"-client"
	rules, err := os.ReadFile(filepath.Join(exampleManifests, "policy.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	own := strings.NewReplacer("redox/", e.at(""), "policy write redox-client", "policy write "+policy)
	if err := os.WriteFile(filepath.Join(directory, "policy.hcl"), []byte(own.Replace(string(rules))), 0o600); err != nil {
		t.Fatal(err)
	}
	e.bash(directory, own.Replace(commands))

	pod := person{t, e.vault, strings.TrimSpace(e.must("token", "create", "-policy="+policy, "-field=token"))}
	response, answer := pod.http(http.MethodGet, e.at("token/team-a"), "")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("a pod that reads the token is answered with %s", response.Status)
	}
	token := strings.TrimSpace(pod.must("read", "-field=access_token", e.at("token/team-a")))
	if status := e.opens(token); status != http.StatusOK {
		t.Errorf("Redox answers %d to the pod's token", status)
	}
	for _, path := range []string{"token", "token/team-b", "config", "keys/main"} {
		if response, _ := pod.http(http.MethodGet, e.at(path), ""); response.StatusCode != http.StatusForbidden {
			t.Errorf("a pod that reads %s is answered with %s", path, response.Status)
		}
	}

	check := exec.CommandContext(t.Context(), "go", "run", "-C", "../../tools/kubernetes", ".", "-answer", "../../examples/kubernetes")
	check.Stdin = strings.NewReader(answer)
	printed, err := check.CombinedOutput()
	output.record("tools/kubernetes", string(printed))
	if err != nil || !strings.Contains(string(printed), "the answer is understood") {
		t.Errorf("%v\n%s", err, printed)
	}
}
