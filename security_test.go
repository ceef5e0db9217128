// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// securityPages are the pages that say what is protected, how, and which test shows it.
var securityPages = []string{"docs/security.md", "docs/internals/rfcs.md", "SECURITY.md"}

// TestSecurityPagesNameWhatIsThere: a test or a file that a page names exists, so that what is claimed can be looked up.
func TestSecurityPagesNameWhatIsThere(t *testing.T) {
	link := regexp.MustCompile(`\[([^\]]+)\]\(([^)]+)\)`)
	named := regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w*`)
	tests := 0
	for _, page := range securityPages {
		text := string(must(os.ReadFile(page)))
		for _, l := range link.FindAllStringSubmatch(text, -1) {
			name, target := l[1], l[2]
			if strings.Contains(target, "://") {
				continue
			}
			file, _, _ := strings.Cut(target, "#")
			if file == "" {
				file = filepath.Base(page)
			}
			content, err := os.ReadFile(filepath.Join(filepath.Dir(page), file))
			if info, statErr := os.Stat(filepath.Join(filepath.Dir(page), file)); statErr == nil && info.IsDir() {
				continue
			}
			switch {
			case err != nil:
				t.Errorf("%s leads to %s, which is not there", page, target)
			case named.MatchString(name):
				tests++
				if !strings.Contains(string(content), "func "+name+"(") {
					t.Errorf("%s names %s, which %s does not have", page, name, file)
				}
			}
		}
		for _, name := range named.FindAllString(link.ReplaceAllLiteralString(text, ""), -1) {
			t.Errorf("%s names %s without a link to its file", page, name)
		}
	}
	if tests < 60 {
		t.Errorf("the pages name %d tests only", tests)
	}
}

// TestStolenConfigWrite shows what docs/security.md says of who may write config: pointed at another server, the engine
// sends that its assertions. By itself that is worth nothing, since an assertion is for whom it is sent to; but with the
// audience set, too, the other server can trade it.
func TestStolenConfigWrite(t *testing.T) {
	m := newReadyMount(t)
	var received string
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received = r.FormValue("client_assertion")
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(thief.Close)
	trade := func() (status int) {
		t.Helper()
		response, err := http.PostForm(m.redox.TokenURL(), url.Values{
			"grant_type": {"client_credentials"}, "client_assertion": {received},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	m.write("config", fields{"token_url": thief.URL, "max_retries": 0})
	m.failed(logical.ReadOperation, "token", nil)
	if status := trade(); status == http.StatusOK || received == "" {
		t.Errorf("an assertion for another server is worth a token: %d", status)
	}
	m.write("config", fields{"audience": m.redox.TokenURL()})
	m.failed(logical.ReadOperation, "token", nil)
	if status := trade(); status != http.StatusOK {
		t.Errorf("docs/security.md warns of what does not work: %d", status)
	}
	if status := trade(); status == http.StatusOK {
		t.Error("an assertion works twice")
	}
}

// TestStolenPlatformURL shows what docs/security.md says of who may write config where the engine registers keys: pointed
// at another server, the engine sends that a token that can change API keys.
func TestStolenPlatformURL(t *testing.T) {
	m := newPlatformMount(t)
	received := ""
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		received = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}))
	t.Cleanup(thief.Close)
	m.write("config", fields{"platform_url": thief.URL})
	m.write("keys/main/register", nil)
	if received == "" || received != m.accessToken(logical.ReadOperation, "token/manager") {
		t.Error("docs/security.md warns of what does not work")
	}
}

// TestStolenRoleWrite shows what docs/security.md says of who may write roles: tokens of every API key that trusts a key
// of the mount.
func TestStolenRoleWrite(t *testing.T) {
	m := newReadyMount(t)
	m.register("client-2", "main") // of another team, with the same signing key
	m.write("roles/thief", fields{"client_id": "client-2"})
	if got := m.read("token/thief")["client_id"]; got != "client-2" {
		t.Errorf("the token is of %v", got)
	}
}

// TestStorageHoldsNoToken: whatever is asked for, the engine stores neither a token nor an assertion, nor gives Vault one
// to keep with a lease.
func TestStorageHoldsNoToken(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/leased", fields{"leased": true})
	m.write("keys/main/rotate", nil)
	var secrets []string
	for _, path := range []string{"token", "token/leased"} {
		secrets = append(secrets, m.accessToken(logical.ReadOperation, path), m.accessToken(logical.UpdateOperation, path))
	}
	secrets = append(secrets, fmt.Sprint(m.write("assertion", nil)["client_assertion"]))
	m.write("check", nil)
	m.passNow()
	for _, stored := range m.storage.written() {
		for _, secret := range secrets {
			if secret == "" || strings.Contains(string(stored.Value), secret) {
				t.Fatalf("%s holds a token or an assertion", stored.Key)
			}
		}
	}
	response, err := m.request(logical.ReadOperation, "token/leased", nil)
	if err != nil || response.Secret == nil {
		t.Fatalf("there is no lease: %v", err)
	}
	for _, secret := range secrets {
		if strings.Contains(fmt.Sprint(response.Secret.InternalData), secret) {
			t.Error("the lease's internal data hold a token")
		}
	}
}
