// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/tokencache"
)

var updateGolden = flag.Bool("update", false, "write the golden files of testdata anew; look at the difference")

// golden compares with a file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *updateGolden {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what there is now; if that is meant, run: go test . -update\n%s", file, got)
	}
}

// Both panic when they are asked for anything.
type (
	untouchableSystem  struct{ logical.SystemView }
	untouchableStorage struct{ logical.Storage }
)

// GetConsumptionBillingManager is asked for by the framework itself, and answered without a call to Vault.
func (untouchableSystem) GetConsumptionBillingManager() logical.ConsumptionBillingManager { return nil }

// Vault makes a backend also just to learn of its paths and version: nothing may be asked or started then. (The bubble
// fails when a goroutine is left.)
func TestFactoryOnlyMakes(t *testing.T) {
	for name, config := range map[string]*logical.BackendConfig{
		"metadata mode": {Logger: hclog.NewNullLogger()},
		"mount":         {Logger: hclog.NewNullLogger(), System: untouchableSystem{}, StorageView: untouchableStorage{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, err := Factory(t.Context(), config)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if b.Type() != logical.TypeLogical {
				t.Errorf("%s: the type is %v", name, b.Type())
			}
			if got := b.(logical.PluginVersioner).PluginVersion().Version; got != version {
				t.Errorf("%s: the version is %q", name, got)
			}
			if paths := b.SpecialPaths(); paths == nil || len(paths.SealWrapStorage) == 0 {
				t.Errorf("%s: the special paths are %v", name, paths)
			}
			b.Cleanup(t.Context())
			b.Cleanup(t.Context())
		})
	}
}

func TestMountsShareNothing(t *testing.T) {
	first, second := newReadyMount(t), newReadyMount(t)
	first.write("roles/team", map[string]any{"scope": "first"})
	second.refusedWith(logical.ReadOperation, "token/team", nil, "no role named")
	second.write("roles/team", map[string]any{"scope": "second"})
	for m, scope := range map[*mount]string{first: "first", second: "second"} {
		if data := m.read("token/team"); data["scope"] != scope {
			t.Errorf("a mount serves a token with scope %v, its own has %s", data["scope"], scope)
		}
	}
	if first.read("keys/main")["public_jwk"] == second.read("keys/main")["public_jwk"] {
		t.Error("two mounts have one key")
	}
	kept := second.read("token/team")["access_token"]
	first.write("config", map[string]any{"min_ttl": 31})
	first.Cleanup(t.Context())
	if second.read("token/team")["access_token"] != kept {
		t.Error("a change of one mount reaches another")
	}
}

// Other nodes write storage, too; Vault then tells the key. What has not really changed costs no token; the JWKS is read again.
func TestInvalidate(t *testing.T) {
	for _, key := range []string{
		"config", "roles/a", "roles/absent", "keys/main", "keys/absent", "clients/main", "wrapping_key", "roles", "roles/", "keys",
		"configuration", "xroles/a", "", "core/cluster/feder",
	} {
		m := newReadyMount(t)
		m.write("roles/a", nil)
		before := m.read("token/a")["access_token"]
		m.read("jwks")
		m.InvalidateKey(t.Context(), key)
		if m.read("token/a")["access_token"] != before {
			t.Errorf("after a change of %q elsewhere, the token is new", key)
		}
		reads := m.storage.readCount()
		m.read("jwks")
		if loaded := m.storage.readCount() != reads; loaded != strings.HasPrefix(key, "keys/") {
			t.Errorf("after a change of %q elsewhere, the JWKS is read from storage: %v", key, loaded)
		}
	}
}

func TestCleanupEndsBackgroundWork(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", nil)
	arrived, release := m.redox.HoldTokenRequests()
	defer release()
	done := make(chan error)
	go func() {
		_, err := m.request(logical.ReadOperation, "token/team", nil)
		done <- err
	}()
	<-arrived
	m.Cleanup(t.Context())
	if err := <-done; !errors.Is(err, tokencache.ErrClosed) {
		t.Errorf("a reader at the end of the mount gets %v", err)
	}
	m.minter.tokens.Wait() // for a mint, which is held at Redox still
	m.Cleanup(t.Context())
	if _, err := m.failed(logical.ReadOperation, "token", nil); !errors.Is(err, tokencache.ErrClosed) {
		t.Errorf("a reader after the end of the mount gets %v", err)
	}
}

// countingSystem counts how often it is asked for the replication state.
type countingSystem struct {
	*logical.StaticSystemView
	asked atomic.Int64
}

func (s *countingSystem) ReplicationState() consts.ReplicationState {
	s.asked.Add(1)
	return s.StaticSystemView.ReplicationState()
}

// The framework asks for it in each request, which takes a call to Vault.
func TestReplicationStateIsAskedForOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock moves by itself only
		system := &countingSystem{StaticSystemView: logical.TestSystemView()}
		b, err := Factory(t.Context(), &logical.BackendConfig{
			Logger: hclog.NewNullLogger(), System: system, StorageView: &logical.InmemStorage{},
		})
		if err != nil {
			t.Fatal(err)
		}
		write := &logical.Request{Operation: logical.CreateOperation, Path: "roles/team", Storage: &logical.InmemStorage{}}
		for second := range int64(3) {
			for range 5 {
				if _, err := b.HandleRequest(t.Context(), write); err != nil {
					t.Fatal(err)
				}
			}
			if asked := system.asked.Load(); asked != second+1 {
				t.Errorf("within %d s Vault was asked %d times", second+1, asked)
			}
			time.Sleep(time.Second)
		}
		system.ReplicationStateVal = consts.ReplicationPerformanceStandby
		if _, err := b.HandleRequest(t.Context(), write); err != logical.ErrReadOnly {
			t.Errorf("a second after the node became a standby it does not forward, but gives %v", err)
		}
		b.Cleanup(t.Context())
	})
}

// A standby can't register a lease, so a leased token is minted on the active node; what is remembered for routing
// does not count for that.
func TestLeasedTokenAsksForTheStateOfNow(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", map[string]any{"leased": true})
	m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
	if _, err := m.failed(logical.ReadOperation, "token/team", nil); err != logical.ErrReadOnly {
		t.Errorf("a leased token on a standby gives %v", err)
	}
	if requests := m.redox.Counters().Token.Requests; requests != 0 {
		t.Errorf("Redox was asked %d times for a token that can't be leased", requests)
	}
	m.read("token")
}

// What writes storage is forwarded before it begins; anything else is answered where it arrives.
func TestWritesAreForwarded(t *testing.T) {
	writes := []string{
		"config", "roles/NAME", "keys/NAME", "keys/NAME/import",
		"keys/NAME/rotate", "keys/NAME/activate", "keys/NAME/abandon", "keys/NAME/retire", "keys/NAME/register",
	}
	for _, state := range []consts.ReplicationState{
		consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary,
	} {
		m := newMount(t)
		m.system.ReplicationStateVal = state
		m.restart()
		m.storage.onEach(func(operation, key string) error {
			if operation == "put" || operation == "delete" {
				t.Errorf("%s of %s on a node that may not write", operation, key)
			}
			return nil
		})
		m.eachOperation(func(_ *framework.Path, operation logical.Operation, path string) {
			_, err := m.request(operation, path, nil)
			want := slices.Contains(writes, path) && operation != logical.ReadOperation ||
				strings.HasPrefix(path, "wrapping_key") // whose first read writes, too
			if forwarded := err == logical.ErrReadOnly; forwarded != want {
				t.Errorf("%s %s is forwarded: %v (%v)", operation, path, forwarded, err)
			}
		})
		m.storage.onEach(nil)
	}
}

func TestExistenceChecks(t *testing.T) {
	m := newMount(t)
	m.plant("roles/good", `{"schema_version":1}`)
	m.plant("roles/newer", `{"schema_version":99}`)
	m.plant("keys/unreadable", misplaced)
	for path, want := range map[string]struct{ found, exists bool }{
		"roles/good":                          {true, true},
		"roles/absent":                        {true, false},
		"config":                              {true, false},
		"keys/absent":                         {true, false},
		"roles/newer":                         {true, true}, // whatever is wrong with it, the write says so
		"keys/unreadable":                     {true, true},
		"roles/a..b":                          {true, false},
		"roles/" + strings.Repeat("a", 129):   {true, false},
		"keys/" + strings.Repeat("a", 129):    {true, false},
		"keys/good/import":                    {false, false},
		"token/good":                          {false, false},
		"assertion/" + strings.Repeat("a", 9): {false, false},
	} {
		found, exists, err := m.HandleExistenceCheck(t.Context(), &logical.Request{
			Operation: logical.UpdateOperation, Path: path, Storage: m.storage,
			Data: map[string]any{
				privateKeyField: map[string]any{"d": misplaced}, "name": []any{misplaced}, "max_retries": misplaced,
			},
		})
		if found != want.found || exists != want.exists || err != nil {
			t.Errorf("%.20s: found %v, exists %v, %v", path, found, exists, err)
		}
	}
	broken := errors.New("storage is broken")
	m.storage.onEach(func(string, string) error { return broken })
	defer m.storage.onEach(nil)
	for _, path := range []string{"config", "roles/good", "keys/good"} {
		if _, err := m.failed(logical.UpdateOperation, path, nil); err != broken {
			t.Errorf("%s with a broken storage: %v", path, err)
		}
	}
}

func TestEverythingIsDescribed(t *testing.T) {
	m := newMount(t)
	m.eachPath(func(p *framework.Path) {
		if p.HelpSynopsis == "" || strings.TrimSpace(p.HelpDescription) == "" || p.DisplayAttrs == nil {
			t.Errorf("%s lacks a synopsis, a description or display attributes", p.Pattern)
		}
		for name, field := range p.Fields {
			if field.Description == "" || field.DisplayAttrs == nil || field.DisplayAttrs.Name == "" {
				t.Errorf("%s: %s lacks a description or a name for the UI", p.Pattern, name)
			}
		}
		if len(p.Operations) == 0 {
			t.Errorf("%s has no operations", p.Pattern)
		}
		for operation, handler := range p.Operations {
			properties := handler.Properties()
			if properties.Summary == "" || len(properties.Responses) == 0 {
				t.Errorf("%s %s lacks a summary or responses", operation, p.Pattern)
			}
			for status, responses := range properties.Responses {
				for _, response := range responses {
					if response.Description == "" || status == 200 && len(response.Fields) == 0 && response.MediaType == "" {
						t.Errorf("%s %s: response %d lacks a description or fields", operation, p.Pattern, status)
					}
					for name, field := range response.Fields {
						if field.Description == "" {
							t.Errorf("%s %s: %s in the response lacks a description", operation, p.Pattern, name)
						}
					}
				}
			}
		}
	})
}

func TestPatterns(t *testing.T) {
	m := newMount(t)
	matched := map[*framework.Path]bool{}
	for _, path := range []string{
		"config", "info", "metrics", "roles", "roles/", "roles/a", "keys", "keys/", "keys/a", "keys/a/import", "keys/import",
		"keys/a/versions", "keys/a/versions/", "keys/a/clients", "keys/a/rotate", "keys/a/activate", "keys/a/abandon", "keys/a/retire", "keys/a/register", "keys/rotate/rotate",
		"keys/import/import", "jwks", "jwks/a", "token", "token/a", "token/config",
		"assertion", "assertion/a", "check", "check/a", "wrapping_key", "wrapping_key/rotate",
	} {
		p := m.Route(path)
		if p == nil {
			t.Errorf("%s is no path", path)
		}
		matched[p] = true
	}
	m.eachPath(func(p *framework.Path) {
		if !matched[p] {
			t.Errorf("%s is never tried", p.Pattern)
		}
		if !strings.HasPrefix(p.Pattern, "^") || !strings.HasSuffix(p.Pattern, "$") || strings.Contains(p.Pattern, "|") {
			t.Errorf("%s does not match whole paths only", p.Pattern)
		}
		m.concretePath(p) // fails when another path comes first
	})
	for _, path := range []string{
		"", "/", "config/", "config/a", "xconfig", "configx", "Config", "config\n",
		"info/", "info/a", "role", "rolesx", "roles//", "roles//a", "roles/a/", "roles/a/b", "roles/.", "roles/..",
		"keys//a", "keys/a/", "keys/a/b", "keys/a/import/", "keys/a/import/b",
		"keys/a/importx", "keys//import", "keys/a/b/import", "keysx",
		"jwks/", "jwks//", "jwks/a/", "jwks/a/b", "jwksa", "xjwks",
		"token/", "token//", "token/a/", "token/a/b", "tokena", "token/a b", "token/a\n", "token/ä",
		"assertion/", "assertion/a/b", "check/", "check/a/b", "metrics/a", "wrapping_key/", "wrapping_key/a",
	} {
		if p := m.Route(path); p != nil {
			t.Errorf("%q is taken for a path of %s", path, p.Pattern)
		}
	}
}

// Anybody may read the public keys, and nothing else.
func TestUnauthenticatedPaths(t *testing.T) {
	m := newMount(t)
	special := m.SpecialPaths()
	if !slices.Equal(special.Unauthenticated, []string{"jwks", "jwks/*"}) || len(special.Root) != 0 ||
		len(special.Binary) != 0 {
		t.Errorf("the special paths are %+v", special)
	}
	m.eachOperation(func(_ *framework.Path, operation logical.Operation, path string) {
		open := slices.ContainsFunc(special.Unauthenticated, func(pattern string) bool { // as Vault does
			prefix, isPrefix := strings.CutSuffix(pattern, "*")
			return path == pattern || isPrefix && strings.HasPrefix(path, prefix)
		})
		if want := path == "jwks/NAME"; open != want {
			t.Errorf("%s %s needs no authentication: %v", operation, path, open)
		}
		if open && operation != logical.ReadOperation {
			t.Errorf("anybody may %s %s", operation, path)
		}
	})
}

// help gives what path-help shows, and the OpenAPI document that goes with it.
func (m *mount) help(path string) (string, any) {
	m.t.Helper()
	response, err := m.HandleRequest(context.Background(), &logical.Request{
		Operation: logical.HelpOperation, Path: path, Storage: m.storage,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	text, _ := response.Data["help"].(string)
	return text, response.Data["openapi"]
}

func newDocumentedMount(t *testing.T) *mount {
	t.Helper()
	m := newMount(t)
	m.system.PluginEnvironment = &logical.PluginEnvironment{VaultVersion: "0.0.0"}
	return m
}

func TestHelp(t *testing.T) {
	m := newDocumentedMount(t)
	files := []string{"testdata/help/root.txt"}
	text, _ := m.help("")
	golden(t, files[0], text+"\n")
	m.eachPath(func(p *framework.Path) {
		path := m.concretePath(p)
		text, _ := m.help(path)
		file := filepath.Join("testdata/help", strings.ReplaceAll(path, "/", "-")+".txt")
		golden(t, file, text+"\n")
		files = append(files, file)
	})
	found, err := filepath.Glob("testdata/help/*")
	if err != nil {
		t.Fatal(err)
	}
	if slices.Sort(files); !slices.Equal(found, files) {
		t.Errorf("there are the golden files %v, for the paths' %v", found, files)
	}
}

func TestOpenAPI(t *testing.T) {
	m := newDocumentedMount(t)
	_, made := m.help("")
	text, err := json.MarshalIndent(made, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/openapi.json", string(text)+"\n")

	document := made.(*framework.OASDocument)
	seen := map[string]string{}
	for path, item := range document.Paths {
		if want := path == "/jwks" || path == "/jwks/{key}"; item.Unauthenticated != want || item.Sudo {
			t.Errorf("%s: unauthenticated %v, sudo %v", path, item.Unauthenticated, item.Sudo)
		}
		for method, operation := range map[string]*framework.OASOperation{
			"get": item.Get, "post": item.Post, "delete": item.Delete, "patch": item.Patch,
		} {
			if operation == nil {
				continue
			}
			name := method + " " + path
			id := operation.OperationID
			if other, taken := seen[id]; taken || !strings.HasPrefix(id, operationPrefix+"-") {
				t.Errorf("%s has the operation ID %q (as has %q)", name, id, other)
			}
			seen[id] = name
			if operation.Summary == "" {
				t.Errorf("%s has no summary", name)
			}
			for status, response := range operation.Responses {
				if status == 200 && len(response.Content) == 0 {
					t.Errorf("%s: response %d has no schema", name, status)
				}
				for mediaType, content := range response.Content {
					if mediaType == "application/json" && len(content.Schema.Properties) == 0 {
						t.Errorf("%s: response %d has no schema", name, status)
					}
				}
			}
		}
	}
	if len(seen) == 0 {
		t.Fatal("the document has no operation")
	}
}
