// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// TestLogIsInWords shows what the lines look like.
func TestLogIsInWords(t *testing.T) {
	r := newRig(t)
	r.token()
	r.post(form(sign(with(header(), "kid", "gone"), r.claims(), "RS384", rsaKey())))
	r.send("GET", "/nowhere", "", "")
	want := "12:00:00 token     issued for client client signed with kid rsa (RS384), lives 300s\n" +
		"12:00:00 token     rejected: Public key not found, check client_id, kid and Redox dashboard settings (client client, kid gone): the kid is not in the API key's JWK set\n" +
		"12:00:00 other     GET /nowhere: 404 Not Found\n"
	if got := r.log.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestLogIsClean puts tokens and assertions wherever a caller can put something, and control characters, too.
func TestLogIsClean(t *testing.T) {
	r := newRig(t)
	token := r.token()
	assertion := r.valid()
	claims := with(r.claims(), "jti", "secret-nonce")
	evil := "line\nbreak\x1b[31m\u202e" + strings.Repeat("x", 1000)
	for _, text := range []string{token, assertion, evil} {
		for _, h := range []string{"kid", "alg", "typ", "jku"} {
			r.post(form(sign(with(header(), h, text), claims, "RS384", rsaKey())))
		}
		for _, c := range []string{"iss", "sub", "aud"} {
			r.post(form(sign(header(), with(claims, c, text), "RS384", rsaKey())))
		}
		f := form(assertion)
		f.Set("grant_type", text)
		r.post(f)
		f = form(assertion)
		f.Set("client_assertion_type", text)
		r.post(f)
		if text != evil { // net/http takes control characters neither in a path nor in a header
			if _, err := r.do(t.Context(), "POST", tokenPath, text, "", "x"); err != nil {
				t.Error(err)
			}
			r.send("GET", "/fhir/R4/x/Development/Patient/"+text, token, "")
			r.send("GET", "/fhir/R4/x/"+text+"/Patient/1", token, "")
			r.send("GET", "/platform/v1/apikeys/"+text, token, "")
			r.send("GET", "/sandbox/apikeys/"+text, token, "")
			r.send("PUT", "/sandbox/faults", "", `{"`+text+`":1}`)
			r.send("GET", "/"+text, "", "")
		}
	}
	r.post(form(sign(header(), claims, "RS384", rsaKey())))
	r.post(form(sign(header(), claims, "RS384", rsaKey())))
	log := r.log.String()
	for name, secret := range map[string]string{
		"a token": TokenPrefix, "an assertion": "eyJ", "a signature": assertion[strings.LastIndex(assertion, ".")+1:][:20], "a jti": "secret-nonce",
		"an escape": "\x1b", "a bidi override": "\u202e",
	} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %s", name)
		}
	}
	line := regexp.MustCompile(`^\d\d:\d\d:\d\d (token|fhir|platform|admin|other) +\S.*$`)
	for _, got := range strings.Split(strings.TrimSuffix(log, "\n"), "\n") {
		if !line.MatchString(got) || len(got) > 600 {
			t.Errorf("not a line of log: %q", got)
		}
	}
	lines := len(regexp.MustCompile(`(?m)^\S+ token`).FindAllString(log, -1))
	if requests := r.Counters().Token.Requests; lines != requests || requests == 0 {
		t.Errorf("%d lines for %d token requests", lines, requests)
	}
}

func TestSilentWithoutLog(t *testing.T) {
	s := New(Options{})
	recorder := httptest.NewRecorder()
	s.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/sandbox/counters", nil))
	if recorder.Code != http.StatusOK {
		t.Errorf("got %d", recorder.Code)
	}
}
