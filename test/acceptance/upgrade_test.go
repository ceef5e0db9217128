// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// TestUpgrade puts the next version of the plugin in the place of the running one, as README.md says, and then goes back.
// Keys, their versions, roles and configuration are the same afterwards; and a token read before still works.
func TestUpgrade(t *testing.T) {
	e := newReadyEngine(t)
	e.must("write", e.at("roles/team"), "scope=a")
	e.must("write", "-f", e.at("keys/main/rotate"))
	token := e.accessToken("token/team")
	before := map[string]string{}
	paths := []string{"keys/main", "config", "roles/team", "jwks"}
	read := func(path string) string { return e.must("read", "-format=raw", e.at(path)) }
	for _, path := range paths {
		before[path] = withoutRequestID(read(path))
	}

	const next = "v0.0.1"
	file := pluginFile + "-" + next
	build := exec.Command("../../scripts/build", file)
	build.Env = append(os.Environ(), "VERSION="+next)
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the plugin failed: %v\n%s", err, text)
	}
	e.must("plugin", "register", "-sha256="+checksum(t, file), "-version="+next, "-command="+pluginName+"-"+next,
		"secret", pluginName)
	for _, version := range []string{next, pluginVersion} {
		e.must("secrets", "tune", "-plugin-version="+version, e.path)
		e.must("plugin", "reload", "-plugin="+pluginName)
		if runs := e.data("read", e.at("info"))["version"]; runs != version {
			t.Errorf("the plugin that runs is %v, not %s", runs, version)
		}
		for _, path := range paths {
			if after := withoutRequestID(read(path)); after != before[path] {
				t.Errorf("%s was\n%s\nand is\n%s", path, before[path], after)
			}
		}
		if e.opens(token) != http.StatusOK || e.opens(e.accessToken("token/team")) != http.StatusOK {
			t.Errorf("a token does not work with %s", version)
		}
	}
	e.must("plugin", "deregister", "-version="+next, "secret", pluginName) // the tests after this one want the other
}

// withoutRequestID leaves out of an answer what is different each time.
func withoutRequestID(answer string) string {
	return regexp.MustCompile(`"request_id":"[^"]*"`).ReplaceAllString(answer, "")
}
