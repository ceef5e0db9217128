// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// TestFirstToken is the main job: a key made in Vault or brought along, of either algorithm, its public half told to
// Redox, and a token that opens a patient's record.
func TestFirstToken(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"RS384", "ES384"} {
		for _, origin := range []string{"generated", "imported"} {
			t.Run(algorithm+" "+origin, func(t *testing.T) {
				e := newEngine(t, sandbox.Options{})
				if origin == "generated" {
					e.must("write", e.at("keys/main"), "algorithm="+algorithm)
				} else {
					key, text := newPKCS8(t, algorithm)
					addKey(t, t.Name(), key)
					printed := e.mustWith(text, "write", "-format=json", e.at("keys/main/import"), "private_key=-", "kid=from-the-dashboard")
					if !strings.Contains(printed, "has lived outside Vault") {
						t.Errorf("the import does not warn:\n%s", printed)
					}
				}
				e.register("client-1", "main")
				e.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL)

				data := e.data("read", e.at("token"))
				key := e.data("read", e.at("keys/main"))
				for field, want := range map[string]any{
					"client_id": "client-1", "kid": key["kid"], "token_type": "Bearer",
				} {
					if data[field] != want {
						t.Errorf("%s is %v, not %v", field, data[field], want)
					}
				}
				if period, _ := data["rotation_period"].(float64); period < 255 || period > 270 { // random for each token
					t.Errorf("rotation_period is %v", data["rotation_period"])
				}
				for _, field := range []string{"expire_time", "last_vault_rotation"} {
					text, _ := data[field].(string)
					if _, err := time.Parse(time.RFC3339, text); err != nil {
						t.Errorf("%s: %v", field, err)
					}
				}
				token, _ := data["access_token"].(string)
				if status := e.opens(token); status != http.StatusOK {
					t.Errorf("the token opens a patient's record with %d", status)
				}
				if again := e.accessToken("token"); again != token {
					t.Error("a second reader gets another token")
				}
				if n := e.redox.Counters().Token.Requests; n != 1 {
					t.Errorf("Redox was asked %d times", n)
				}
				if key["algorithm"] != algorithm || origin == "imported" && key["kid"] != "from-the-dashboard" {
					t.Errorf("the key is %v with kid %v", key["algorithm"], key["kid"])
				}
			})
		}
	}
}

// TestFreshToken is what a caller does whose token Redox rejected.
func TestFreshToken(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	first := e.accessToken("token")
	// Within two seconds of a mint a fresh token is the one just minted. Waiting them out with a real clock would be a
	// sleep; a second client ID takes the place of time.
	e.register("client-2", "main")
	e.must("write", e.at("config"), "client_id=client-2")
	fresh := e.data("write", "-f", e.at("token"))
	if fresh["client_id"] != "client-2" || fresh["access_token"] == first {
		t.Errorf("the fresh token is of %v", fresh["client_id"])
	}
	if e.accessToken("token") != fresh["access_token"] {
		t.Error("the fresh token is not shared from then on")
	}
}

// TestThousandFirstReaders lets a crowd ask over Vault's API at the same moment: Redox is asked once.
func TestThousandFirstReaders(t *testing.T) {
	const readers = 1000
	e := newReadyEngine(t)
	arrived, release := e.redox.HoldTokenRequests()
	defer release()
	tokens := make([]string, readers)
	var group sync.WaitGroup
	for i := range readers {
		group.Go(func() {
			tokens[i] = tokenOverHTTP(e.person, e.at("token"))
		})
	}
	<-arrived
	release()
	group.Wait()
	for _, token := range tokens {
		if token == "" || token != tokens[0] {
			t.Fatal("not all readers got the same token")
		}
	}
	if n := e.redox.Counters().Token.Requests; n != 1 {
		t.Errorf("Redox was asked %d times", n)
	}
}

// tokenOverHTTP reads a token without the CLI; empty when that fails.
func tokenOverHTTP(p person, path string) string {
	request, err := http.NewRequest(http.MethodGet, p.vault.address+"/v1/"+path, nil)
	if err != nil {
		return ""
	}
	request.Header.Set("X-Vault-Token", p.token)
	response, err := httpClient.Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	var s secret
	if json.NewDecoder(response.Body).Decode(&s) != nil {
		return ""
	}
	token, _ := s.Data["access_token"].(string)
	return token
}

// TestWrappedToken hands a token on through Vault's response wrapping.
func TestWrappedToken(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	wrapped := e.secret("read", "-wrap-ttl=60s", e.at("token"))
	if wrapped.WrapInfo == nil || wrapped.Data["access_token"] != nil {
		t.Fatal("the token is not wrapped")
	}
	data := e.data("unwrap", wrapped.WrapInfo.Token)
	if token, _ := data["access_token"].(string); e.opens(token) != http.StatusOK {
		t.Error("what was wrapped is no live token")
	}
	e.refused(http.StatusBadRequest, "unwrap", wrapped.WrapInfo.Token)
}

// TestLeasedToken gives reads a lease where a role asks for it. Revoking it leaves the shared token alone.
func TestLeasedToken(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("roles/counted"), "leased=true")
	first, second := e.secret("read", e.at("token/counted")), e.secret("read", e.at("token/counted"))
	for _, s := range []secret{first, second} {
		if s.LeaseID == "" || s.Renewable || float64(s.LeaseDuration) != s.Data["ttl"] {
			t.Errorf("lease %q of %d s, renewable: %v, ttl: %v", s.LeaseID, s.LeaseDuration, s.Renewable, s.Data["ttl"])
		}
	}
	if first.LeaseID == second.LeaseID || first.Data["access_token"] != second.Data["access_token"] {
		t.Error("two reads were to give two leases and one token")
	}
	e.redox.SetFaults(sandbox.Faults{Reset: true}) // revocation has to do without Redox
	e.must("lease", "revoke", first.LeaseID)
	e.redox.SetFaults(sandbox.Faults{})
	token, _ := second.Data["access_token"].(string)
	if e.opens(token) != http.StatusOK || e.accessToken("token/counted") != token {
		t.Error("revoking one lease took the shared token away")
	}
	if plain := e.secret("read", e.at("token")); plain.LeaseID != "" {
		t.Error("a token without a role that asks for it has a lease")
	}
}

// TestTwoMounts shows that mounts side by side share nothing.
func TestTwoMounts(t *testing.T) {
	t.Parallel()
	first := newReadyEngine(t)
	t.Run("second", func(t *testing.T) {
		second := newReadyEngine(t)
		if first.data("read", first.at("keys/main"))["kid"] == second.data("read", second.at("keys/main"))["kid"] {
			t.Error("the mounts have the same key")
		}
		if first.accessToken("token") == second.accessToken("token") {
			t.Error("the mounts give the same token")
		}
		second.must("write", second.at("keys/main"), "deletion_allowed=true")
		second.must("delete", second.at("config"))
		second.must("delete", second.at("keys/main"))
		if first.opens(first.accessToken("token")) != http.StatusOK {
			t.Error("deleting the key of one mount broke the other")
		}
	})
}

// TestScopeAudienceAndCanada are the settings that change what is asked of whom.
func TestScopeAudienceAndCanada(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("config"), "scope=fhir:read fhir:write")
	if scope := e.data("read", e.at("token"))["scope"]; scope != "fhir:read fhir:write" {
		t.Errorf("the token's scope is %v", scope)
	}
	e.must("write", e.at("config"), "audience=https://elsewhere.example.com/token")
	if check := e.data("write", "-f", e.at("check")); check["ok"] != false {
		t.Error("another audience than the token URL was accepted")
	}
	e.must("write", e.at("config"), "audience=", "base_url=https://api.ca.redoxengine.com")
	config := e.data("read", e.at("config"))
	assertion := e.data("write", "-f", e.at("assertion"))
	const canada = "https://api.ca.redoxengine.com/v2/auth/token"
	if config["token_url"] != canada || config["audience"] != canada || assertion["token_url"] != canada {
		t.Errorf("with Canada's base URL the token URL is %v", config["token_url"])
	}
}

// TestErrorsOfRedoxAndTheNetwork have a status by which clients know what to do, and words for the operator.
func TestErrorsOfRedoxAndTheNetwork(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("config"), "max_retries=0", "request_timeout=1s")
	for _, c := range []struct {
		name   string
		faults sandbox.Faults
		status int
		says   string
	}{
		{"overloaded", sandbox.Faults{Status: 503}, http.StatusBadGateway, "failure of its own"},
		{"connection reset", sandbox.Faults{Reset: true}, http.StatusBadGateway, "closed the connection"},
		{"silent", sandbox.Faults{Latency: sandbox.Duration(time.Minute)}, http.StatusGatewayTimeout, "request_timeout"},
		{"rejected", sandbox.Faults{Status: 400, Body: `{"error":"invalid_request","error_description":""}`}, http.StatusBadRequest, "audience"},
		{"no token", sandbox.Faults{EmptyAccessToken: true}, http.StatusBadGateway, "access_token"},
	} {
		e.redox.SetFaults(c.faults)
		e.must("write", e.at("roles/any"), "disabled=false") // a write forgets the failure before
		if text := e.refused(c.status, "read", e.at("token/any")); !strings.Contains(text, c.says) {
			t.Errorf("%s: %s", c.name, text)
		}
	}
	e.redox.SetFaults(sandbox.Faults{})
	e.must("write", e.at("roles/any"), "disabled=true")
	if text := e.refused(http.StatusBadRequest, "read", e.at("token/any")); !strings.Contains(text, "disabled") {
		t.Error(text)
	}
	if text := e.refused(http.StatusBadRequest, "read", e.at("token/none")); !strings.Contains(text, "no role named") {
		t.Error(text)
	}
}

// TestTLS reaches Redox over TLS that only ca_pem makes trusted.
func TestTLS(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{TLS: true})
	e.must("write", e.at("keys/main"), "algorithm=ES384")
	e.register("client-1", "main")
	e.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL)
	check := e.data("write", "-f", e.at("check"))
	if check["ok"] != false || !strings.Contains(fmt.Sprint(check["action"]), "ca_pem") {
		t.Errorf("an unknown CA is explained with: %v; %v", check["cause"], check["action"])
	}
	e.mustWith(e.redox.CAPEM, "write", e.at("config"), "ca_pem=-")
	if check := e.data("write", "-f", e.at("check")); check["ok"] != true {
		t.Errorf("with ca_pem: %v; %v", check["cause"], check["action"])
	}
	e.accessToken("token")
}
