// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// TestTeamsAreKeptApart gives a team what it may have, and nothing else.
func TestTeamsAreKeptApart(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	for _, team := range []string{"team-a", "team-b"} {
		e.register(team+"-client", "main")
		e.must("write", e.at("roles/"+team), "client_id="+team+"-client")
	}
	team := e.as("team-a", map[string]string{"token/team-a": "read update", "check/team-a": "update"})

	if client := team.data("read", e.at("token/team-a"))["client_id"]; client != "team-a-client" {
		t.Errorf("the team's token is of %v", client)
	}
	team.must("write", "-f", e.at("token/team-a"))
	team.must("write", "-f", e.at("check/team-a"))
	for _, command := range [][]string{
		{"read", e.at("token")},
		{"read", e.at("token/team-b")},
		{"write", "-f", e.at("token/team-b")},
		{"write", "-f", e.at("check/team-b")},
		{"write", "-f", e.at("assertion/team-a")},
		{"read", e.at("config")},
		{"write", e.at("config"), "client_id=other"},
		{"delete", e.at("config")},
		{"list", e.at("keys")},
		{"read", e.at("keys/main")},
		{"write", "-f", e.at("keys/other")},
		{"write", e.at("keys/other/import"), "private_key=x"},
		{"delete", e.at("keys/main")},
		{"list", e.at("roles")},
		{"read", e.at("roles/team-a")},
		{"write", e.at("roles/team-a"), "client_id=other"},
		{"delete", e.at("roles/team-a")},
		{"read", e.at("info")},
	} {
		team.refused(http.StatusForbidden, command...)
	}
}

// TestOperatorWithoutRoot sets everything up with a policy that names the engine's paths only.
func TestOperatorWithoutRoot(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{})
	const all = "create read update delete list"
	operator := e.as("operator", map[string]string{
		"config": all, "keys": "list", "keys/*": all, "roles": "list", "roles/*": all, "check": "update", "check/*": "update", "info": "read",
	})
	operator.must("write", e.at("keys/main"), "algorithm=ES384")
	e.register("client-1", "main")
	operator.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL)
	operator.must("write", e.at("roles/team"), "scope=a")
	for _, path := range []string{"check", "check/team"} {
		if check := operator.data("write", "-f", e.at(path)); check["ok"] != true {
			t.Errorf("%s: %v; %v", path, check["cause"], check["action"])
		}
	}
	for path, want := range map[string]string{"keys": "main", "roles": "team"} {
		if names := operator.must("list", e.at(path)); !strings.Contains(names, want) {
			t.Errorf("%s: %s", path, names)
		}
	}
	info := operator.data("read", e.at("info"))
	if info["version"] != pluginVersion {
		t.Errorf("the plugin is %v, registered as %s", info["version"], pluginVersion)
	}
	if text := operator.refused(http.StatusBadRequest, "delete", e.at("config")); !strings.Contains(text, "team") {
		t.Error(text)
	}
	operator.must("delete", e.at("roles/team"))
	operator.must("write", e.at("keys/main"), "deletion_allowed=true")
	if text := operator.refused(http.StatusBadRequest, "delete", e.at("keys/main")); !strings.Contains(text, "config") {
		t.Error(text)
	}
	operator.must("delete", e.at("config"))
	operator.must("delete", e.at("keys/main"))
	operator.refused(http.StatusForbidden, "read", e.at("token"))
}

// TestJWKS is what Redox itself would read: public keys, without authentication.
func TestJWKS(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("keys/second"), "algorithm=RS384", "rsa_bits=2048")
	nobody := person{t, e.vault, ""}
	for path, keys := range map[string]int{"jwks": 2, "jwks/main": 1} {
		response, text := nobody.http(http.MethodGet, e.at(path), "")
		if response.StatusCode != http.StatusOK || strings.Count(text, `"kid"`) != keys || !strings.HasPrefix(text, `{"keys":[`) {
			t.Errorf("%s: %d %s", path, response.StatusCode, text)
		}
		for header, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "public, max-age=60"} {
			if got := response.Header.Values(header); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q", path, header, got)
			}
		}
	}
	if response, _ := nobody.http(http.MethodGet, e.at("jwks/none"), ""); response.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown key is answered with %d", response.StatusCode)
	}
	for method, path := range map[string]string{http.MethodPost: "jwks", http.MethodGet: "keys/main", http.MethodPut: "token"} {
		if response, _ := nobody.http(method, e.at(path), "{}"); response.StatusCode == http.StatusOK {
			t.Errorf("nobody may %s %s", method, path)
		}
	}
	if raw := e.must("read", "-format=raw", e.at("jwks/main")); !strings.HasPrefix(raw, `{"keys":[`) {
		t.Errorf("vault read -format=raw: %s", raw)
	}
}

// TestJWKSURL lets Redox read the public key from Vault, with and without the jku header.
func TestJWKSURL(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	jwksURL := e.vault.address + "/v1/" + e.at("jwks/main")
	e.redox.CreateAPIKey(sandbox.APIKey{ID: "by-url", Name: "by-url", JWKSURL: jwksURL})
	e.must("write", e.at("config"), "client_id=by-url")
	e.must("write", e.at("roles/with-jku"), "jku="+jwksURL)
	e.must("write", e.at("roles/other-jku"), "jku="+jwksURL+"?other")
	for role, want := range map[string]bool{"with-jku": true, "other-jku": false} {
		if check := e.data("write", "-f", e.at("check/"+role)); check["ok"] != want {
			t.Errorf("%s: %v; %v", role, check["cause"], check["action"])
		}
	}
	e.accessToken("token")
	if n := e.redox.Counters().JWKSFetches.Succeeded; n == 0 {
		t.Error("the local Redox did not read the JWKS URL")
	}
}

// TestHelp reads the help as somebody does who has never seen the plugin.
func TestHelp(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{})
	overview := e.must("path-help", e.path)
	for _, want := range []string{"vault write redox/config", "^token(/", "^config$", "^jwks"} {
		if !strings.Contains(overview, want) {
			t.Errorf("the overview has no %q:\n%s", want, overview)
		}
	}
	if text := e.must("path-help", e.at("config")); !strings.Contains(text, "client_id (string)") {
		t.Errorf("the help of config:\n%s", text)
	}
}
