// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// described is an error body as Redox documents it.
func described(description string) string {
	return fmt.Sprintf(`{"error":"invalid_request","error_description":%q,"error_uri":"https://docs.redoxengine.com/"}`, description)
}

func TestDiagnoses(t *testing.T) {
	tests := []struct {
		name   string
		answer answer
		kind   Kind
		cause  string
		action string // words that must be there, separated by spaces
	}{
		// Each row of the table in REDOX.md.
		{"content type", answer{400, nil, described("x-www-form-urlencoded content-type required")}, Rejected, "form content type is gone", "token_url proxy"},
		{"no grant_type", answer{400, nil, described("Missing grant_type parameter")}, Rejected, "grant_type is gone", "token_url proxy"},
		{"other grant_type", answer{400, nil, described("The grant_type parameter should equal 'client_credentials'")}, Rejected, "grant_type is another", "token_url proxy"},
		{"no assertion type", answer{400, nil, described("Missing client assertion type")}, Rejected, "client_assertion_type is gone", "token_url proxy"},
		{"other assertion type", answer{400, nil, described("Invalid client assertion type")}, Rejected, "client_assertion_type is another", "token_url proxy"},
		{"no assertion", answer{400, nil, described("Missing client assertion")}, Rejected, "client_assertion is gone", "token_url proxy"},
		{"no kid", answer{400, nil, described("JWT header kid property is required")}, Rejected, "no kid", "key kid rotate import"},
		{"public key", answer{401, nil, described("Public key not found, check client_id, kid and Redox dashboard settings")}, Rejected, "no public key", "dashboard client_id kid jku save"},
		{"aud", answer{400, nil, described("Unexpected aud claim value")}, Rejected, "audience", "audience token_url"},
		{"iss", answer{400, nil, described("Unexpected iss claim value")}, Rejected, "client ID", "client_id dashboard"},
		{"sub", answer{400, nil, described("Unexpected sub claim value")}, Rejected, "client ID", "client_id dashboard"},
		{"iat", answer{400, nil, described("Unexpected iat claim value")}, Rejected, "time of issue", "clock NTP assertion_ttl clock_skew"},
		{"exp", answer{400, nil, described("Unexpected exp claim value")}, Rejected, "expiry", "clock NTP assertion_ttl clock_skew"},
		{"jti", answer{400, nil, described("Unexpected jti claim value")}, Rejected, "jti", "proxy repeats"},
		{"kid", answer{400, nil, described("Unexpected 'kid' claim value")}, Rejected, "kid", "kid dashboard"},
		{"alg", answer{400, nil, described("Unexpected alg claim value")}, Rejected, "algorithm", "RS384 ES384 dashboard"},
		{"jku", answer{400, nil, described("Unexpected jku claim value")}, Rejected, "JWKS URL", "jku dashboard"},
		{"another claim", answer{400, nil, described("Unexpected typ claim value")}, Rejected, "claim or header value", "client_id audience jku kid"},

		// Empty descriptions, with and without a clock to look at.
		{"empty, clock agrees", answer{400, nil, described("")}, Rejected, "agrees with Redox's", "audience algorithm assertion_ttl"},
		{"empty, clock 10 s off", answer{400, map[string]string{"Date": "Sun, 01 Mar 2026 12:00:10 GMT"}, described("")}, Rejected, "agrees with Redox's", "audience"},
		{"empty, clock 10 s off the other way", answer{400, map[string]string{"Date": "Sun, 01 Mar 2026 11:59:50 GMT"}, described("")}, Rejected, "agrees with Redox's", "audience"},
		{"empty, clock behind", answer{400, map[string]string{"Date": "Sun, 01 Mar 2026 12:01:15 GMT"}, described("")}, Rejected, "clock of the Vault server is 1m15s behind Redox's", "NTP assertion_ttl audience"},
		{"empty, clock ahead", answer{401, map[string]string{"Date": "Sun, 01 Mar 2026 11:59:20 GMT"}, described("")}, Rejected, "clock of the Vault server is 40s ahead of Redox's", "NTP clock_skew audience"},
		{"empty, no clock", answer{400, map[string]string{"Date": ""}, described("")}, Rejected, "or a wrong clock", "audience algorithm NTP"},
		{"no body at all", answer{401, nil, ""}, Rejected, "Redox gave no reason", "audience"},
		{"invalid_client without description", answer{401, nil, `{"error":"invalid_client"}`}, Rejected, "Redox gave no reason", "audience"},

		// Codes of RFC 6749 section 5.2.
		{"invalid_client", answer{401, nil, `{"error":"invalid_client","error_description":"no"}`}, Rejected, "this client's assertion", "client_id kid dashboard"},
		{"unauthorized_client", answer{400, nil, `{"error":"unauthorized_client"}`}, Rejected, "may not use client credentials", "client_id dashboard"},
		{"access_denied", answer{401, nil, `{"error":"access_denied"}`}, Rejected, "denies", "client_id dashboard"},
		{"invalid_scope", answer{400, nil, `{"error":"invalid_scope"}`}, Rejected, "scope asked for", "scope dashboard"},
		{"invalid_grant", answer{400, nil, `{"error":"invalid_grant"}`}, Rejected, "assertion", "client_id clock"},
		{"unsupported_grant_type", answer{400, nil, `{"error":"unsupported_grant_type"}`}, Rejected, "grant", "token_url"},
		{"undocumented", answer{400, nil, described("The moon is full")}, Rejected, "Redox rejected the token request", "client_id key audience scope dashboard"},

		// Statuses and gateways.
		{"403", answer{403, nil, `{"message":"Forbidden"}`}, Rejected, "forbidden", "dashboard base_url"},
		{"403 HTML", answer{403, nil, "<html>"}, Rejected, "forbidden", "dashboard base_url"},
		{"403 with words of Redox", answer{403, nil, described("Public key not found")}, Rejected, "no public key", "dashboard"},
		{"404", answer{404, nil, "not found"}, Rejected, "no token endpoint", "base_url token_url"},
		{"405", answer{405, nil, ""}, Rejected, "no token endpoint", "base_url token_url"},
		{"407", answer{407, nil, "<html>"}, Rejected, "proxy asks for credentials", "HTTPS_PROXY"},
		{"408", answer{408, nil, ""}, Unavailable, "too long", "proxy"},
		{"418", answer{418, nil, "short and stout"}, Rejected, "not as a token endpoint does", "base_url audience"},
		{"HTML", answer{400, nil, "<!DOCTYPE html>"}, Rejected, "web page", "token_url proxy"},
		{"a large page", answer{400, nil, "<html>" + strings.Repeat("x", 100<<10)}, Rejected, "web page", "token_url proxy"},
		{"429", answer{429, nil, ""}, Unavailable, "limits the rate", "address"},
		{"299", answer{299, nil, ""}, InvalidResponse, "a status that no token endpoint gives", "token_url"},
		{"300", answer{300, nil, ""}, Rejected, "a redirect, which is not followed", "token_url"},
		{"399", answer{399, nil, ""}, Rejected, "a redirect, which is not followed", "token_url"},
		{"499", answer{499, nil, ""}, Rejected, "Redox gave no reason", "audience"},
		{"500", answer{500, nil, ""}, Unavailable, "failure of its own", "later"},
		{"502 HTML", answer{502, nil, "<html>"}, Unavailable, "failure of its own", "later"},
		{"503", answer{503, nil, described("Public key not found")}, Unavailable, "failure of its own", "later"},
		{"504", answer{504, nil, ""}, Unavailable, "failure of its own", "later"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, ok := test.answer.header["Date"]; !ok {
				test.answer.header = map[string]string{"Date": "Sun, 01 Mar 2026 12:00:00 GMT"}
			}
			tokenURL, _ := scripted(t, test.answer)
			now := time.Date(2026, 3, 1, 12, 0, 0, int(500*time.Millisecond), time.UTC)
			c := newTestClient(t, Options{Now: func() time.Time { return now }})
			r := request(tokenURL)
			r.MaxRetries = 0
			token, err := c.RequestToken(t.Context(), r)
			e := failureOf(t, token, err)
			if e.Kind != test.kind || e.StatusCode != test.answer.status {
				t.Errorf("kind %v, status %d; want %v, %d", e.Kind, e.StatusCode, test.kind, test.answer.status)
			}
			if !strings.Contains(e.Cause, test.cause) {
				t.Errorf("cause is %q, want %q in it", e.Cause, test.cause)
			}
			for word := range strings.FieldsSeq(test.action) {
				if !strings.Contains(e.Action, word) {
					t.Errorf("action is %q, want %q in it", e.Action, word)
				}
			}
			text := e.Error()
			checkErrorText(t, text)
			for _, part := range []string{e.Cause, e.Action, fmt.Sprintf("HTTP %d", e.StatusCode), e.Code, e.Description} {
				if !strings.Contains(text, part) {
					t.Errorf("text %q lacks %q", text, part)
				}
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	tests := []struct {
		e    Error
		want string
	}{
		{Error{Cause: "cause"}, "cause"},
		{Error{Cause: "cause", Action: "action"}, "cause; action"},
		{
			Error{Cause: "cause", Action: "action", StatusCode: 429, Code: "slow_down", Description: `a "b"`, RetryAfter: 90 * time.Second, Attempts: 3},
			`cause (HTTP 429, slow_down, "a \"b\"", Redox asks to wait 1m30s, 3 attempts); action`,
		},
	}
	for _, test := range tests {
		if got := test.e.Error(); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

func TestKindNames(t *testing.T) {
	for kind, want := range map[Kind]string{0: "unknown", Rejected: "rejected", Unavailable: "unavailable", Timeout: "timeout", InvalidResponse: "invalid_response"} {
		if kind.String() != want {
			t.Errorf("kind %d is called %s, want %s", int(kind), kind, want)
		}
	}
}

func TestPublicKeyNotFound(t *testing.T) {
	const documented = "Public key not found, check client_id, kid and Redox dashboard settings"
	tests := []struct {
		status      int
		description string
		want        bool
	}{
		{400, documented, true}, {401, documented, true}, {404, documented, true},
		{400, "Public key not found", true},
		{200, documented, false}, {302, documented, false}, {500, documented, false}, {503, documented, false},
		{400, "public key not found", false},
		{400, "Error: " + documented, false},
		{400, "Public key", false},
		{400, "", false},
	}
	for _, test := range tests {
		tokenURL, _ := scripted(t, answer{test.status, nil, described(test.description)})
		r := request(tokenURL)
		r.MaxRetries = 0
		token, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
		if got := failureOf(t, token, err).PublicKeyNotFound(); got != test.want {
			t.Errorf("%d %q gives %v", test.status, test.description, got)
		}
	}
}

// TestNothingSecretInErrors: an answer that echoes what was sent, or that
// holds a token but can't be used, shows nothing of it.
func TestNothingSecretInErrors(t *testing.T) {
	const assertion = "eyJhbGciOiJSUzM4NCIsImtpZCI6IjEifQ.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"
	const token = "S3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr3t"
	for _, a := range []answer{
		{400, nil, described("you sent " + assertion)},
		{400, nil, described("Public key not found for " + assertion)},
		{400, nil, `{"error":"` + assertion + `"}`},
		{400, nil, assertion},
		{200, nil, `{"access_token":"` + token + `"`},
		{200, nil, `{"access_token":"` + token + `","expires_in":0}`},
		{200, nil, `{"error":"` + token + `","error_description":"` + token + `"}`},
		{302, map[string]string{"Location": "https://elsewhere/?token=" + token}, ""},
		{503, map[string]string{"Retry-After": token}, token},
	} {
		tokenURL, _ := scripted(t, a)
		r := request(tokenURL + "?" + token)
		r.Assertion = func() (string, error) { return assertion, nil }
		got, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
		text := fmt.Sprintf("%v %+v", failureOf(t, got, err), *failureOf(t, got, err))
		for _, secret := range []string{token, "S3cr3t", "eyJ", "c2lnbmF0dXJl"} {
			if strings.Contains(text, secret) {
				t.Errorf("%d %s shows %s in %s", a.status, a.body, secret, text)
			}
		}
	}
}

func FuzzErrorResponse(f *testing.F) {
	for _, seed := range []struct {
		status                 int
		body, date, retryAfter string
	}{
		{400, described(""), "Sun, 01 Mar 2026 12:00:00 GMT", ""},
		{401, described("Public key not found, check client_id, kid and Redox dashboard settings"), "", ""},
		{400, described("Unexpected aud claim value"), "", ""},
		{400, described("Unexpected  claim value"), "", "-1"},
		{400, `{"error":"invalid_scope","error_description":"eyJhbGciOiJSUzM4NCJ9.eyJpc3MiOiJ4In0.c2ln\u202e\n"}`, "", ""},
		{400, `{"error":["x"],"error_description":{}}`, "", ""},
		{403, "<html>", "", ""},
		{429, "", "Sun, 01 Mar 2026 12:00:00 GMT", "Sun, 01 Mar 2026 12:00:07 GMT"},
		{503, strings.Repeat("0123456789abcdef", 20), "", "7"},
		{302, "", "", ""},
		{201, "{}", "", ""},
	} {
		f.Add(seed.status, []byte(seed.body), seed.date, seed.retryAfter)
	}
	endpoint := &url.URL{Scheme: "https", Host: "redox.test"}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, status int, body []byte, date, retryAfter string) {
		if status < 100 || status > 999 || status == http.StatusOK {
			return // net/http lets no other status through; 200 is no rejection
		}
		header := http.Header{"Date": {date}, "Retry-After": {retryAfter}}
		got := &reply{response: &http.Response{StatusCode: status, Header: header}, body: body, received: now}
		got.offset, got.offsetKnown = clockOffset(date, now, now)
		e := rejection(endpoint, got)
		checkErrorText(t, e.Error())
		if e.Kind < Rejected || e.Kind > InvalidResponse || e.Cause == "" || e.Action == "" {
			t.Errorf("status %d has no diagnosis: %+v", status, e)
		}
		if e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter {
			t.Errorf("RetryAfter %v", e.RetryAfter)
		}
		if e.PublicKeyNotFound() && (status < 400 || status >= 500) {
			t.Errorf("status %d says that the public key was not found", status)
		}
		if e.retryable && e.Kind == Rejected {
			t.Errorf("status %d is rejected, and tried again", status)
		}
	})
}

// TestTroubleshootingHasRedoxsWords: who searches docs/troubleshooting.md for what Redox said finds it.
func TestTroubleshootingHasRedoxsWords(t *testing.T) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(page)), " ")
	var words []string
	for _, e := range documentedErrors {
		words = append(words, e.prefix)
	}
	for name := range unexpectedValues {
		words = append(words, "Unexpected "+name+" claim value")
	}
	for said := range codeDiagnoses {
		words = append(words, said)
	}
	for _, said := range words {
		if !strings.Contains(text, "`"+said) {
			t.Errorf("docs/troubleshooting.md has not %q", said)
		}
	}
}
