// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/testvault"
)

// TestCatalog looks at all places where Vault shows a plugin's version, and compares each with what the binary says itself.
func TestCatalog(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.checkCatalog(pluginVersion, checksum(t, pluginFile))

	// Vault asks the plugin for its version, and lets nobody register it as another one.
	r := e.try("plugin", "register", "-sha256="+checksum(t, pluginFile), "-version=v99.0.0", "secret", pluginName)
	if r.code == 0 || !strings.Contains(r.stderr, "v99.0.0") || !strings.Contains(r.stderr, pluginVersion) {
		t.Errorf("registered as another version: exit status %d\n%s", r.code, r.stderr)
	}
}

// TestReleaseDocumentation makes a release of what is here, as docs/internals/release.md says, and then installs it into Vault with
// the commands of docs/install.md. It has the version and the commit that it was made with.
func TestReleaseDocumentation(t *testing.T) {
	verifyOnly(t, "makes a release")
	e := newReadyEngine(t)
	platform := runtime.GOOS + "/" + runtime.GOARCH
	page := readSections(t, "install.md")
	get, mount := page.take("Get the plugin"), page.take("Register and mount it")
	again := documentedCommands(t, "internals/release.md")
	if len(get) != 1 || len(mount) != 2 || len(again) != 1 {
		t.Fatalf("there are %d, %d and %d blocks of commands", len(get), len(mount), len(again))
	}
	prepare := func(block string) string {
		return strings.NewReplacer(
			"linux_amd64", strings.ReplaceAll(platform, "/", "_"),
			"/etc/vault.d/plugins", filepath.Dir(pluginFile),
			"redox/info", e.at("info"),
		).Replace(block)
	}
	// What is not committed yet is in the release, too.
	clone := filepath.Join(t.TempDir(), "clone")
	git := func(arguments ...string) string {
		t.Helper()
		command := exec.Command("git", arguments...)
		command.Dir = clone
		text, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(arguments, " "), err, text)
		}
		return strings.TrimSpace(string(text))
	}
	if text, err := exec.Command("../../scripts/snapshot", clone).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	git("tag", "v1.2.3")
	download := t.TempDir()
	e.bash(clone, "PLATFORMS="+platform+" scripts/release v1.2.3 "+download+"/release")
	download += "/release"

	e.bash(download, prepare(get[0]))
	e.bash(download, prepare(mount[0]))
	t.Cleanup(func() { // the tests after this one want the other version
		e.must("secrets", "tune", "-plugin-version="+pluginVersion, e.path)
		e.must("plugin", "reload", "-plugin="+pluginName)
		e.must("plugin", "deregister", "-version=v1.2.3", "secret", pluginName)
	})
	e.must("secrets", "tune", "-plugin-version=v1.2.3", e.path)
	e.must("plugin", "reload", "-plugin="+pluginName)
	e.bash(download, prepare(mount[1]))
	e.checkCatalog("v1.2.3", checksum(t, filepath.Join(download, pluginName)))
	if is, want := e.data("read", e.at("info"))["commit"], git("rev-parse", "--short=12", "HEAD"); is != want {
		t.Errorf("the commit is %v, not %s", is, want)
	}

	// diff fails, and so the block, when the release that is made again is not the same.
	e.bash(clone, "export PLATFORMS="+platform+"\n"+strings.ReplaceAll(again[0], "~/Downloads", download))
}

// checkCatalog compares the version and the checksum in Vault's catalog, and those of what runs in this mount.
func (e *engine) checkCatalog(version, sum string) {
	e.t.Helper()
	var catalog struct{ Details []map[string]any }
	e.decode(&catalog, "plugin", "list", "-format=json", "-detailed", "secret")
	var listed []any
	for _, plugin := range catalog.Details {
		if plugin["name"] == pluginName {
			listed = append(listed, plugin["version"])
		}
	}
	if !slices.Contains(listed, any(version)) {
		e.t.Errorf("vault plugin list has %v, not %s", listed, version)
	}
	var info map[string]any
	e.decode(&info, "plugin", "info", "-format=json", "-version="+version, "secret", pluginName)
	if info["version"] != version || info["sha256"] != sum || info["builtin"] != false {
		e.t.Errorf("vault plugin info has %v, not %s with %s", info, version, sum)
	}
	var mounts map[string]struct {
		Running string `json:"running_plugin_version"`
		Sum     string `json:"running_sha256"`
	}
	e.decode(&mounts, "secrets", "list", "-format=json", "-detailed")
	if mount := mounts[e.path+"/"]; mount.Running != version || mount.Sum != sum {
		e.t.Errorf("vault secrets list has %+v, not %s with %s", mount, version, sum)
	}
	if is := e.data("read", e.at("info"))["version"]; is != version {
		e.t.Errorf("the plugin says that it is %v, not %s", is, version)
	}
}

// decode reads what a vault command prints with -format=json.
func (e *engine) decode(into any, arguments ...string) {
	e.t.Helper()
	if text := e.must(arguments...); json.Unmarshal([]byte(text), into) != nil {
		e.t.Fatalf("vault %s printed %s", strings.Join(arguments, " "), text)
	}
}

func checksum(t testing.TB, file string) string {
	t.Helper()
	sum, err := testvault.Checksum(file)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
