// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// cluster is an engine on several nodes that share a storage, as where standbys serve reads. The first node may write. The
// others are told what it has written, and what they answer with ErrReadOnly is done by the first, as Vault does it.
type cluster struct {
	t     *testing.T
	nodes []*mount
	late  []string // keys that the standbys have not been told of yet; nil: they are told at once
}

// eachCluster runs a test with one standby and with two.
func eachCluster(t *testing.T, test func(t *testing.T, c *cluster)) {
	for _, nodes := range []int{2, 3} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			active := newReadyMount(t)
			active.write("roles/team", nil)
			c := &cluster{t: t, nodes: []*mount{active}}
			for range nodes - 1 {
				c.addStandby()
			}
			active.storage.onChange = func(key string) {
				if c.late != nil {
					c.late = append(c.late, key)
					return
				}
				c.tell(key)
			}
			test(t, c)
		})
	}
}

func (c *cluster) addStandby() {
	active := c.nodes[0]
	system := *active.system
	system.ReplicationStateVal = standby
	m := &mount{
		t: c.t, redox: active.redox, clock: active.clock, system: &system, scanner: active.scanner,
		storage: &watchedStorage{inner: active.storage.inner}, log: active.log, output: active.output, bus: active.bus,
	}
	m.storage.onEach(func(operation, key string) error {
		if operation == "put" || operation == "delete" {
			c.t.Errorf("a standby wants to %s %s", operation, key)
			return logical.ErrReadOnly
		}
		return nil
	})
	m.restart()
	c.t.Cleanup(func() {
		m.backend.Cleanup(context.Background())
		m.minter.tokens.Wait()
	})
	c.nodes = append(c.nodes, m)
}

// tell makes the standbys hear that an entry has changed.
func (c *cluster) tell(key string) {
	for _, node := range c.nodes[1:] {
		node.InvalidateKey(context.Background(), key)
	}
}

// request asks one node, and the active one where that one may not answer. It says which has.
func (c *cluster) request(node int, operation logical.Operation, path string, data fields) (answered int, response *logical.Response, err error) {
	response, err = c.nodes[node].request(operation, path, data)
	if node != 0 && err == logical.ErrReadOnly { // unwrapped, as Vault looks at it
		node = 0
		response, err = c.nodes[0].request(operation, path, data)
	}
	return node, response, err
}

// read reads what has to be answered, by the node itself or not.
func (c *cluster) read(node int, path string, itself bool) fields {
	c.t.Helper()
	answered, response, err := c.request(node, logical.ReadOperation, path, nil)
	if err != nil || response.IsError() {
		c.t.Fatalf("node %d: %s: %v, %v", node, path, response, err)
	}
	if (answered == node) != itself {
		c.t.Fatalf("node %d: %s was answered by node %d", node, path, answered)
	}
	return response.Data
}

// tokens reads a role's token on each node, from that node, and returns them.
func (c *cluster) tokens(role string) []any {
	c.t.Helper()
	tokens := make([]any, len(c.nodes))
	for node := range c.nodes {
		tokens[node] = c.read(node, "token/"+role, true)["access_token"]
	}
	return tokens
}

// TestStandbysServeTokens: each node mints a token of its own, once.
func TestStandbysServeTokens(t *testing.T) {
	eachCluster(t, func(t *testing.T, c *cluster) {
		first := c.tokens("team")
		seen := map[any]bool{}
		for node, token := range c.tokens("team") {
			if token != first[node] || seen[token] || !c.nodes[0].redox.IsLive(fmt.Sprint(token)) {
				t.Errorf("node %d: the second read gives another token, or one that another node has, or a dead one", node)
			}
			seen[token] = true
		}
		c.nodes[0].wantTokenRequests(len(c.nodes))
	})
}

// TestStandbysFollowARotation: what signs on a standby is what signs on the active node, as soon as that node has said so, and no
// token is lost on the way.
func TestStandbysFollowARotation(t *testing.T) {
	eachCluster(t, func(t *testing.T, c *cluster) {
		active, standby := c.nodes[0], len(c.nodes)-1
		key := active.read("keys/main")
		before := c.tokens("team")
		// Verbs are for the active node, wherever they are asked for.
		if answered, response, err := c.request(standby, logical.UpdateOperation, "keys/main/rotate", fields{"algorithm": algorithmES384}); err != nil || response.IsError() || answered != 0 {
			t.Fatalf("rotate at a standby: node %d, %v, %v", answered, response, err)
		}
		rotated := active.read("keys/main")
		active.setJWKs("client-1", key["public_jwk"], rotated["pending_public_jwk"])
		active.write("keys/main/activate", nil)
		for node, token := range c.tokens("team") {
			if token != before[node] {
				t.Errorf("node %d: the rotation has cost a token", node)
			}
		}
		active.clock.advance(5 * time.Minute)
		for node := range c.nodes {
			if kid := c.read(node, "token/team", true)["kid"]; kid != rotated["pending_kid"] {
				t.Errorf("node %d: %v signs, not %v", node, kid, rotated["pending_kid"])
			}
			if kids := c.nodes[node].kids("jwks/main"); len(kids) != 2 {
				t.Errorf("node %d: the JWKS has %v", node, kids)
			}
		}
		if _, err := active.request(logical.UpdateOperation, "keys/main/retire", fields{"version": 1, "destroy_now": true}); err != nil {
			t.Fatal(err)
		}
		for node := range c.nodes {
			if kids := c.nodes[node].kids("jwks/main"); len(kids) != 1 {
				t.Errorf("node %d: the JWKS still has %v", node, kids)
			}
		}
	})
}

// TestStandbysWhereTheJWKWasReplaced: a standby whose version is rejected lets the active node mint, which finds the version that
// is taken, and by that the standby.
func TestStandbysWhereTheJWKWasReplaced(t *testing.T) {
	eachCluster(t, func(t *testing.T, c *cluster) {
		active, standby := c.nodes[0], len(c.nodes)-1
		active.register("client-2", "main") // which keeps the first version, so that the key itself stays as it is
		active.write("roles/two", fields{"client_id": "client-2"})
		c.tokens("two")
		rotated := active.rotated()
		active.setJWKs("client-1", rotated["pending_public_jwk"])
		if kid := c.read(standby, "token/team", false)["kid"]; kid != rotated["pending_kid"] {
			t.Fatalf("%v signs", kid)
		}
		active.passNow() // stores what was learned
		active.wantStates("main", "active pending")
		active.clock.advance(5 * time.Minute)
		for node := range c.nodes {
			if kid := c.read(node, "token/team", true)["kid"]; kid != rotated["pending_kid"] {
				t.Errorf("node %d: %v signs", node, kid)
			}
			if kid := c.read(node, "token/two", true)["kid"]; kid == rotated["pending_kid"] {
				t.Errorf("node %d: %v signs for the client that does not know it", node, kid)
			}
		}
	})
}

// TestStandbysFollowConfiguration: a standby serves what it has until it is told of a change, and not longer.
func TestStandbysFollowConfiguration(t *testing.T) {
	eachCluster(t, func(t *testing.T, c *cluster) {
		active := c.nodes[0]
		before := c.tokens("team")
		c.late = []string{}
		active.write("config", fields{"scope": "changed"})
		active.write("roles/other", fields{"scope": "of its own"})
		for node, token := range c.tokens("team") {
			if same := token == before[node]; same != (node != 0) {
				t.Errorf("node %d, before it was told: the same token: %v", node, same)
			}
		}
		told := c.late
		c.late = nil
		for _, key := range told {
			c.tell(key)
		}
		for node := range c.nodes {
			if scope := c.read(node, "token/team", true)["scope"]; scope != "changed" {
				t.Errorf("node %d: the scope is %v", node, scope)
			}
			if scope := c.read(node, "token/other", true)["scope"]; scope != "of its own" {
				t.Errorf("node %d: the scope is %v", node, scope)
			}
		}
		requests := active.tokenRequests()
		active.write("config", fields{"request_timeout": 7}) // no credential changes
		c.tokens("team")
		active.wantTokenRequests(requests)
	})
}

// TestStandbysRefuseADisabledRole: at once, on each node, although they have its tokens.
func TestStandbysRefuseADisabledRole(t *testing.T) {
	eachCluster(t, func(t *testing.T, c *cluster) {
		c.tokens("team")
		c.nodes[0].write("roles/team", fields{"disabled": true})
		for node := range c.nodes {
			if _, response, err := c.request(node, logical.ReadOperation, "token/team", nil); err != nil || !response.IsError() {
				t.Errorf("node %d answers %v, %v", node, response, err)
			}
		}
		c.nodes[0].write("roles/team", fields{"disabled": false})
		c.tokens("team")
	})
}

// TestStandbysLeaveLeasesToTheActiveNode: and don't mint for them.
func TestStandbysLeaveLeasesToTheActiveNode(t *testing.T) {
	eachCluster(t, func(t *testing.T, c *cluster) {
		c.nodes[0].write("roles/team", fields{"leased": true})
		token := c.read(0, "token/team", true)["access_token"]
		for node := range c.nodes[1:] {
			if got := c.read(node+1, "token/team", false)["access_token"]; got != token {
				t.Errorf("node %d gives another token", node+1)
			}
		}
		c.nodes[0].wantTokenRequests(1)
	})
}
