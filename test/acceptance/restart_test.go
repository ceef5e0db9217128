// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/testvault"
)

// raftNode is a Vault server with storage on disk, alone or in a cluster.
type raftNode struct {
	*vaultServer
	t    testing.TB
	name string
}

// newRaftNode starts a node that is not initialized yet. Its log becomes part of what is searched for secrets.
func newRaftNode(t testing.TB, name string) *raftNode {
	t.Helper()
	n := &raftNode{t: t, vaultServer: &vaultServer{directory: t.TempDir()}, name: name}
	n.restart()
	n.stopAtEnd(t, "node "+name)
	return n
}

// restart starts the node's process, at an address of its own each time.
func (n *raftNode) restart() {
	n.t.Helper()
	if err := n.start(testvault.Options{Plugins: filepath.Dir(pluginFile), Node: n.name, Config: rawStorage, Patience: 4}); err != nil {
		n.t.Fatal(err)
	}
}

// initialize makes the node a cluster of one, with the plugin in its catalog, and gives the unseal key.
func (n *raftNode) initialize() (unsealKey string) {
	n.t.Helper()
	var initialized struct {
		Keys  []string `json:"unseal_keys_b64"`
		Token string   `json:"root_token"`
	}
	text := n.operator().must("operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json")
	if err := json.Unmarshal([]byte(text), &initialized); err != nil {
		n.t.Fatal(err)
	}
	n.rootToken = initialized.Token
	n.unseal(initialized.Keys[0])
	if err := n.registerPlugin(); err != nil {
		n.t.Fatal(err)
	}
	return initialized.Keys[0]
}

// unseal unseals the node and waits until it works.
func (n *raftNode) unseal(key string) {
	n.t.Helper()
	n.operator().must("operator", "unseal", key)
	if err := n.awaitActive(n.rootToken); err != nil {
		n.t.Fatal(err)
	}
}

func (n *raftNode) operator() person { return person{n.t, n.vaultServer, n.rootToken} }

// engineAt mounts the plugin on a node, with an ES384 key that a local Redox knows.
func engineAt(n *raftNode) *engine {
	n.t.Helper()
	redox, err := sandbox.Start(sandbox.Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = redox.Close() })
	e := &engine{person: n.operator(), path: "redox", redox: redox}
	e.mount("redox")
	e.must("write", "redox/keys/main", "algorithm=ES384")
	e.register("client-1", "main")
	e.must("write", "redox/config", "client_id=client-1", "key=main", "base_url="+redox.URL)
	n.learnKeys()
	return e
}

// learnKeys makes the search for secrets know the private keys that this node's storage has now.
func (n *raftNode) learnKeys() {
	n.t.Helper()
	if err := learnKeys(n.vaultServer); err != nil {
		n.t.Fatal(err)
	}
}

// TestRestart stops and starts a Vault server with storage on disk: keys, configuration and leases are still there,
// and the first token comes without any help.
func TestRestart(t *testing.T) {
	t.Parallel()
	node := newRaftNode(t, "one")
	key := node.initialize()
	e := engineAt(node)
	e.must("write", "redox/roles/counted", "leased=true")
	lease := e.secret("read", "redox/token/counted").LeaseID
	before := e.must("read", "redox/keys/main")

	node.Stop()
	node.restart()
	node.unseal(key)
	if after := e.must("read", "redox/keys/main"); after != before {
		t.Errorf("the key has changed:\n%s\n%s", before, after)
	}
	if e.opens(e.accessToken("token")) != http.StatusOK {
		t.Error("there is no token after the restart")
	}
	e.must("lease", "revoke", "-sync", lease)
	if leases := e.try("list", "sys/leases/lookup/redox/token/counted"); !strings.Contains(leases.stderr, "No value found") {
		t.Errorf("the lease is still there: %s%s", leases.stdout, leases.stderr)
	}
	e.must("operator", "seal")
	node.unseal(key)
	e.accessToken("token/counted")
}

// TestRotationGoesOnAfterALeaderChange begins a rotation on one node of a cluster, whose process is then killed.
// Another node takes over and ends the rotation.
func TestRotationGoesOnAfterALeaderChange(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t)
	first := nodes[0]
	e := engineAt(first)
	old := e.data("read", "redox/keys/main")
	e.accessToken("token")
	pending := e.data("write", "-f", "redox/keys/main/rotate")
	first.Kill()

	leader := awaitLeader(t, nodes[1:])
	e.person = leader.operator()
	set := fmt.Sprintf(`{"keys":[%s,%s]}`, old["public_jwk"], pending["pending_public_jwk"])
	if err := e.redox.SetJWKSet("client-1", json.RawMessage(set)); err != nil {
		t.Fatal(err)
	}
	if active := e.data("write", "-f", "redox/keys/main/activate"); active["kid"] != pending["pending_kid"] {
		t.Errorf("%v is active, not %v", active["kid"], pending["pending_kid"])
	}
	leader.learnKeys()
	token := e.data("read", "redox/token")
	if token["kid"] != pending["pending_kid"] || e.opens(fmt.Sprint(token["access_token"])) != http.StatusOK {
		t.Errorf("the token is of kid %v", token["kid"])
	}
}

// newCluster starts three nodes, of which the first one is active.
func newCluster(t testing.TB) []*raftNode {
	t.Helper()
	first := newRaftNode(t, "one")
	unsealKey := first.initialize()
	nodes := []*raftNode{first}
	for _, name := range []string{"two", "three"} {
		node := newRaftNode(t, name)
		node.rootToken = first.rootToken
		node.operator().must("operator", "raft", "join", first.address)
		node.operator().must("operator", "unseal", unsealKey)
		nodes = append(nodes, node)
	}
	awaitVoters(t, first, len(nodes))
	return nodes
}

// awaitVoters waits until all nodes of a cluster have a vote: before, it does not survive the loss of one.
func awaitVoters(t testing.TB, leader *raftNode, count int) {
	t.Helper()
	await(t, "all nodes to have a vote", func() bool {
		r := leader.run(leader.rootToken, "", "operator", "raft", "list-peers", "-format=json")
		return strings.Count(r.stdout, `"voter": true`) == count
	})
}

// awaitLeader waits until one of the nodes has become the active one.
func awaitLeader(t testing.TB, nodes []*raftNode) (leader *raftNode) {
	t.Helper()
	await(t, "a new leader", func() bool {
		for _, node := range nodes {
			if node.Active() {
				leader = node
				return true
			}
		}
		return false
	})
	return leader
}

// await waits for another process to come to a state that it tells nobody of.
func await(t testing.TB, what string, reached func() bool) {
	t.Helper()
	deadline := time.After(startTimeout)
	for !reached() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
