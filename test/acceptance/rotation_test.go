// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// TestRotationWithoutAPause rotates a key several times, by each way of registration and with each algorithm, while
// readers read tokens and use them without a pause. Not one read may fail, and no old kid stays.
func TestRotationWithoutAPause(t *testing.T) {
	for _, algorithm := range []string{"RS384", "ES384"} {
		for _, registration := range []string{"manual", "jwks_url", "platform"} {
			t.Run(algorithm+" "+registration, func(t *testing.T) {
				// Tokens that live two seconds, so that many are minted meanwhile.
				e := newEngine(t, sandbox.Options{TokenLifetime: 2 * time.Second})
				r := newRotated(e, algorithm, registration)
				readers := r.startReaders()
				for round := range 3 {
					r.rotate(round == 1)
				}
				readers.stop()
				// Within two seconds of a mint a fresh token is the one just minted, so its key is looked at by trying it.
				if check, kid := e.data("write", "-f", e.at("check")), e.data("read", e.at("keys/main"))["kid"]; check["kid"] != kid {
					t.Errorf("%v signs, not %v", check["kid"], kid)
				}
				if kids := r.publishedKids(); len(kids) != 1 {
					t.Errorf("the JWKS still holds %v", kids)
				}
				if set := string(r.apiKey().JWKSet); registration == "platform" && strings.Count(set, `"kid"`) != 2 {
					t.Errorf("Redox holds more than the foreign key and ours: %s", set)
				}
				t.Logf("%d reads, %d tokens minted", readers.reads.Load(), e.redox.Counters().Token.Issued)
			})
		}
	}
}

// rotated is a key that is rotated while it is used.
type rotated struct {
	*engine
	registration string
}

const foreignJWK = `{"kty":"EC","kid":"foreign","crv":"P-384","x":"AAAA","y":"AAAA","note":"of somebody else"}`

// newRotated makes a key and has it registered in one of the three ways.
func newRotated(e *engine, algorithm, registration string) *rotated {
	e.t.Helper()
	r := &rotated{engine: e, registration: registration}
	e.must("write", e.at("keys/main"), "algorithm="+algorithm, "rsa_bits=") // empty: the default
	e.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL)
	switch registration {
	case "manual":
		e.register("client-1", "main")
	case "jwks_url":
		jwksURL := e.vault.address + "/v1/" + e.at("jwks/main")
		e.redox.CreateAPIKey(sandbox.APIKey{ID: "client-1", Name: "client-1", JWKSURL: jwksURL})
		e.must("write", e.at("keys/main"), "registration=jwks_url", "public_jwks_url="+jwksURL)
	case "platform":
		e.must("write", e.at("keys/manager"), "algorithm=ES384")
		jwk := strings.TrimSpace(e.must("read", "-field=public_jwk", e.at("keys/manager")))
		if _, err := e.redox.CreateAPIKeyChecked(sandbox.APIKeyRequest{
			ID: "manager", Name: "manager", JWK: json.RawMessage(jwk), Management: true}); err != nil {
			e.t.Fatal(err)
		}
		e.must("write", e.at("roles/manager"), "client_id=manager", "key=manager")
		e.redox.CreateAPIKey(sandbox.APIKey{ID: "client-1", Name: "client-1", JWKSet: json.RawMessage(`{"keys":[` + foreignJWK + `]}`)})
		e.must("write", e.at("keys/main"), "registration=platform", "platform_role=manager")
		e.must("write", "-f", e.at("keys/main/register"))
	}
	e.accessToken("token")
	return r
}

func (r *rotated) apiKey() sandbox.APIKey {
	key, _ := r.redox.APIKey("client-1")
	return key
}

// rotate goes through one rotation, doing what an operator of this way of registration does: one who replaces the JWK in
// the dashboard, instead of adding to it, where there is a dashboard to work with.
func (r *rotated) rotate(replace bool) {
	r.t.Helper()
	before := r.data("read", r.at("keys/main"))
	pending := r.data("write", "-f", r.at("keys/main/rotate"))
	if r.registration == "manual" {
		r.refused(http.StatusBadRequest, "write", "-f", r.at("keys/main/activate")) // forgotten: nothing happens
		set := fmt.Sprintf(`{"keys":[%s,%s]}`, before["public_jwk"], pending["pending_public_jwk"])
		if replace {
			set = fmt.Sprintf(`{"keys":[%s]}`, pending["pending_public_jwk"])
		}
		if err := r.redox.SetJWKSet("client-1", json.RawMessage(set)); err != nil {
			r.t.Fatal(err)
		}
		if replace {
			r.awaitTokenOf(pending["pending_kid"])
		}
	}
	// The worker may have been faster, where nobody has to do anything: then activate has nothing to do.
	active := r.data("write", "-f", r.at("keys/main/activate"))
	if active["kid"] != pending["pending_kid"] || active["kid"] == before["kid"] {
		r.t.Errorf("%v is active, not %v", active["kid"], pending["pending_kid"])
	}
	if kids := r.publishedKids(); len(kids) != 2 {
		r.t.Errorf("within the grace period the JWKS holds %v", kids)
	}
	// The grace period lasts an hour at least; an operator can end it. Platform registrations are cleaned up by the
	// worker, which register does at once.
	r.must("write", "-f", r.at("keys/main/retire"))
	if r.registration == "platform" {
		r.must("write", "-f", r.at("keys/main/register"))
	}
	if r.registration == "manual" {
		if err := r.redox.SetJWK("client-1", json.RawMessage(active["public_jwk"].(string))); err != nil {
			r.t.Fatal(err)
		}
	}
}

// awaitTokenOf waits until the readers get tokens that the version with this kid signed for.
func (r *rotated) awaitTokenOf(kid any) {
	r.t.Helper()
	await(r.t, "a token of the new version", func() bool { return r.data("read", r.at("token"))["kid"] == kid })
}

// publishedKids reads the JWKS as anybody may.
func (r *rotated) publishedKids() []string {
	r.t.Helper()
	_, text := person{r.t, r.vault, ""}.http(http.MethodGet, r.at("jwks/main"), "")
	var set struct{ Keys []struct{ Kid string } }
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		r.t.Fatal(err)
	}
	var kids []string
	for _, key := range set.Keys {
		kids = append(kids, key.Kid)
	}
	return kids
}

// readers read tokens, and use each, until they are stopped.
type readers struct {
	t     testing.TB
	done  chan struct{}
	once  sync.Once
	group sync.WaitGroup
	reads atomic.Int64
}

func (r *rotated) startReaders() *readers {
	all := &readers{t: r.t, done: make(chan struct{})}
	r.t.Cleanup(all.stop) // also when a step fails
	for range 4 {
		all.group.Go(func() {
			for {
				select {
				case <-all.done:
					return
				default:
				}
				token := tokenOverHTTP(r.person, r.at("token"))
				if token == "" {
					r.t.Error("a read gave no token")
					return
				}
				if !r.redox.IsLive(token) {
					r.t.Error("a read gave a token that Redox does not take")
					return
				}
				all.reads.Add(1)
			}
		})
	}
	return all
}

func (r *readers) stop() {
	r.once.Do(func() { close(r.done) })
	r.group.Wait()
	if r.reads.Load() == 0 {
		r.t.Error("nothing was read meanwhile")
	}
}

// TestAutomaticRotationIsScheduled shows what an operator sees of it.
func TestAutomaticRotationIsScheduled(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("keys/main"), "rotation_schedule=0 3 1 * *", "rotation_window=2h")
	table := e.must("read", e.at("keys/main"))
	for _, want := range []string{"next_rotation_time", "rotation_schedule", "0 3 1 * *"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table has no %q:\n%s", want, table)
		}
	}
}

// TestFoundKey finds out which version a private key is that was found somewhere, as docs/rotation.md says.
func TestFoundKey(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	e := newEngine(t, sandbox.Options{})
	directory := t.TempDir()
	for _, algorithm := range []string{"RS384", "ES384"} {
		key, text := newPKCS8(t, algorithm)
		addKey(t, "found "+algorithm, key)
		writeFile(t, filepath.Join(directory, "found.pem"), text)
		e.must("write", e.at("keys/main/import"), "private_key=@"+filepath.Join(directory, "found.pem"))
		kid := e.data("read", e.at("keys/main"))
		blocks := documentedCommands(t, "rotation.md")
		i := slices.IndexFunc(blocks, func(block string) bool { return strings.Contains(block, "found.pem") })
		block := strings.ReplaceAll(blocks[i], "redox/", e.path+"/")
		e.bash(directory, "(\n"+block+"\n) >printed")
		want := map[string]string{"RS384": fmt.Sprintf("version 1, kid %v, active\n", kid["kid"]), "ES384": fmt.Sprintf("version 2, kid %v, pending\n", kid["pending_kid"])}
		if printed := readFile(t, filepath.Join(directory, "printed")); printed != want[algorithm] {
			t.Errorf("%s: it is said to be %q, not %q", algorithm, printed, want[algorithm])
		}
	}
}

// TestRotationDocumentation runs every block of commands of docs/rotation.md, in their order: a rotation, the settings for
// rotating by itself and for the Platform API, and the run book for a key that has leaked. The local Redox reads the JWKS
// URL, so that nobody has to paste a JWK in between.
func TestRotationDocumentation(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	if err := e.redox.SetJWKSURL("client-1", e.vault.address+"/v1/"+e.at("jwks/main")); err != nil {
		t.Fatal(err)
	}
	e.accessToken("token")
	for _, block := range documentedCommands(t, "rotation.md") {
		directory := t.TempDir()
		if strings.Contains(block, "found.pem") { // which is another key, here; see TestFoundKey
			_, text := newPKCS8(t, "ES384")
			writeFile(t, filepath.Join(directory, "found.pem"), text)
		}
		e.bash(directory, strings.ReplaceAll(block, "redox/", e.path+"/"))
	}
	key := e.data("read", e.at("keys/main"))
	versions, _ := e.data("read", e.at("keys/main/versions"))["versions"].(map[string]any)
	states := map[string]any{}
	for number, v := range versions {
		version, _ := v.(map[string]any)
		states[number] = version["state"]
	}
	if first, _ := versions["1"].(map[string]any); first["compromised"] != true || states["1"] != "destroyed" || states["3"] != "active" {
		t.Errorf("the versions are %v", states)
	}
	if key["registration"] != "platform" || key["rotation_schedule"] != "0 3 1 * *" || key["next_rotation_time"] == "" {
		t.Errorf("registered by %v, rotated at %v", key["registration"], key["next_rotation_time"])
	}
	token := e.data("read", e.at("token"))
	if e.opens(fmt.Sprint(token["access_token"])) != http.StatusOK {
		t.Error("there is no token afterwards")
	}
}
