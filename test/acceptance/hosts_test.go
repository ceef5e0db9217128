// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// lacking lists what a host can't do, or what isn't known of it: the test that looks at it, on which hosts, and what is the matter. Any other test has to
// pass on all.
var lacking = map[string]struct {
	here   func() bool
	reason string
}{
	"TestProxyLogsInAgain": {
		func() bool { return host.OpenBao },
		"OpenBao's Proxy keeps a token that was revoked until it would be renewed",
	},
	"TestStandbysServeReads": {
		func() bool { return !host.StandbysRead() },
		"standbys of Vault's community edition forward all requests",
	},
	"TestNamespaces": {
		func() bool { return !host.OpenBao },
		"namespaces are for Vault Enterprise",
	},
	"TestHostUpgrade": {
		func() bool { return os.Getenv("OLDER_VAULT_BIN") == "" },
		"there is no older one to take over from (scripts/compat has one)",
	},
}

// skipWhereLacking skips a test that is on the list for the host that tests run on.
func skipWhereLacking(t *testing.T) {
	t.Helper()
	row, listed := lacking[t.Name()]
	if !listed {
		t.Fatal("it is not on the list of what hosts can't do")
	}
	if row.here() {
		t.Skipf("not on %s: %s", host, row.reason)
	}
}

// TestStandbysServeReads reads tokens on all nodes of a cluster whose standbys answer themselves: each mints its own, follows a
// rotation, a changed configuration and a disabled role, leaves leases to the active node, and loses no token on the way.
func TestStandbysServeReads(t *testing.T) {
	skipWhereLacking(t)
	t.Parallel()
	nodes := newCluster(t)
	e := engineAt(nodes[0])
	on := make([]person, len(nodes))
	for i, node := range nodes {
		on[i] = node.operator()
		await(t, "node "+node.name+" to answer", func() bool { return on[i].try("token", "lookup").code == 0 })
	}
	// everywhere reads a token on each node.
	everywhere := func(path string) []map[string]any {
		var tokens []map[string]any
		for i := range on {
			tokens = append(tokens, on[i].data("read", path))
		}
		return tokens
	}
	// follow waits until each node's answer has a value in a field.
	follow := func(what, path, field string, value any) {
		for i := range on {
			await(t, fmt.Sprintf("node %s: %s", nodes[i].name, what), func() bool {
				r := on[i].try("read", "-format=json", path)
				var s secret
				return r.code == 0 && json.Unmarshal([]byte(r.stdout), &s) == nil && s.Data[field] == value
			})
		}
	}

	e.must("write", "redox/roles/team", "client_id=client-1")
	follow("the role", "redox/token/team", "client_id", "client-1")
	before := e.redox.Counters().Token.Issued
	first, second := everywhere("redox/token/team"), everywhere("redox/token/team")
	seen := map[any]bool{}
	for i, token := range first {
		if seen[token["access_token"]] || token["access_token"] != second[i]["access_token"] || e.opens(fmt.Sprint(token["access_token"])) != http.StatusOK {
			t.Errorf("node %d has another's token, gives another one at the second read, or one that does not work", i)
		}
		seen[token["access_token"]] = true
	}
	if n := e.redox.Counters().Token.Issued; n != before {
		t.Errorf("%d tokens were minted although each node has one", n-before)
	}

	key := e.data("read", "redox/keys/main")
	pending := on[2].data("write", "-f", "redox/keys/main/rotate") // is forwarded
	set := fmt.Sprintf(`{"keys":[%s,%s]}`, key["public_jwk"], pending["pending_public_jwk"])
	if err := e.redox.SetJWKSet("client-1", json.RawMessage(set)); err != nil {
		t.Fatal(err)
	}
	on[1].must("write", "-f", "redox/keys/main/activate")
	nodes[0].learnKeys()
	for i, token := range everywhere("redox/token/team") {
		if token["access_token"] != first[i]["access_token"] {
			t.Errorf("node %d: the rotation has cost a token", i)
		}
	}
	e.must("write", "redox/config", "scope=changed")
	follow("the changed scope", "redox/token/team", "scope", "changed")
	for i, token := range everywhere("redox/token/team") {
		if token["kid"] != pending["pending_kid"] {
			t.Errorf("node %d: %v signs", i, token["kid"])
		}
	}

	// Redox knows a version that no node signs with: the active one finds it.
	next := e.data("write", "-f", "redox/keys/main/rotate")
	if err := e.redox.SetJWKSet("client-1", json.RawMessage(fmt.Sprintf(`{"keys":[%s]}`, next["pending_public_jwk"]))); err != nil {
		t.Fatal(err)
	}
	e.must("write", "redox/config", "scope=replaced")
	follow("the replaced JWK", "redox/token/team", "kid", next["pending_kid"])
	nodes[0].learnKeys()

	e.must("write", "redox/roles/team", "leased=true")
	for i := range on {
		var lease secret
		await(t, "the leased role on node "+nodes[i].name, func() bool {
			lease = on[i].secret("read", "redox/token/team")
			return lease.LeaseID != ""
		})
		e.must("lease", "lookup", lease.LeaseID)
	}
	e.must("write", "redox/roles/team", "disabled=true")
	for i := range on {
		await(t, "the disabled role on node "+nodes[i].name, func() bool {
			return strings.Contains(on[i].try("read", "redox/token/team").stderr, "disabled")
		})
	}
}

// TestNamespaces mounts the engine in a namespace: its keys and tokens are there, and the JWKS at that namespace's path.
func TestNamespaces(t *testing.T) {
	skipWhereLacking(t)
	e := newEngine(t, sandbox.Options{})
	e.must("namespace", "create", "clinic")
	t.Cleanup(func() { e.must("namespace", "delete", "clinic") })
	inside := []string{"-namespace=clinic"}
	run := func(command string, arguments ...string) string {
		t.Helper()
		return e.must(append(append(strings.Fields(command), inside...), arguments...)...)
	}
	run("secrets enable", "-path=redox", "-plugin-version="+pluginVersion, pluginName)
	run("write", "redox/keys/main", "algorithm=ES384")
	jwk := json.RawMessage(run("read", "-field=public_jwk", "redox/keys/main"))
	if _, err := e.redox.CreateAPIKeyChecked(sandbox.APIKeyRequest{ID: "client-1", Name: "client-1", JWK: jwk}); err != nil {
		t.Fatal(err)
	}
	run("write", "redox/config", "client_id=client-1", "key=main", "base_url="+e.redox.URL)
	token := strings.TrimSpace(run("read", "-field=access_token", "redox/token"))
	if e.opens(token) != http.StatusOK {
		t.Error("the token does not work")
	}
	if _, body := (person{t, e.vault, ""}).http(http.MethodGet, "clinic/redox/jwks/main", ""); !strings.Contains(body, `"keys"`) {
		t.Errorf("the namespace's JWKS is %s", body)
	}
	if response, _ := e.http(http.MethodGet, "redox/token", ""); response.StatusCode == http.StatusOK {
		t.Error("the mount is seen from outside")
	}
	run("secrets disable", "redox")
}

// TestHostUpgrade replaces the host under a mount by a newer one: keys, versions, roles and tokens go on.
func TestHostUpgrade(t *testing.T) {
	skipWhereLacking(t)
	t.Parallel()
	node := &raftNode{t: t, vaultServer: &vaultServer{directory: t.TempDir()}, name: "one"}
	node.binary = os.Getenv("OLDER_VAULT_BIN")
	node.restart()
	node.stopAtEnd(t, "node one")
	key := node.initialize()
	e := engineAt(node)
	e.must("write", "redox/roles/team", "client_id=client-1")
	e.must("write", "-f", "redox/keys/main/rotate")
	token := e.accessToken("token/team")
	before := map[string]string{}
	for _, path := range []string{"keys/main", "config", "roles/team", "jwks"} {
		before[path] = withoutRequestID(e.must("read", "-format=raw", e.at(path)))
	}
	node.learnKeys()
	was := node.Host
	node.Stop()
	node.binary = ""
	node.restart()
	node.unseal(key)
	t.Logf("%s was replaced by %s", was, node.Host)
	if was == node.Host {
		t.Error("that is the same host")
	}
	for path, text := range before {
		if after := withoutRequestID(e.must("read", "-format=raw", e.at(path))); after != text {
			t.Errorf("%s was\n%s\nand is\n%s", path, text, after)
		}
	}
	if e.opens(token) != http.StatusOK || e.opens(e.accessToken("token/team")) != http.StatusOK {
		t.Error("a token from before, or one of now, does not work")
	}
}
