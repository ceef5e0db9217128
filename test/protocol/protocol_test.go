// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package protocol

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// eventsMethod is how a plugin sends an event.
const eventsMethod = "/pb.Events/SendEvent"

// TestServerWithoutLaterServices goes through the life of a mount, with each version of the plugin protocol that there is,
// at a server that has no events, no observations, no rotation manager, and nothing else that not every server has. All
// has to work, and nothing may be complained about: a refusal of what is not needed is no fault.
func TestServerWithoutLaterServices(t *testing.T) {
	file := buildPlugin(t)
	for _, version := range []int{3, 4, 5} {
		t.Run(fmt.Sprint("protocol ", version), func(t *testing.T) {
			s := start(t, file, version)
			if s.multiplexed != (version == 5) {
				t.Errorf("several mounts in one process: %v", s.multiplexed)
			}
			s.checkIdentity()
			s.live(newRedox(t))
			s.tearDown()
			for _, line := range s.complaints() {
				t.Errorf("the plugin complains: %s", line)
			}
			t.Logf("refused: %v", s.refusedMethods())
		})
	}
}

// buildPlugin builds the plugin as it is released: this is about its process.
func buildPlugin(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "vault-plugin-secrets-redox")
	if text, err := exec.Command("../../scripts/build", file).CombinedOutput(); err != nil {
		t.Fatalf("building the plugin failed: %v\n%s", err, text)
	}
	return file
}

func newRedox(t *testing.T) *sandbox.Server {
	t.Helper()
	redox, err := sandbox.Start(sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := redox.Close(); err != nil {
			t.Error(err)
		}
	})
	return redox
}

// checkIdentity asks what a server wants to know of a plugin.
func (s *server) checkIdentity() {
	s.t.Helper()
	kind, err := s.backend.Type(s.ctx(), &pb.Empty{})
	if err != nil || logical.BackendType(kind.Type) != logical.TypeLogical {
		s.t.Errorf("the type is %v, %v", kind, err)
	}
	paths, err := s.backend.SpecialPaths(s.ctx(), &pb.Empty{})
	if err != nil || !slices.Contains(paths.Paths.Unauthenticated, "jwks") ||
		!slices.Contains(paths.Paths.SealWrapStorage, "keys/") {
		s.t.Errorf("the special paths are %v, %v", paths, err)
	}
	version, err := logical.NewPluginVersionClient(s.connection.conn).Version(s.ctx(), &logical.Empty{})
	if err != nil || !strings.HasPrefix(version.PluginVersion, "v") {
		s.t.Errorf("the version is %v, %v", version, err)
	}
}

// live does what operators and applications do, from the first key to the last.
func (s *server) live(redox *sandbox.Server) {
	s.t.Helper()
	jwk := s.write("keys/main", map[string]any{"algorithm": "ES384"})["public_jwk"]
	setKeys := func(jwks ...any) {
		set := &strings.Builder{}
		for i, jwk := range jwks {
			if i > 0 {
				set.WriteString(",")
			}
			fmt.Fprint(set, jwk)
		}
		redox.CreateAPIKey(sandbox.APIKey{ID: "client-1", Name: "client-1", JWKSet: json.RawMessage(`{"keys":[` + set.String() + `]}`)})
	}
	setKeys(jwk)
	s.write("config", map[string]any{"client_id": "client-1", "key": "main", "base_url": redox.URL})
	s.write("roles/team", map[string]any{"leased": true})
	s.isLive(redox, s.read("token"))
	s.isLive(redox, s.write("token", nil))
	s.await("the plugin to send an event, which is refused", func() bool { return s.refusedMethods()[eventsMethod] > 0 })

	leased := s.request(logical.ReadOperation, "token/team", nil)
	s.isLive(redox, leased.Data)
	if leased.Secret == nil || leased.Secret.TTL <= 0 {
		s.t.Fatalf("a leased role gives no lease: %v", leased.Secret)
	}
	s.send(&logical.Request{Operation: logical.RevokeOperation, Path: "token/team", Secret: leased.Secret})

	if check := s.write("check", nil); check["ok"] != true {
		s.t.Errorf("check: %v", check)
	}
	s.write("assertion", nil)
	s.read("info")
	s.read("jwks")

	// Once a minute the server asks for periodic work. What the mints have learned is stored then, if not before.
	s.request(logical.RollbackOperation, "", nil)
	s.await("the worker to store what was accepted", func() bool {
		entry, err := s.storage.Get(s.t.Context(), "clients/main")
		return err == nil && entry != nil
	})

	pending := s.write("keys/main/rotate", nil)["pending_public_jwk"]
	setKeys(jwk, pending)
	if active := s.write("keys/main/activate", nil); active["public_jwk"] != pending {
		s.t.Error("the new version is not active")
	}
	s.isLive(redox, s.write("token", nil))
	s.write("keys/main/retire", nil)
	s.write("keys/main/rotate", nil)
	s.write("keys/main/abandon", nil)
	s.write("keys/main/rotate", nil)
	s.write("keys/main/activate", map[string]any{"force": true})
	s.write("keys/main/retire", map[string]any{"version": 2, "destroy_now": true})

	s.read("wrapping_key")
	for _, path := range []string{"keys", "roles"} {
		if names := s.request(logical.ListOperation, path, nil).Data["keys"]; names == nil {
			s.t.Errorf("nothing is listed at %s", path)
		}
	}
	if _, err := s.backend.InvalidateKey(s.ctx(), &pb.InvalidateKeyArgs{Key: "config"}); err != nil {
		s.t.Errorf("invalidate: %v", err)
	}
	s.request(logical.DeleteOperation, "roles/team", nil)
	s.request(logical.DeleteOperation, "config", nil)
	s.write("keys/main", map[string]any{"deletion_allowed": true})
	s.request(logical.DeleteOperation, "keys/main", nil)
}

func (s *server) isLive(redox *sandbox.Server, token map[string]any) {
	s.t.Helper()
	if text, _ := token["access_token"].(string); !redox.IsLive(text) {
		s.t.Error("Redox does not take the token")
	}
}
