// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// roleDefaults is what a role reads that has nothing of its own.
var roleDefaults = map[string]any{
	"client_id": "", "key": "", "scope": "", "jku": "", "min_ttl": 0, "leased": false, "disabled": false,
}

func (m *mount) roleReads(name string, changed map[string]any) {
	m.t.Helper()
	want := maps.Clone(roleDefaults)
	maps.Copy(want, changed)
	if got := m.read("roles/" + name); !maps.Equal(got, want) {
		m.t.Errorf("role %s reads\n%v, expected\n%v", name, got, want)
	}
}

func TestRoleLife(t *testing.T) {
	m := newMount(t)
	if data := m.read("roles/team"); data != nil {
		t.Errorf("a role that is not there reads %v", data)
	}
	m.remove("roles/team") // nothing to delete is no error
	if names := m.list("roles/"); len(names) != 0 {
		t.Errorf("the roles are %v", names)
	}
	m.write("roles/team", nil) // needs no configuration yet
	m.roleReads("team", nil)
	m.write("roles/other", map[string]any{"client_id": "client-2"})
	if names := m.list("roles"); !slices.Equal(names, []string{"other", "team"}) {
		t.Errorf("the roles are %v", names)
	}
	m.remove("roles/team")
	if names := m.list("roles/"); !slices.Equal(names, []string{"other"}) {
		t.Errorf("the roles are %v", names)
	}
	m.roleReads("other", map[string]any{"client_id": "client-2"})
}

func TestRoleUpdateChangesOnlyWhatItNames(t *testing.T) {
	m := newMount(t)
	m.write("keys/main", map[string]any{"algorithm": algorithmES384})
	all := map[string]any{
		"client_id": "client-1", "key": "main", "scope": "a b", "jku": "https://jku.example/jwks",
		"min_ttl": 15, "leased": true, "disabled": true,
	}
	if len(all) != len(roleRows) {
		t.Fatalf("%d fields are tried, of %d", len(all), len(roleRows))
	}
	m.write("roles/team", all)
	m.roleReads("team", all)
	for field, value := range all {
		for _, unset := range []any{nil, "", roleDefaults[field]} {
			m.write("roles/team", map[string]any{field: unset})
			want := maps.Clone(all)
			want[field] = roleDefaults[field]
			m.roleReads("team", want)
			m.write("roles/team", map[string]any{field: value})
			m.roleReads("team", all)
		}
	}
}

// Each setting is the role's own if it has one, else the configuration's.
func TestRoleInheritance(t *testing.T) {
	m := newMount(t)
	m.write("keys/shared", map[string]any{"algorithm": algorithmES384, "kid": "shared-kid"})
	m.write("keys/own", map[string]any{"algorithm": algorithmES384, "kid": "own-kid"})
	m.write("config", map[string]any{
		"client_id": "shared-client", "key": "shared", "scope": "shared-scope", "jku": "https://shared.example",
		"audience": "redox",
	})
	own := map[string]any{"client_id": "own-client", "key": "own", "scope": "own-scope", "jku": "https://own.example"}
	// Where each setting shows in what is signed.
	shows := map[string]func(answer, jwtHeader, claims map[string]any) any{
		"client_id": func(_, _, claims map[string]any) any { return claims["sub"] },
		"key":       func(_, header, _ map[string]any) any { return strings.TrimSuffix(header["kid"].(string), "-kid") },
		"scope":     func(answer, _, _ map[string]any) any { return answer["scope"] },
		"jku":       func(_, header, _ map[string]any) any { return header["jku"] },
	}
	shared := m.read("config")
	check := func(path string, of map[string]any) {
		t.Helper()
		answer := m.write(path, nil)
		parts := strings.Split(answer["client_assertion"].(string), ".")
		header, claims := decodePart(t, parts[0]), decodePart(t, parts[1])
		for field, show := range shows {
			want := shared[field]
			if value, has := of[field]; has {
				want = value
			}
			if got := show(answer, header, claims); got != want {
				t.Errorf("%s with a role of %v: %s is %v, expected %v", path, of, field, got, want)
			}
		}
		if claims["aud"] != "redox" {
			t.Errorf("%s: aud is %v", path, claims["aud"])
		}
	}
	check("assertion", nil)
	for subset := range 1 << len(own) {
		of := map[string]any{}
		for i, field := range slices.Sorted(maps.Keys(own)) {
			if subset&(1<<i) != 0 {
				of[field] = own[field]
			}
		}
		m.write("roles/team", of)
		check("assertion/team", of)
		m.remove("roles/team")
	}
}

// decodePart reads a part of a JWT.
func decodePart(t *testing.T, part string) map[string]any {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	decoded := map[string]any{}
	if err := json.Unmarshal(text, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

// Tokens of sandbox and Redox live 300 s, and ttl is what is left until min_ttl.
func TestRoleMinTTL(t *testing.T) {
	m := newReadyMount(t)
	m.write("config", map[string]any{"min_ttl": 20})
	for _, c := range []struct {
		own  any
		want int64
	}{{nil, 280}, {50, 250}, {1, 299}, {"1h", 225}, {0, 280}} {
		m.write("roles/team", map[string]any{"min_ttl": c.own})
		if got := m.read("token/team")["ttl"]; got != c.want {
			t.Errorf("with a min_ttl of %v the ttl is %v, expected %d", c.own, got, c.want)
		}
	}
}

func TestRoleDisabled(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", nil)
	m.read("token/team")
	m.write("roles/team", map[string]any{"disabled": true})
	for _, operation := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		m.refusedWith(operation, "token/team", nil, `role "team" is disabled`, "disabled=false to roles/team")
	}
	m.refusedWith(logical.UpdateOperation, "assertion/team", nil, `role "team" is disabled`)
	if data := m.write("check/team", nil); data["ok"] != false || data["cause"] != `disabled: role "team" is disabled` {
		t.Errorf("check of a disabled role answers %v", data)
	}
	m.read("token") // the configuration's own is another matter
	m.write("roles/team", map[string]any{"disabled": false})
	m.read("token/team")
}

func TestRoleChangesDropItsTokenOnly(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/a", nil)
	m.write("roles/b", nil)
	a, b := m.read("token/a")["access_token"], m.read("token/b")["access_token"]
	m.write("roles/a", map[string]any{"scope": "fhir:staging"})
	if m.read("token/a")["access_token"] == a {
		t.Error("with another scope the token is served still")
	}
	if m.read("token/b")["access_token"] != b {
		t.Error("after a write of another role the token is no more served")
	}
	m.remove("roles/a")
	m.refusedWith(logical.ReadOperation, "token/a", nil, `there is no role named "a"`, "roles/a")
}

func TestRoleLeased(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", map[string]any{"leased": true})
	response, err := m.request(logical.ReadOperation, "token/team", nil)
	if err != nil || response.Secret == nil || response.Secret.TTL <= 0 || response.Secret.Renewable {
		t.Fatalf("a leased role's token is answered as %+v, %v", response, err)
	}
	m.write("roles/team", map[string]any{"leased": false})
	response, err = m.request(logical.ReadOperation, "token/team", nil)
	if err != nil || response.Secret != nil {
		t.Errorf("a token is leased no more, but answered with a lease: %+v, %v", response, err)
	}
}

// The key of a role can't be deleted, but a snapshot may be restored without it.
func TestRoleWhoseKeyIsGone(t *testing.T) {
	m := newReadyMount(t)
	m.write("keys/own", map[string]any{"algorithm": algorithmES384, "deletion_allowed": true})
	m.write("roles/team", map[string]any{"key": "own"})
	m.refusedWith(logical.DeleteOperation, "keys/own", nil, `key "own" is used by roles/team`)
	if err := m.storage.inner.Delete(t.Context(), keysStoragePrefix+"own"); err != nil {
		t.Fatal(err)
	}
	m.refusedWith(logical.ReadOperation, "token/team", nil, `the signing key "own" does not exist`, "roles/team or config")
	m.refusedWith(logical.UpdateOperation, "roles/team", map[string]any{"scope": "x"}, `no signing key named "own"`)
	m.write("roles/team", map[string]any{"key": nil})
	m.read("token/team")
}

func TestRoleNames(t *testing.T) {
	m := newReadyMount(t)
	operations := []struct {
		operation logical.Operation
		path      string
	}{
		{logical.UpdateOperation, "roles/"}, {logical.ReadOperation, "roles/"}, {logical.ReadOperation, "token/"},
		{logical.UpdateOperation, "token/"}, {logical.UpdateOperation, "assertion/"}, {logical.DeleteOperation, "roles/"},
	}
	for _, name := range []string{
		"a", "A", "0", "_", "a.b", "a-b", "a_b", "v1.2.3-rc_1", "import", strings.Repeat("a", 128),
	} {
		for _, o := range operations {
			m.answered(o.operation, o.path+name, nil)
		}
	}
	for name, says := range map[string]string{
		"a..b":                   "two dots in a row; choose one with single dots",
		strings.Repeat("a", 129): "longer than 128 characters; choose a shorter one",
	} {
		for _, o := range operations {
			m.refusedWith(o.operation, o.path+name, nil, "role: the name", says)
		}
		if data := m.write("check/"+name, nil); data["ok"] != false {
			t.Errorf("check of the role %s answers %v", name, data)
		}
	}
	for _, name := range []string{
		"..", ".", ".a", "a.", "-a", "a-", "a/b", "a/", "/a", "a b", "ä", "a\n", "a\x00b", "a%2fb", "../config",
	} {
		for _, o := range operations {
			if status, err := m.failed(o.operation, o.path+name, nil); !errors.Is(err, logical.ErrUnsupportedPath) {
				t.Errorf("%s %s%q failed with %v, %d", o.operation, o.path, name, err, status)
			}
		}
	}
}
