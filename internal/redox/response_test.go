// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestParseTokenResponse(t *testing.T) {
	type want struct {
		token, scope string
		lifetime     time.Duration
		problem      string // in the error; empty for success
	}
	good := func(lifetime time.Duration) want { return want{"a.b-c", "s", lifetime, ""} }
	bad := func(problem string) want { return want{problem: problem} }
	member := func(extra string) string {
		return `{"access_token":"a.b-c","token_type":"Bearer","scope":"s"` + extra + `}`
	}
	tests := []struct {
		name, body string
		want       want
	}{
		{"as documented", goodBody, want{"token-1", "fhir:development", 300 * time.Second, ""}},
		{"unknown members", member(`,"x":{"a":[1,{"access_token":"z"}]},"expires_in":60`), good(time.Minute)},
		{"names are case-sensitive", member(`,"Access_Token":"z","EXPIRES_IN":-1`), good(300 * time.Second)},
		{"white space around", " \r\n" + member("") + "\n ", good(300 * time.Second)},

		{"lifetime absent", member(""), good(300 * time.Second)},
		{"lifetime null", member(`,"expires_in":null`), good(300 * time.Second)},
		{"lifetime 1", member(`,"expires_in":1`), good(time.Second)},
		{"lifetime with a fraction", member(`,"expires_in":299.99`), good(299 * time.Second)},
		{"lifetime in a string", member(`,"expires_in":"120"`), good(2 * time.Minute)},
		{"lifetime with an exponent", member(`,"expires_in":3e2`), good(300 * time.Second)},
		{"lifetime one hour", member(`,"expires_in":3600`), good(time.Hour)},
		{"lifetime longer", member(`,"expires_in":3601`), good(time.Hour)},
		{"lifetime absurd", member(`,"expires_in":1e400`), good(time.Hour)},
		{"lifetime zero", member(`,"expires_in":0`), bad("expires_in of less than a second")},
		{"lifetime under a second", member(`,"expires_in":0.9`), bad("expires_in of less than a second")},
		{"lifetime negative", member(`,"expires_in":-300`), bad("expires_in of less than zero")},
		{"lifetime absurdly negative", member(`,"expires_in":-1e400`), bad("expires_in of less than zero")},
		{"lifetime NaN", member(`,"expires_in":"NaN"`), bad("expires_in that is not a number")},
		{"lifetime Inf", member(`,"expires_in":"Inf"`), bad("expires_in that is not a number")},
		{"lifetime hexadecimal", member(`,"expires_in":"0x10"`), bad("expires_in that is not a number")},
		{"lifetime with a unit", member(`,"expires_in":"5m"`), bad("expires_in that is not a number")},
		{"lifetime empty", member(`,"expires_in":""`), bad("expires_in that is not a number")},
		{"lifetime true", member(`,"expires_in":true`), bad("expires_in that is not a number")},
		{"lifetime a list", member(`,"expires_in":[300]`), bad("expires_in that is not a number")},

		{"type in other case", `{"access_token":"a.b-c","token_type":"bEARER","scope":"s"}`, good(300 * time.Second)},
		{"type absent", `{"access_token":"a.b-c","scope":"s"}`, good(300 * time.Second)},
		{"type null", `{"access_token":"a.b-c","token_type":null,"scope":"s"}`, good(300 * time.Second)},
		{"type DPoP", `{"access_token":"a","token_type":"DPoP"}`, bad("token_type other than Bearer")},
		{"type empty", `{"access_token":"a","token_type":""}`, bad("token_type other than Bearer")},
		{"type a number", `{"access_token":"a","token_type":1}`, bad("token_type other than Bearer")},

		{"token absent", `{"token_type":"Bearer"}`, bad("without access_token")},
		{"token null", `{"access_token":null}`, bad("without access_token")},
		{"token empty", `{"access_token":""}`, bad("visible ASCII")},
		{"token a number", `{"access_token":12}`, bad("visible ASCII")},
		{"token with a space", `{"access_token":"a b"}`, bad("visible ASCII")},
		{"token with a line break", `{"access_token":"a\nb"}`, bad("visible ASCII")},
		{"token not ASCII", `{"access_token":"ä"}`, bad("visible ASCII")},
		{"token of the first and the last characters that are taken", `{"access_token":"!~"}`, want{"!~", "", 300 * time.Second, ""}},
		{"token as long as may be", `{"access_token":"` + strings.Repeat("a", 16384) + `"}`, want{strings.Repeat("a", 16384), "", 300 * time.Second, ""}},
		{"token too long", `{"access_token":"` + strings.Repeat("a", 16385) + `"}`, bad("visible ASCII")},

		{"scope absent", `{"access_token":"a"}`, want{"a", "", 300 * time.Second, ""}},
		{"scope a list", `{"access_token":"a","scope":["x"]}`, want{"a", "", 300 * time.Second, ""}},
		{"scope to be cleaned", `{"access_token":"a","scope":" x\n\"y\\\u202e system/ExplanationOfBenefit.readwrite "}`, want{"a", "xy system/ExplanationOfBenefit.readwrite", 300 * time.Second, ""}},
		{"scope of the first and the last characters that are taken", `{"access_token":"a","scope":"! ~\u007f"}`, want{"a", "! ~", 300 * time.Second, ""}},
		{"scope with the token in it", `{"access_token":"0123456789abcdef","scope":"a 0123456789abcdef"}`, want{"0123456789abcdef", "", 300 * time.Second, ""}},
		{"scope with a token that may be a word", `{"access_token":"0123456789abcde","scope":"a 0123456789abcde"}`, want{"0123456789abcde", "a 0123456789abcde", 300 * time.Second, ""}},
		{"scope too long", `{"access_token":"a","scope":"` + strings.Repeat("s", 5000) + `"}`, want{"a", strings.Repeat("s", 4096), 300 * time.Second, ""}},

		{"an error", `{"error":"invalid_request"}`, bad("an error with the status of a success")},
		{"empty", "", bad("other than a JSON object")},
		{"a list", "[]", bad("other than a JSON object")},
		{"a string", `"token"`, bad("other than a JSON object")},
		{"text", "ok", bad("other than a JSON object")},
		{"HTML", "\n<!doctype html><p>Hello", bad("an HTML page")},
		{"HTML after a byte order mark", "\ufeff<html>", bad("an HTML page")},
		{"truncated in a string", `{"access_token":"a.b`, bad("malformed or truncated")},
		{"truncated before a value", `{"access_token":`, bad("malformed or truncated")},
		{"truncated before the brace", `{"access_token":"a"`, bad("malformed or truncated")},
		{"trailing comma", `{"access_token":"a",}`, bad("malformed or truncated")},
		{"trailing object", `{"access_token":"a"}{}`, bad("after the JSON object")},
		{"trailing text", `{"access_token":"a"} x`, bad("after the JSON object")},
		{"a name twice", `{"access_token":"a","access_token":"b"}`, bad("a name twice")},
		{"a name twice, once null", `{"access_token":null,"access_token":"b"}`, bad("a name twice")},
		{"a name twice, once escaped", `{"access_token":"a","access\u005ftoken":"b"}`, bad("a name twice")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseTokenResponse([]byte(test.body))
			if test.want.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.want.problem) || got != nil {
					t.Errorf("got %+v, %v; want an error with %q", got, err, test.want.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.accessToken != test.want.token || got.scope != test.want.scope || got.lifetime != test.want.lifetime {
				t.Errorf("got %+v, want %+v", *got, test.want)
			}
		})
	}
}

// TestInvalidResponses: what is no token response reaches the caller as one.
func TestInvalidResponses(t *testing.T) {
	tests := []struct {
		name   string
		answer answer
		want   string
	}{
		{"HTML", answer{200, nil, "<html>"}, "with an HTML page"},
		{"negative lifetime", answer{200, nil, `{"access_token":"a","expires_in":-1}`}, "expires_in"},
		{"an error with 200", answer{200, nil, `{"error":"invalid_request","error_description":"really"}`}, `(HTTP 200, invalid_request, "really")`},
		{"one byte too many", answer{200, nil, goodBody + strings.Repeat(" ", maxBodyBytes+1-len(goodBody))}, "larger than 64 KiB"},
		{"201", answer{201, nil, goodBody}, "a status that no token endpoint gives"},
		{"204", answer{204, nil, ""}, "a status that no token endpoint gives"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tokenURL, _ := scripted(t, test.answer)
			token, err := newTestClient(t, Options{}).RequestToken(t.Context(), request(tokenURL))
			e := failureOf(t, token, err)
			if e.Kind != InvalidResponse || e.StatusCode != test.answer.status || !strings.Contains(e.Error(), test.want) || !strings.Contains(e.Action, "token_url") {
				t.Errorf("got %v: %v", e.Kind, e)
			}
		})
	}
	t.Run("as large as may be", func(t *testing.T) {
		tokenURL, _ := scripted(t, answer{200, nil, goodBody + strings.Repeat(" ", maxBodyBytes-len(goodBody))})
		if _, err := newTestClient(t, Options{}).RequestToken(t.Context(), request(tokenURL)); err != nil {
			t.Error(err)
		}
	})
}

// secretRun is what no error may contain: a run longer than a UUID of the
// characters that tokens, assertions and keys are made of.
var secretRun = regexp.MustCompile(`[A-Za-z0-9+/_=-]{37,}`)

// checkErrorText holds what is true of every error text, whatever was in the
// answer.
func checkErrorText(t *testing.T, text string) {
	t.Helper()
	if len(text) > 2500 {
		t.Errorf("error text of %d bytes", len(text))
	}
	if run := secretRun.FindString(text); run != "" {
		t.Errorf("error text contains %q", run)
	}
	if strings.ContainsAny(text, "\n\r\x00\x1b\u202e") {
		t.Errorf("error text contains control characters: %q", text)
	}
}

func FuzzTokenResponse(f *testing.F) {
	for _, body := range []string{
		goodBody, `{}`, `[]`, ``, `<html>`, `{"access_token":"`, `{"access_token":"a","access_token":"b"}`,
		`{"access_token":"a","expires_in":"12.5"}`, `{"access_token":"a","expires_in":1e999}`, `{"access_token":"a","expires_in":-0}`,
		`{"access_token":"a","token_type":"bearer","scope":"a\u0000b"}{}`, `{"error":"e","error_description":"eyJhbGciOiJSUzM4NCJ9.eyJpc3MiOiJ4In0.c2ln"}`,
		`{"error":"e","error_description":"` + strings.Repeat("0123456789abcdef", 16) + `"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		answer, err := parseTokenResponse(body)
		if err != nil {
			if answer != nil {
				t.Error("an error came with a token")
			}
			got := &reply{response: &http.Response{StatusCode: http.StatusOK}, body: body}
			checkErrorText(t, invalidResponse(&url.URL{Host: "redox.test"}, got, err).Error())
			return
		}
		if !isAccessToken(answer.accessToken) {
			t.Errorf("access token %q", answer.accessToken)
		}
		if answer.lifetime <= 0 || answer.lifetime > time.Hour || answer.lifetime%time.Second != 0 {
			t.Errorf("lifetime %v", answer.lifetime)
		}
		if cleanScope(answer.scope) != answer.scope {
			t.Errorf("scope %q is not clean", answer.scope)
		}
		// The same token in another spelling reads the same.
		again, err := parseTokenResponse(fmt.Appendf(nil, `{"expires_in":"%d","access_token":%s}`, int(answer.lifetime.Seconds()), quoteJSON(answer.accessToken)))
		if err != nil || again.accessToken != answer.accessToken || again.lifetime != answer.lifetime {
			t.Errorf("read again: %+v, %v", again, err)
		}
	})
}

// quoteJSON quotes visible ASCII.
func quoteJSON(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
