// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"maps"
	"regexp"
	"runtime"
	"slices"
	"testing"
)

func TestInfo(t *testing.T) {
	m := newMount(t)
	data := m.read("info")
	if data["version"] != version || data["commit"] != commit || data["go_version"] != runtime.Version() {
		t.Errorf("info reads %v", data)
	}
	if got, _ := data["algorithms"].([]string); !slices.Equal(got, []string{"RS384", "ES384"}) {
		t.Errorf("the algorithms are %v", data["algorithms"])
	}
	names := slices.Sorted(maps.Keys(data))
	if !slices.Equal(names, []string{"algorithms", "commit", "go_version", "version"}) {
		t.Errorf("info has the fields %v", names)
	}
	if m.storage.readCount() != 0 {
		t.Error("info reads storage")
	}
}

// Vault refuses to run a plugin whose own version is not the one that it is registered with, and takes semantic
// versions only.
func TestVersion(t *testing.T) {
	m := newMount(t)
	if got := m.PluginVersion().Version; got != version {
		t.Errorf("Vault is told the version %q, users %q", got, version)
	}
	if !regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`).MatchString(version) {
		t.Errorf("%q is no semantic version with a leading v", version)
	}
}
