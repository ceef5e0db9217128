// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestTroubleshootingCommands runs every block of commands of docs/troubleshooting.md as it is printed there, on a mount
// where things are as the page assumes: a key "main" with a pending version, and a role "team-a".
func TestTroubleshootingCommands(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("roles/team-a"), "disabled=true")
	e.must("write", "-f", e.at("keys/main/rotate"))
	for _, block := range documentedCommands(t, "troubleshooting.md") {
		if strings.Contains(block, "keys/main/rotate") {
			e.must("write", "-f", e.at("keys/main/abandon")) // at most one version is pending
		}
		if strings.Contains(block, "force=true") && strings.Contains(block, "keys/main/retire") {
			e.must("write", e.at("keys/main/activate"), "force=true")
			e.must("write", "-f", e.at("keys/main/rotate"))
		}
		e.must("write", e.at("config"), "base_url="+e.redox.URL) // a block before may have set the real one
		e.bash(t.TempDir(), strings.ReplaceAll(block, "redox/", e.path+"/"))
	}
	e.must("write", e.at("config"), "base_url="+e.redox.URL)
	e.register("client-1", "main") // some of the commands are for a key that nobody needs
	if check := e.data("write", "-f", e.at("check/team-a")); check["ok"] != true {
		t.Errorf("after the commands: %v", check["cause"])
	}
}

// TestTroubleshootingWordsOfVault brings Vault to say what the page shows as Vault's words, the indented lines.
func TestTroubleshootingWordsOfVault(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "\n## What Vault says\n")
	words := regexp.MustCompile(`(?m)^    (.+)$`).FindAllStringSubmatch(part, -1)
	if len(words) < 10 {
		t.Fatalf("the page has %d lines of Vault's words", len(words))
	}

	s := newOwnServer(t)
	root := person{t, s, rootToken}
	var said strings.Builder
	try := func(p person, arguments ...string) {
		t.Helper()
		r := p.try(arguments...)
		if r.code == 0 {
			t.Errorf("vault %s was to fail", strings.Join(arguments, " "))
		}
		said.WriteString(r.stdout + r.stderr)
	}
	root.mount("redox")
	root.must("write", "redox/keys/main", "algorithm=ES384")
	learnStoredKeys(t, s)

	try(person{t, s, ""}, "read", "redox/token")
	try(root, "read", "redox/nothing")
	try(root, "read", "redox/check")
	try(root, "write", "redox/check")
	root.must("plugin", "register", "-sha256="+strings.Repeat("0", 64), "-version="+pluginVersion, "-command="+pluginName, "secret", "another-sum")
	try(root, "secrets", "enable", "-path=one", "another-sum")
	try(root, "plugin", "register", "-sha256="+strings.Repeat("0", 64), "secret", "no-file")
	sum := strings.TrimSpace(root.must("plugin", "info", "-field=sha256", "-version="+pluginVersion, "secret", pluginName))
	try(root, "plugin", "register", "-sha256="+sum, "-version=v9.9.9", "secret", pluginName)

	// A plugin process that ends is started again with the next request.
	endPlugin := func() {
		log, err := os.ReadFile(s.LogFile())
		if err != nil {
			t.Fatal(err)
		}
		started := regexp.MustCompile(`plugin started: .*pid=([0-9]+)`).FindAllSubmatch(log, -1)
		if len(started) == 0 {
			t.Fatal("the log does not say that a plugin process was started")
		}
		pid, err := strconv.Atoi(string(started[len(started)-1][1]))
		if err != nil {
			t.Fatal(err)
		}
		exits := strings.Count(string(log), "plugin process exited")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		await(t, "Vault to notice that the plugin process has ended", func() bool {
			log, err := os.ReadFile(s.LogFile())
			return err == nil && strings.Count(string(log), "plugin process exited") > exits
		})
	}
	endPlugin()
	root.must("read", "redox/keys/main")
	// Unless it is not in the catalog any more.
	root.must("plugin", "deregister", "-version="+pluginVersion, "secret", pluginName)
	endPlugin()
	try(root, "read", "redox/keys/main")

	root.must("operator", "seal")
	root.refused(http.StatusServiceUnavailable, "read", "redox/token")
	try(root, "read", "redox/token")
	log, err := os.ReadFile(s.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	said.Write(log)
	for _, line := range words {
		if !strings.Contains(said.String(), strings.ReplaceAll(line[1], "v0.0.0-dev", pluginVersion)) {
			t.Errorf("Vault did not say %q", line[1])
		}
	}
}
