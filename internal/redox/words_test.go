// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestWords: what servers, gateways and frameworks say of an error is found, cleaned and cut.
func TestWords(t *testing.T) {
	for _, test := range []struct {
		name, body        string
		code, description string
		foreign           bool
	}{
		// RFC 6749 section 5.2.
		{"code and description", `{"error":"invalid_client","error_description":"no"}`, "invalid_client", "no", false},
		{"code alone", `{"error":"invalid_client"}`, "invalid_client", "", false},
		{"description alone", `{"error_description":"no"}`, "", "no", false},
		{"with more", `{"error":"invalid_request","error_description":"no","error_uri":"https://docs.example","message":"other"}`, "invalid_request", "no", false},
		{"nothing", ``, "", "", false},
		{"an empty object", `{}`, "", "", false},
		// An object as error: Google's APIs, FHIR servers' gateways.
		{"error object", `{"error":{"code":401,"message":"Request had invalid authentication credentials.","status":"UNAUTHENTICATED"}}`, "",
			"Request had invalid authentication credentials.", true},
		{"error object with details", `{"error":{"code":"InvalidToken","details":[{"reason":"bad kid"}]}}`, "", "bad kid", true},
		{"fault object", `{"fault":{"faultstring":"Invalid ApiKey","detail":{"errorcode":"oauth.v2.InvalidApiKey"}}}`, "", "Invalid ApiKey", true},
		{"error object of words", `{"error":{"text":"signature"}}`, "", "signature", true},
		// Messages.
		{"message", `{"message":"Unauthorized"}`, "", "Unauthorized", true},
		{"Spring", `{"timestamp":"2026-01-02T03:04:05Z","status":401,"error":"Unauthorized","message":"Bad signature","path":"/token"}`, "Unauthorized", "Bad signature", true},
		{"code and the same message", `{"error":"denied","message":"denied"}`, "denied", "", false},
		{"AWS", `{"Message":"User is not authorized"}`, "", "User is not authorized", true},
		{"errorMessage", `{"errorCode":"E1","errorMessage":"key unknown"}`, "", "key unknown", true},
		// Lists.
		{"errors of texts", `{"errors":["first","second"]}`, "", "first", true},
		{"errors of objects", `{"errors":[{"code":7,"message":"kid"},{"message":"other"}]}`, "", "kid", true},
		{"errors by JSON:API", `{"errors":[{"status":"401","title":"Unauthorized","detail":"the key is unknown"}]}`, "", "the key is unknown", true},
		{"a list", `[{"message":"in a list"}]`, "", "in a list", true},
		// Problem details, RFC 9457.
		{"problem", `{"type":"about:blank","title":"Unauthorized","detail":"Signature does not match","status":401}`, "", "Signature does not match", true},
		{"problem with a title alone", `{"title":"Unauthorized","status":401}`, "", "Unauthorized", true},
		{"problem with errors", `{"title":"One or more errors","errors":{"text":["aud"]}}`, "", "One or more errors", true},
		// FHIR.
		{"OperationOutcome", `{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"login","diagnostics":"HAPI-0333: Client unauthorized"}]}`, "",
			"HAPI-0333: Client unauthorized", true},
		{"OperationOutcome with details", `{"resourceType":"OperationOutcome","issue":[{"code":"security","details":{"text":"no such client"}}]}`, "", "no such client", true},
		{"OperationOutcome with a narrative", `{"resourceType":"OperationOutcome","issue":[{"code":"security","diagnostics":""}],"text":"denied"}`, "", "denied", true},
		// Text.
		{"text", "Could not verify the client assertion: invalid signature", "", "Could not verify the client assertion: invalid signature", true},
		{"text in lines", " Bad\r\n\tRequest \n", "", "Bad Request", true},
		{"a JSON string", `"Unauthorized"`, "", "Unauthorized", true},
		// What says nothing, or may not be shown.
		{"a web page", "<html><body>Unauthorized</body></html>", "", "", false},
		{"XML", "<?xml version=\"1.0\"?><error>no</error>", "", "", false},
		{"cut JSON", `{"message":"Unautho`, "", "", false},
		{"no UTF-8", "\xff\xfe\x00", "", "", false},
		{"numbers", `{"error":{"code":401}}`, "", "", false},
		{"a token in text", "got eyJhbGciOiJSUzM4NCJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl here", "", "got [removed] here", true},
		{"a long run in a message", `{"message":"key ` + strings.Repeat("A", 40) + `"}`, "", "key [removed]", true},
		{"nested deeply", strings.Repeat(`{"error":`, 30) + `"x"` + strings.Repeat("}", 30), "", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := parseWords([]byte(test.body)); got != (words{test.code, test.description, test.foreign}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// FuzzWords: whatever an answer holds, what is shown of it is short and printable, and no token.
func FuzzWords(f *testing.F) {
	for _, seed := range []string{`{"error":{"message":"a"}}`, `{"issue":[{"diagnostics":"a"}]}`, "text", `["a"]`, `{"errors":[{"detail":"eyJhbGciOiJSUzM4NCJ9.e.c"}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := parseWords(body)
		for _, said := range []string{w.code, w.description} {
			if utf8.RuneCountInString(said) > maxDescriptionRunes || !utf8.ValidString(said) || jwtLike.MatchString(said) ||
				strings.ContainsFunc(said, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q is shown", said)
			}
		}
	})
}

// TestForeignAnswers: a rejection in another form than a token endpoint's says so, with the words; "gave no reason" is said only
// where there was none.
func TestForeignAnswers(t *testing.T) {
	for _, test := range []struct {
		name, contentType, body string
		has, hasNot             string
	}{
		{"text", "text/plain; charset=utf-8", "invalid signature", "of type text/plain|invalid signature", "no reason"},
		{"error object", "application/json", `{"error":{"message":"bad credentials"}}`, "of type application/json|bad credentials", "no reason"},
		{"OperationOutcome", "application/fhir+json", `{"issue":[{"diagnostics":"unauthorized"}]}`, "of type application/fhir+json|unauthorized", "no reason"},
		{"no type", "", "invalid signature", "invalid signature", "no reason"},
		{"Redox's words in another form", "application/json", `{"message":"Public key not found, check client_id"}`, "Redox found no public key", "of type"},
		{"an empty object", "application/json", `{}`, "no reason", "of type"},
		{"nothing", "application/json", "", "no reason", "of type"},
		{"a byte order mark", "application/json", "\ufeff" + `{"error":"invalid_client","error_description":"Public key not found"}`, "Redox found no public key", "no reason"},
		{"brotli", "br", "\x0b\x02\x80", "Content-Encoding br", "no reason"},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := map[string]string{"Content-Type": test.contentType}
			if test.name == "brotli" {
				header = map[string]string{"Content-Encoding": "br"}
			}
			tokenURL, _ := scripted(t, answer{401, header, test.body})
			token, err := newTestClient(t, Options{}).RequestToken(t.Context(), request(tokenURL))
			e := failureOf(t, token, err)
			for part := range strings.SplitSeq(test.has, "|") {
				if !strings.Contains(e.Error(), part) {
					t.Errorf("%q is not in: %s", part, e)
				}
			}
			if strings.Contains(e.Error(), test.hasNot) {
				t.Errorf("%q is in: %s", test.hasNot, e)
			}
		})
	}
}

// TestCompressedAnswers: an answer that is compressed though nobody asked for it is read, up to a bound.
func TestCompressedAnswers(t *testing.T) {
	compressed := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		return b.String()
	}
	good := `{"access_token":"abc","token_type":"Bearer","expires_in":300}`
	for _, test := range []struct {
		name, encoding, body string
		status               int
		says                 string // empty: a token
	}{
		{"a token", "gzip", compressed(good), 200, ""},
		{"a token, as old servers name it", "X-GZIP", compressed(good), 200, ""},
		{"a token with a byte order mark", "gzip", compressed("\ufeff" + good), 200, ""},
		{"identity", "identity", good, 200, ""},
		{"an error", "gzip", compressed(`{"error":"invalid_client","error_description":"Public key not found"}`), 401, "no public key"},
		{"a bomb", "gzip", compressed(strings.Repeat(" ", 100<<20)), 200, "larger than 64 KiB"},
		{"no gzip", "gzip", good, 200, "something other than a JSON object"},
		{"cut off", "gzip", compressed(good)[:30], 200, "something other than a JSON object"},
		{"another encoding", "deflate", compressed(good), 200, "Content-Encoding deflate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tokenURL, _ := scripted(t, answer{test.status, map[string]string{"Content-Encoding": test.encoding}, test.body})
			r := request(tokenURL)
			r.MaxRetries = 0
			token, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
			if test.says == "" {
				if err != nil || token.AccessToken != "abc" {
					t.Errorf("got %v, %v", token, err)
				}
				return
			}
			if e := failureOf(t, token, err); !strings.Contains(e.Error(), test.says) {
				t.Errorf("got %s", e)
			}
		})
	}
}

// TestServerIsNamed: only Redox, and the local one, is called Redox; what to look at is there for all.
func TestServerIsNamed(t *testing.T) {
	for host, redox := range map[string]bool{
		"api.redoxengine.com": true, "API.CA.RedoxEngine.com.": true, "redoxengine.com": true, "127.0.0.1:8765": true, "[::1]:1": true, "localhost": true,
		"auth.hospital.example": false, "redoxengine.com.evil.example": false, "notredoxengine.com": false, "10.0.0.1": false,
	} {
		endpoint := &url.URL{Scheme: "https", Host: host, Path: "/token"}
		for _, status := range []int{400, 401, 403, 404, 407, 429, 500, 302} {
			for _, body := range []string{"", `{"error":"invalid_client"}`, `{"error":"x","error_description":"Public key not found"}`, "text"} {
				recorder := httptest.NewRecorder()
				recorder.Code = status
				e := rejection(endpoint, &reply{response: recorder.Result(), body: []byte(body)})
				if text := e.Error(); strings.Contains(text, "Redox") != redox && strings.Contains(text, "Redox") {
					t.Errorf("%s is called Redox: %s", host, text)
				}
				if e.Action == "" {
					t.Errorf("%s, %d: nothing to do next", host, status)
				}
			}
		}
		platform := platformRejection(endpoint, &reply{response: &http.Response{StatusCode: 404, Header: http.Header{}}})
		if !redox && strings.Contains(platform.Error(), "Redox") {
			t.Errorf("%s is called Redox: %s", host, platform)
		}
	}
}
