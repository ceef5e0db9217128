// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// TestCheckExplains provokes every error that Redox documents, and looks at what an operator is told. What a correct
// plugin can't bring about by its settings is answered by a fault.
func TestCheckExplains(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.register("client-2", "main")
	e.must("write", e.at("config"), "max_retries=0")
	said := func(description string) sandbox.Faults {
		return sandbox.Faults{Status: http.StatusBadRequest, Body: fmt.Sprintf(`{"error":"invalid_request","error_description":%q}`, description)}
	}
	for _, c := range []struct {
		name   string
		role   map[string]string
		faults sandbox.Faults
		says   []string // in cause or action
	}{
		{"nothing wrong", nil, sandbox.Faults{}, nil},
		{"wrong client ID", map[string]string{"client_id": "nobody"}, sandbox.Faults{}, []string{"Redox dashboard", "client_id", "kid"}},
		{"wrong jku", map[string]string{"jku": "https://example.com/jwks"}, sandbox.Faults{}, []string{"gave no reason"}},
		{"Redox's clock ahead", nil, sandbox.Faults{ClockOffset: sandbox.Duration(10 * time.Minute)}, []string{"clock", "behind", "NTP"}},
		{"Redox's clock behind", nil, sandbox.Faults{ClockOffset: sandbox.Duration(-10 * time.Minute)}, []string{"clock", "ahead", "NTP"}},
		{"content type", nil, said("x-www-form-urlencoded content-type required"), []string{"content type", "proxy"}},
		{"grant_type missing", nil, said("Missing grant_type parameter"), []string{"grant_type", "proxy"}},
		{"grant_type other", nil, said("The grant_type parameter should equal 'client_credentials'"), []string{"grant_type", "token_url"}},
		{"assertion type missing", nil, said("Missing client assertion type"), []string{"client_assertion_type", "proxy"}},
		{"assertion type other", nil, said("Invalid client assertion type"), []string{"client_assertion_type", "proxy"}},
		{"assertion missing", nil, said("Missing client assertion"), []string{"client_assertion is gone", "proxy"}},
		{"kid missing", nil, said("JWT header kid property is required"), []string{"kid"}},
		{"claim aud", nil, said("Unexpected aud claim value"), []string{"audience"}},
		{"claim jti", nil, said("Unexpected jti claim value"), []string{"jti"}},
		{"claim unknown", nil, said("Unexpected abc claim value"), []string{"claim or header"}},
		{"undocumented", nil, said("The moon is full"), []string{"The moon is full", "OAuth API key"}},
		{"rate limit", nil, sandbox.Faults{Status: 429, RetryAfter: "7"}, []string{"rate"}},
		{"gateway", nil, sandbox.Faults{Status: 502, Body: "<html>Bad Gateway</html>"}, []string{"gateway"}},
		{"web page", nil, sandbox.Faults{Status: 200, Body: "<html>Log in</html>"}, []string{"HTML page"}},
		{"redirect", nil, sandbox.Faults{Redirect: "https://example.com/"}, []string{"redirect"}},
	} {
		e.redox.SetFaults(c.faults)
		e.must("write", e.at("roles/tried"), "client_id="+cmp.Or(c.role["client_id"], "client-2"), "jku="+c.role["jku"])
		check := e.data("write", "-f", e.at("check/tried"))
		if ok := len(c.says) == 0; check["ok"] != ok {
			t.Errorf("%s: ok is %v", c.name, check["ok"])
		}
		told := fmt.Sprint(check["cause"], "; ", check["action"], "; ", check["error_description"])
		for _, want := range c.says {
			if !strings.Contains(told, want) {
				t.Errorf("%s: nothing of %q in: %s", c.name, want, told)
			}
		}
	}
	// And as a person reads it.
	e.redox.SetFaults(sandbox.Faults{})
	table := e.must("write", "-f", e.at("check"))
	for _, want := range []string{"ok ", "true", "latency_ms", "token_lifetime", "300"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table has no %q:\n%s", want, table)
		}
	}
}
