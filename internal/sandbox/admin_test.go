// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestAdminAPIKeys(t *testing.T) {
	r := newRig(t)
	jwk := string(must(json.Marshal(publicJWK(rsaKey().Public(), "rsa"))))
	text := string(must(json.Marshal(jwk)))
	set := string(jwkSet(publicJWK(rsaKey().Public(), "rsa")))
	for name, source := range map[string]string{
		"JWK as object": `"jwk":` + jwk,
		"JWK as string": `"jwk":` + text,
		"JWK set":       `"jwkSet":` + set,
		"JWKS URL":      `"jwksURL":"` + jwksServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(set)) }) + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			got := r.send("POST", "/sandbox/apikeys", "", `{"name":"x","scope":"read","environmentFlag":"Staging",`+source+`}`)
			id, _ := got.fields["id"].(string)
			if got.status != http.StatusCreated || id == "" {
				t.Fatalf("create: %d %s", got.status, got.body)
			}
			claims := with(with(r.claims(), "iss", id), "sub", id)
			answer := r.post(form(sign(header(), claims, "RS384", rsaKey())))
			if answer.status != http.StatusOK || answer.fields["scope"] != "read" {
				t.Fatalf("token: %d %v %s", answer.status, answer.fields["scope"], lastLine(r))
			}
			token, _ := answer.fields["access_token"].(string)
			if got := r.send("GET", "/fhir/R4/x/Staging/Patient/1", token, ""); got.status != http.StatusOK {
				t.Errorf("FHIR: %d", got.status)
			}
			asked := form(sign(header(), with(claims, "jti", "2"), "RS384", rsaKey()))
			asked.Set("scope", "write")
			if answer := r.post(asked); answer.fields["scope"] != "write" {
				t.Errorf("asked for a scope, got %v", answer.fields["scope"])
			}
			if got := r.send("PUT", "/sandbox/apikeys/"+id, "", `{"jwkSet":{"keys":[]}}`); got.status != http.StatusOK {
				t.Errorf("replace: %d %s", got.status, got.body)
			}
			if answer := r.post(form(sign(header(), with(claims, "jti", "3"), "RS384", rsaKey()))); answer.fields["error_description"] != publicKeyNotFound {
				t.Errorf("with the key replaced: %d", answer.status)
			}
			if got := r.send("GET", "/sandbox/apikeys/"+id, "", ""); got.fields["id"] != id {
				t.Errorf("read: %s", got.body)
			}
			if got := r.send("DELETE", "/sandbox/apikeys/"+id, "", ""); got.status != http.StatusNoContent {
				t.Errorf("delete: %d", got.status)
			}
			if got := r.send("DELETE", "/sandbox/apikeys/"+id, "", ""); got.status != http.StatusNotFound {
				t.Errorf("delete again: %d", got.status)
			}
			if !r.IsLive(token) {
				t.Error("the token died with its API key")
			}
		})
	}
	if got := r.send("GET", "/sandbox/apikeys", "", ""); !strings.Contains(string(got.body), `{"apikeys":[{"id":"client"`) {
		t.Errorf("listed %s", got.body)
	}
}

func TestAdminRejections(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/sandbox/apikeys", `{"id":"client"}`, 409},
		{"POST", "/sandbox/apikeys", `{"nme":"x"}`, 400},
		{"POST", "/sandbox/apikeys", `{"environmentFlag":"Test"}`, 400},
		{"POST", "/sandbox/apikeys", `{"jwk":"-----BEGIN PRIVATE KEY-----"}`, 400},
		{"POST", "/sandbox/apikeys", `{"jwk":""}`, 400},
		{"POST", "/sandbox/apikeys", `{"jwk":{"kid":"x","kty":"RSA","d":"c2VjcmV0"}}`, 400},
		{"POST", "/sandbox/apikeys", `{"jwk":{"kid":"x","kty":"RSA"},"jwksURL":"https://example.com"}`, 400},
		{"POST", "/sandbox/apikeys", `{"name":"` + strings.Repeat("x", otherBodyMax) + `"}`, 413},
		{"PUT", "/sandbox/apikeys/client", `{}`, 400},
		{"PUT", "/sandbox/apikeys/client", `{"jwkSet":null}`, 400},
		{"PUT", "/sandbox/apikeys/client", `{"name":"x"}`, 400},
		{"PUT", "/sandbox/apikeys/unknown", `{"jwksURL":"https://example.com"}`, 404},
		{"GET", "/sandbox/apikeys/unknown", ``, 404},
		{"GET", "/sandbox/ca.pem", ``, 404},
		{"GET", "/sandbox/unknown", ``, 404},
		{"PATCH", "/sandbox/faults", ``, 405},
	} {
		if got := r.send(c.method, c.path, "", c.body); got.status != c.status {
			t.Errorf("%s %s %.60s: got %d %s", c.method, c.path, c.body, got.status, got.body)
		}
	}
	if strings.Contains(r.log.String(), "c2VjcmV0") {
		t.Error("private key material is in the log")
	}
}

func TestSetKeysInGo(t *testing.T) {
	r := newRig(t)
	for name, err := range map[string]error{
		"no set":       r.SetJWKSet(testClient, nil),
		"no JWK":       r.SetJWK(testClient, nil),
		"no URL":       r.SetJWKSURL(testClient, ""),
		"not a set":    r.SetJWKSet(testClient, json.RawMessage(`{}`)),
		"unknown key":  r.SetJWKSet("unknown", jwkSet()),
		"not loopback": r.SetJWKSURL(testClient, "http://example.com"),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := r.SetJWK(testClient, must(json.Marshal(publicJWK(otherRSAKey().Public(), "rsa")))); err != nil {
		t.Error(err)
	}
	if got := r.post(form(sign(header(), r.claims(), "RS384", otherRSAKey()))); got.status != http.StatusOK {
		t.Errorf("with the new key: %d %s", got.status, lastLine(r))
	}
}

func TestCounters(t *testing.T) {
	r := newRig(t)
	r.token()
	r.post(form("nonsense"))
	r.post(form(sign(header(), with(r.claims(), "aud", "x"), "RS384", rsaKey())))
	r.send("GET", "/fhir/R4/x/Development/Patient/1", "", "")
	want := `{"token":{"requests":3,"issued":1,"rejected":{"(empty)":2},"faulted":0,"abandoned":0,` +
		`"clients":{"(unknown)":{"issued":0,"rejected":1},"client":{"issued":1,"rejected":1}}},` +
		`"fhir":{"requests":1,"rejected":1,"faulted":0},"platform":{"requests":0,"rejected":0,"faulted":0},` +
		`"jwks_fetches":{"succeeded":0,"failed":0}}`
	if got := strings.TrimSpace(string(r.send("GET", "/sandbox/counters", "", "").body)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := r.send("DELETE", "/sandbox/counters", "", ""); got.status != http.StatusNoContent {
		t.Errorf("reset: %d", got.status)
	}
	if c := r.Counters(); c.Token.Requests != 0 || len(c.Token.Clients) != 0 || c.FHIR.Requests != 0 {
		t.Errorf("after the reset: %+v", c)
	}
}

func TestCountersAreBounded(t *testing.T) {
	s := New(Options{})
	for i := range clientsMax + 10 {
		s.counters.tokenIssued(fmt.Sprint(i))
	}
	if c := s.Counters().Token; len(c.Clients) != clientsMax+1 || c.Clients[otherClients].Issued != 10 {
		t.Errorf("%d clients, %+v others", len(c.Clients), c.Clients[otherClients])
	}
}

func TestHelp(t *testing.T) {
	r := newRig(t)
	got := r.send("GET", "/", "", "")
	if got.status != http.StatusOK || !strings.Contains(string(got.body), r.URL+"/v2/auth/token") || strings.Contains(string(got.body), "%!") {
		t.Errorf("got %d %s", got.status, got.body)
	}
}
