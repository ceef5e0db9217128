// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestWhereVaultKeepsTokens looks for tokens in Vault's decrypted storage. docs/security.md says where they are: that of
// a leased read in its lease until that ends, a wrapped one until it is unwrapped, and any other nowhere. The server is
// one of its own: what is read there must not get into the raw audit log, which is searched for secrets.
func TestWhereVaultKeepsTokens(t *testing.T) {
	t.Parallel()
	s := newOwnServer(t)
	e := mountOn(t, s)
	e.must("write", e.at("roles/leased"), "leased=true")

	wantKept := func(what, token string, parts ...string) {
		t.Helper()
		at := s.storedWith(t, "", token)
		if len(at) != len(parts) || len(at) == 1 && !strings.Contains(at[0], parts[0]) {
			t.Errorf("a token that was %s is kept at %v", what, at)
		}
	}
	wrapped := e.secret("read", "-wrap-ttl=5m", e.at("token"))
	plain := e.accessToken("token") // the same one
	wantKept("wrapped", plain, "/response")
	e.must("unwrap", "-field=ttl", wrapped.WrapInfo.Token)
	wantKept("read, and unwrapped", plain)

	leased := e.secret("read", e.at("token/leased"))
	token, _ := leased.Data["access_token"].(string)
	wantKept("leased", token, "sys/expire/id/"+leased.LeaseID)
	e.must("lease", "revoke", "-sync", leased.LeaseID)
	wantKept("leased, and revoked", token)
}

// storedWith gives the entries of Vault's storage below a prefix that hold a text.
func (s *vaultServer) storedWith(t *testing.T, prefix, text string) (at []string) {
	t.Helper()
	var names struct{ Data struct{ Keys []string } }
	if err := json.Unmarshal(s.raw(t, "LIST", prefix), &names); err != nil {
		t.Fatal(err)
	}
	for _, name := range names.Data.Keys {
		if strings.HasSuffix(name, "/") {
			at = append(at, s.storedWith(t, prefix+name, text)...)
		} else if strings.Contains(string(s.raw(t, http.MethodGet, prefix+name)), text) {
			at = append(at, prefix+name)
		}
	}
	return at
}

// raw asks sys/raw, and keeps nothing of the answer, which may be a secret.
func (s *vaultServer) raw(t *testing.T, method, path string) []byte {
	t.Helper()
	request, err := http.NewRequest(method, s.address+"/v1/sys/raw/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Vault-Token", s.rootToken)
	response, err := httpClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}
