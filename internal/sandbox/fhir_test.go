// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"net/http"
	"strings"
	"testing"
)

func TestPatient(t *testing.T) {
	r := newRig(t)
	token := r.token()
	const path = "/fhir/R4/redox-fhir-sandbox/Development/Patient/"
	for _, c := range []struct {
		name, path, token string
		status            int
		resource          string
	}{
		{"live token", path + "123", token, 200, "Patient"},
		{"no token", path + "123", "", 401, "OperationOutcome"},
		{"made-up token", path + "123", TokenPrefix + "x", 401, "OperationOutcome"},
		{"token and more", path + "123", token + "x", 401, "OperationOutcome"},
		{"another environment", "/fhir/R4/redox-fhir-sandbox/Production/Patient/123", token, 403, "OperationOutcome"},
		{"environment in small letters", "/fhir/R4/redox-fhir-sandbox/development/Patient/123", token, 403, "OperationOutcome"},
		{"not a FHIR id", path + "1_2", token, 404, "OperationOutcome"},
	} {
		got := r.send("GET", c.path, c.token, "")
		if got.status != c.status || got.fields["resourceType"] != c.resource || got.header.Get("Content-Type") != fhirType {
			t.Errorf("%s: got %d %s", c.name, got.status, got.body)
		}
		if (got.header.Get("WWW-Authenticate") != "") != (c.status == 401) {
			t.Errorf("%s: WWW-Authenticate is %q", c.name, got.header.Get("WWW-Authenticate"))
		}
	}
	if c := r.Counters().FHIR; c.Requests != 7 || c.Rejected != 5 {
		t.Errorf("counted %+v", c)
	}
	r.clock.advance(12e9)
	if got := r.send("GET", path+"123", token, ""); got.fields["id"] != "123" {
		t.Errorf("got %s", got.body)
	}
	if want := "fhir      Patient/123 read with a token issued 12s ago to client " + testClient; !strings.Contains(lastLine(r), want) {
		t.Errorf("the log says %q", lastLine(r))
	}
	r.clock.advance(tokenLifetime)
	if got := r.send("GET", path+"123", token, ""); got.status != http.StatusUnauthorized {
		t.Errorf("a dead token reads: %d", got.status)
	}
}
