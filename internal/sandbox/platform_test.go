// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// apikeyOf gives payload.apikey of an answer, after checking the envelope.
func apikeyOf(t *testing.T, got reply) map[string]any {
	t.Helper()
	meta, _ := got.fields["meta"].(map[string]any)
	payload, _ := got.fields["payload"].(map[string]any)
	apikey, _ := payload["apikey"].(map[string]any)
	if meta["version"] != "1.0.0" || apikey == nil {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	return apikey
}

func TestPlatformFlow(t *testing.T) {
	r := newRig(t)
	token := r.managementToken()
	const keyPath = "/platform/v1/apikeys/" + testClient

	apikey := apikeyOf(t, r.send("GET", keyPath, token, ""))
	environment, _ := apikey["environment"].(map[string]any)
	if apikey["id"] != testClient || apikey["name"] != "test" || apikey["jwksURL"] != nil ||
		environment["environmentFlag"] != Development || environment["id"] != environmentID(Development) {
		t.Errorf("read %v", apikey)
	}

	// PATCH replaces the set as a whole, keeps members it doesn't know, and leaves the name alone.
	apikey = apikeyOf(t, r.send("PATCH", keyPath, token, `{"jwkSet":{"keys":[{"kty":"RSA","kid":"foreign","x-note":"kept"}]}}`))
	if set := string(must(json.Marshal(apikey["jwkSet"]))); set != `{"keys":[{"kid":"foreign","kty":"RSA","x-note":"kept"}]}` || apikey["name"] != "test" {
		t.Errorf("after PATCH: %v", apikey)
	}
	if got := r.post(form(r.valid())); got.fields["error_description"] != publicKeyNotFound {
		t.Errorf("the replaced key still works: %d", got.status)
	}
	// A URL takes the set's place, and the other way round.
	apikey = apikeyOf(t, r.send("PATCH", keyPath, token, `{"jwksURL":"https://example.com/jwks","name":"renamed"}`))
	if apikey["jwksURL"] != "https://example.com/jwks" || apikey["jwkSet"] != nil || apikey["name"] != "renamed" {
		t.Errorf("after PATCH with a URL: %v", apikey)
	}
	apikey = apikeyOf(t, r.send("PATCH", keyPath, token, `{"jwksURL":null,"jwkSet":{"keys":[]}}`))
	if apikey["jwksURL"] != nil || apikey["jwkSet"] == nil {
		t.Errorf("after PATCH with a set: %v", apikey)
	}

	got := r.send("POST", "/platform/v1/environments/staging-environment/apikeys", token, `{"name":"new","jwksURL":"https://example.com/jwks"}`)
	created := apikeyOf(t, got)
	id, _ := created["id"].(string)
	environment, _ = created["environment"].(map[string]any)
	if got.status != http.StatusCreated || len(id) != 36 || environment["environmentFlag"] != Staging {
		t.Errorf("created %d %v", got.status, created)
	}
	got = r.send("GET", "/platform/v1/environments/staging-environment/apikeys", token, "")
	if payload, _ := got.fields["payload"].(map[string]any); len(payload) != 1 || !strings.Contains(string(got.body), `"apikeys":[{"id":"`+id) {
		t.Errorf("listed %s", got.body)
	}
	if got := r.send("GET", "/platform/v1/environments/production-environment/apikeys", token, ""); !strings.Contains(string(got.body), `"apikeys":[]`) {
		t.Errorf("listed %s", got.body)
	}
	apikeyOf(t, r.send("DELETE", "/platform/v1/apikeys/"+id, token, ""))
	if got := r.send("GET", "/platform/v1/apikeys/"+id, token, ""); got.status != http.StatusNotFound {
		t.Errorf("deleted, but read: %d", got.status)
	}
	if c := r.Counters().Platform; c.Requests != 9 || c.Rejected != 0 {
		t.Errorf("counted %+v", c)
	}
}

func TestPlatformRejections(t *testing.T) {
	r := newRig(t)
	manager, plain := r.managementToken(), r.token()
	const keyPath = "/platform/v1/apikeys/" + testClient
	const listPath = "/platform/v1/environments/development-environment/apikeys"
	before, _ := r.APIKey(testClient)
	for _, c := range []struct {
		name, method, path, token, body string
		status                          int
		says                            string
	}{
		{"no token", "GET", keyPath, "", "", 401, "live access token"},
		{"made-up token", "GET", keyPath, TokenPrefix + "made-up", "", 401, "live access token"},
		{"not a user-level key", "GET", keyPath, plain, "", 403, "user-level"},
		{"not a user-level key, POST", "POST", listPath, plain, `{"name":"x"}`, 403, "user-level"},
		{"unknown API key", "GET", "/platform/v1/apikeys/unknown", manager, "", 404, "no API key"},
		{"PATCH unknown API key", "PATCH", "/platform/v1/apikeys/unknown", manager, `{"name":"x"}`, 404, "no API key"},
		{"DELETE unknown API key", "DELETE", "/platform/v1/apikeys/unknown", manager, "", 404, "no API key"},
		{"unknown environment", "GET", "/platform/v1/environments/unknown/apikeys", manager, "", 404, "no environment"},
		{"POST unknown environment", "POST", "/platform/v1/environments/unknown/apikeys", manager, `{"name":"x"}`, 404, "no environment"},
		{"POST without name", "POST", listPath, manager, `{}`, 400, "name"},
		{"not JSON", "PATCH", keyPath, manager, `name=x`, 400, "not a JSON object"},
		{"unknown member", "PATCH", keyPath, manager, `{"jwksUrl":"https://example.com"}`, 400, "name, jwksURL, jwkSet"},
		{"member twice", "PATCH", keyPath, manager, `{"name":"x","name":"y"}`, 400, "twice"},
		{"name a number", "PATCH", keyPath, manager, `{"name":1}`, 400, "the body"},
		{"set with Keys", "PATCH", keyPath, manager, `{"jwkSet":{"Keys":[]}}`, 400, "JWK set"},
		{"two values", "PATCH", keyPath, manager, `{"name":"x"}{}`, 400, "after the JSON object"},
		{"empty name", "PATCH", keyPath, manager, `{"name":""}`, 400, "name"},
		{"both sources", "PATCH", keyPath, manager, `{"jwksURL":"https://example.com","jwkSet":{"keys":[]}}`, 400, "only one"},
		{"http URL", "PATCH", keyPath, manager, `{"jwksURL":"http://example.com"}`, 400, "https"},
		{"userinfo in URL", "PATCH", keyPath, manager, `{"jwksURL":"https://a:b@example.com"}`, 400, "jwksURL"},
		{"empty URL", "PATCH", keyPath, manager, `{"jwksURL":""}`, 400, "jwksURL"},
		{"set without keys", "PATCH", keyPath, manager, `{"jwkSet":{}}`, 400, "keys"},
		{"set an array", "PATCH", keyPath, manager, `{"jwkSet":[]}`, 400, "JWK set"},
		{"key without kid", "PATCH", keyPath, manager, `{"jwkSet":{"keys":[{"kty":"RSA"}]}}`, 400, "kid and kty"},
		{"key without kty", "PATCH", keyPath, manager, `{"jwkSet":{"keys":[{"kid":"x"}]}}`, 400, "kid and kty"},
		{"kid a number", "PATCH", keyPath, manager, `{"jwkSet":{"keys":[{"kid":1,"kty":"RSA"}]}}`, 400, "kid and kty"},
		{"key a string", "PATCH", keyPath, manager, `{"jwkSet":{"keys":["x"]}}`, 400, "not a JSON object"},
		{"private key", "PATCH", keyPath, manager, `{"jwkSet":{"keys":[{"kid":"x","kty":"EC","d":"c2VjcmV0LXZhbHVl"}]}}`, 400, "private"},
		{"symmetric key", "PATCH", keyPath, manager, `{"jwkSet":{"keys":[{"kid":"x","kty":"oct","k":"c2VjcmV0LXZhbHVl"}]}}`, 400, "private"},
		{"kid twice", "PATCH", keyPath, manager, `{"jwkSet":{"keys":[{"kid":"x","kty":"EC"},{"kid":"x","kty":"EC"}]}}`, 400, "unique"},
		{"too large", "PATCH", keyPath, manager, `{"name":"` + strings.Repeat("x", otherBodyMax) + `"}`, 413, "1 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := r.send(c.method, c.path, c.token, c.body)
			if got.status != c.status || !strings.Contains(string(got.body), c.says) {
				t.Errorf("got %d %s, want %d with %q", got.status, got.body, c.status, c.says)
			}
			if (got.header.Get("WWW-Authenticate") != "") != (c.status == 401) {
				t.Errorf("WWW-Authenticate is %q", got.header.Get("WWW-Authenticate"))
			}
			if !strings.Contains(lastLine(r), "platform  rejected") {
				t.Errorf("the log says %q", lastLine(r))
			}
		})
	}
	if after, _ := r.APIKey(testClient); string(after.JWKSet) != string(before.JWKSet) || after.Name != before.Name {
		t.Error("a rejected request changed the API key")
	}
	if strings.Contains(r.log.String(), "c2VjcmV0") {
		t.Error("private key material is in the log")
	}
	if c := r.Counters().Platform; c.Rejected != 4 {
		t.Errorf("counted %+v", c)
	}
	r.clock.advance(tokenLifetime)
	if got := r.send("GET", keyPath, manager, ""); got.status != http.StatusUnauthorized {
		t.Errorf("a dead token reads: %d", got.status)
	}
}
