// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const goodBody = `{"access_token":"token-1","token_type":"Bearer","expires_in":300,"scope":"fhir:development"}`

// sleeps is a Sleep that records and does not wait.
type sleeps struct {
	mu     sync.Mutex
	waited []time.Duration
}

func (s *sleeps) sleep(_ context.Context, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waited = append(s.waited, d)
	return nil
}

// newTestClient makes a client that never waits between attempts.
func newTestClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Sleep == nil {
		o.Sleep = (&sleeps{}).sleep
	}
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// numbered gives the assertions assertion-1, assertion-2 and so on.
func numbered() func() (string, error) {
	n := 0
	return func() (string, error) {
		n++
		return fmt.Sprintf("assertion-%d", n), nil
	}
}

func request(tokenURL string) TokenRequest {
	return TokenRequest{TokenURL: tokenURL, Timeout: 10 * time.Second, MaxRetries: 2, Assertion: numbered()}
}

// answer is one scripted answer of a server.
type answer struct {
	status int
	header map[string]string
	body   string
}

// scripted serves the answers in turn, the last one again and again, and
// records the form of each request.
func scripted(t *testing.T, answers ...answer) (tokenURL string, forms func() []url.Values) {
	t.Helper()
	var mu sync.Mutex
	var seen []url.Values
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Errorf("form: %v", err)
		}
		mu.Lock()
		seen = append(seen, r.PostForm)
		a := answers[min(len(seen), len(answers))-1]
		mu.Unlock()
		for name, value := range a.header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(a.status)
		io.WriteString(w, a.body)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/v2/auth/token", func() []url.Values {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

// failureOf asserts that err is an *Error.
func failureOf(t *testing.T, token *Token, err error) *Error {
	t.Helper()
	var failure *Error
	if !errors.As(err, &failure) {
		t.Fatalf("error is %v (%T), want an *Error", err, err)
	}
	if token != nil {
		t.Error("an error came with a token")
	}
	return failure
}

func TestRequestTokenSends(t *testing.T) {
	for _, scope := range []string{"", "fhir:development"} {
		t.Run("scope="+scope, func(t *testing.T) {
			var got *http.Request
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.ParseForm()
				got = r
				io.WriteString(w, goodBody)
			}))
			defer server.Close()
			r := request(server.URL + "/v2/auth/token")
			r.Scope = scope
			if _, err := newTestClient(t, Options{UserAgent: "redox-test/1.2.3"}).RequestToken(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			want := url.Values{
				"grant_type":            {"client_credentials"},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
				"client_assertion":      {"assertion-1"},
			}
			if scope != "" {
				want["scope"] = []string{scope}
			}
			if got.PostForm.Encode() != want.Encode() {
				t.Errorf("form is %v, want %v", got.PostForm, want)
			}
			if got.Method != http.MethodPost || got.URL.Path != "/v2/auth/token" {
				t.Errorf("request is %s %s", got.Method, got.URL.Path)
			}
			for name, value := range map[string]string{
				"Content-Type": "application/x-www-form-urlencoded",
				"Accept":       "application/json",
				"User-Agent":   "redox-test/1.2.3",
			} {
				if got.Header.Get(name) != value {
					t.Errorf("%s is %q, want %q", name, got.Header.Get(name), value)
				}
			}
		})
	}
}

// TestRequestTokenGives looks at each field of a token, by a clock that moves
// on by two seconds at each look.
func TestRequestTokenGives(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, int(500*time.Millisecond), time.UTC)
	tests := []struct {
		date        string
		offset      time.Duration
		offsetKnown bool
	}{
		{"Sun, 01 Mar 2026 12:00:01 GMT", 0, true}, // sent at :00.5, received at :02.5
		{"Sun, 01 Mar 2026 12:00:41 GMT", 40 * time.Second, true},
		{"Sun, 01 Mar 2026 11:59:00 GMT", -61 * time.Second, true},
		{"yesterday", 0, false},
	}
	for _, test := range tests {
		t.Run(test.date, func(t *testing.T) {
			tokenURL, _ := scripted(t, answer{200, map[string]string{"Date": test.date}, goodBody})
			looks := 0
			c := newTestClient(t, Options{Now: func() time.Time {
				looks++
				return start.Add(time.Duration(looks-1) * 2 * time.Second)
			}})
			token, err := c.RequestToken(t.Context(), request(tokenURL))
			if err != nil {
				t.Fatal(err)
			}
			want := Token{
				AccessToken: "token-1", TokenType: "Bearer", Scope: "fhir:development",
				Lifetime: 300 * time.Second, Latency: token.Latency,
				ClockOffset: test.offset, ClockOffsetKnown: test.offsetKnown,
			}
			// That clock may be set back at any time: latency is measured by another, and so is no whole second.
			if token.Latency <= 0 || token.Latency%time.Second == 0 {
				t.Errorf("latency is %v", token.Latency)
			}
			if *token != want {
				t.Errorf("token is %+v, want %+v", *token, want)
			}
		})
	}
}

func TestClockOffsetIsUnbiased(t *testing.T) {
	theirs := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, want := range []time.Duration{0, 42 * time.Second, -42 * time.Second} {
		for fraction := 100 * time.Millisecond; fraction < time.Second; fraction += 200 * time.Millisecond {
			sent := theirs.Add(fraction).Add(-want)
			got, known := clockOffset(theirs.Format(http.TimeFormat), sent, sent)
			if !known || got != want {
				t.Errorf("offset %v seen as %v, %v at %v into the second", want, got, known, fraction)
			}
		}
	}
}

// TestScopeNotNamed: without a scope in the answer, the one asked for is
// granted (RFC 6749 section 5.1).
func TestScopeNotNamed(t *testing.T) {
	tokenURL, _ := scripted(t, answer{200, nil, `{"access_token":"a","token_type":"Bearer"}`})
	r := request(tokenURL)
	r.Scope = "asked"
	token, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if token.Scope != "asked" {
		t.Errorf("scope is %q", token.Scope)
	}
}

func TestRetries(t *testing.T) {
	ok := answer{200, nil, goodBody}
	tests := []struct {
		name     string
		answers  []answer
		attempts int
		status   int // of the error, 0 for success
	}{
		{"first try", []answer{ok}, 1, 0},
		{"429", []answer{{429, nil, ""}, ok}, 2, 0},
		{"502, 503", []answer{{502, nil, "<html>"}, {503, nil, ""}, ok}, 3, 0},
		{"504", []answer{{504, nil, ""}, ok}, 2, 0},
		{"retries used up", []answer{{503, nil, ""}}, 3, 503},
		{"500", []answer{{500, nil, ""}, ok}, 1, 500},
		{"501", []answer{{501, nil, ""}, ok}, 1, 501},
		{"400", []answer{{400, nil, `{"error":"invalid_request"}`}, ok}, 1, 400},
		{"401", []answer{{401, nil, ""}, ok}, 1, 401},
		{"404", []answer{{404, nil, ""}, ok}, 1, 404},
		{"408", []answer{{408, nil, ""}, ok}, 1, 408},
		{"redirect", []answer{{307, map[string]string{"Location": "/elsewhere"}, ""}, ok}, 1, 307},
		{"no token", []answer{{200, nil, "{}"}, ok}, 1, 200},
		{"503, then 400", []answer{{503, nil, ""}, {400, nil, ""}, ok}, 2, 400},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tokenURL, forms := scripted(t, test.answers...)
			var slept sleeps
			c := newTestClient(t, Options{Sleep: slept.sleep})
			token, err := c.RequestToken(t.Context(), request(tokenURL))
			if test.status == 0 {
				if err != nil {
					t.Fatal(err)
				}
			} else if e := failureOf(t, token, err); e.StatusCode != test.status || e.Attempts != test.attempts {
				t.Errorf("status %d after %d attempts, want %d after %d", e.StatusCode, e.Attempts, test.status, test.attempts)
			}
			// Each attempt has an assertion of its own.
			for i, form := range forms() {
				if want := "assertion-" + strconv.Itoa(i+1); form.Get("client_assertion") != want {
					t.Errorf("attempt %d sent %s", i+1, form.Get("client_assertion"))
				}
			}
			if len(forms()) != test.attempts || len(slept.waited) != test.attempts-1 {
				t.Errorf("%d requests, %d waits; want %d attempts", len(forms()), len(slept.waited), test.attempts)
			}
			for i, d := range slept.waited {
				if mean := 200 * time.Millisecond << i; d < mean/2 || d > mean*3/2 {
					t.Errorf("wait %d was %v, want about %v", i+1, d, mean)
				}
			}
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	tests := []struct {
		name, retryAfter, date string
		deadline               time.Duration // 0: none
		waits                  time.Duration // 0: gives up at once
		reported               time.Duration
	}{
		{"seconds", "7", "", time.Hour, 7 * time.Second, 7 * time.Second},
		{"no deadline", "7", "", 0, 7 * time.Second, 7 * time.Second},
		{"date by Redox's clock", "Sun, 01 Mar 2026 12:00:09 GMT", "Sun, 01 Mar 2026 12:00:00 GMT", time.Hour, 9 * time.Second, 9 * time.Second},
		{"as long as patience", "60", "", 0, time.Minute, time.Minute},
		{"beyond the deadline", "20", "", 19 * time.Second, 0, 20 * time.Second},
		{"beyond patience", "61", "", 0, 0, 61 * time.Second},
		{"absurd", "99999999999999999999", "", time.Hour, 0, maxRetryAfter},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			header := map[string]string{"Retry-After": test.retryAfter}
			if test.date != "" {
				header["Date"] = test.date
			}
			tokenURL, forms := scripted(t, answer{429, header, ""})
			var slept sleeps
			c := newTestClient(t, Options{Sleep: slept.sleep})
			ctx := t.Context()
			if test.deadline > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, test.deadline)
				defer cancel()
			}
			r := request(tokenURL)
			r.MaxRetries = 1
			token, err := c.RequestToken(ctx, r)
			e := failureOf(t, token, err)
			if e.RetryAfter != test.reported || e.Kind != Unavailable {
				t.Errorf("error is %v with RetryAfter %v, want %v", e.Kind, e.RetryAfter, test.reported)
			}
			var want []time.Duration
			if test.waits > 0 {
				want = []time.Duration{test.waits}
			}
			if !slices.Equal(slept.waited, want) || len(forms()) != 1+len(want) {
				t.Errorf("waited %v in %d requests, want %v", slept.waited, len(forms()), want)
			}
		})
	}
}

// TestBackoffBeyondTheDeadline: the last failure says more than that the
// time is over.
func TestBackoffBeyondTheDeadline(t *testing.T) {
	tokenURL, forms := scripted(t, answer{503, nil, ""})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := newTestClient(t, Options{Sleep: func(context.Context, time.Duration) error { return context.DeadlineExceeded }})
	token, err := c.RequestToken(ctx, request(tokenURL))
	if e := failureOf(t, token, err); e.StatusCode != 503 || len(forms()) != 1 {
		t.Errorf("got %v after %d requests", e, len(forms()))
	}
}

func TestAssertionErrorIsReturned(t *testing.T) {
	sealed := errors.New("sealed")
	tokenURL, forms := scripted(t, answer{503, nil, ""})
	calls := 0
	r := request(tokenURL)
	r.Assertion = func() (string, error) {
		calls++
		if calls == 2 {
			return "", sealed
		}
		return "a", nil
	}
	token, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
	if err != sealed || token != nil || len(forms()) != 1 {
		t.Errorf("got %v, %v after %d requests; want the error itself after 1", token, err, len(forms()))
	}
}

// blocking serves nothing until the client gives up; arrived gets one value
// per request.
func blocking(t *testing.T) (tokenURL string, arrived chan struct{}) {
	arrived = make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL + "/token?secret=query", arrived
}

func TestCancelled(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		tokenURL, forms := scripted(t, answer{200, nil, goodBody})
		token, err := newTestClient(t, Options{}).RequestToken(ctx, request(tokenURL))
		if !errors.Is(err, context.Canceled) || token != nil || len(forms()) != 0 {
			t.Errorf("got %v, %v after %d requests", token, err, len(forms()))
		}
	})
	t.Run("while waiting for the answer", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tokenURL, arrived := blocking(t)
		go func() {
			<-arrived
			cancel()
		}()
		token, err := newTestClient(t, Options{}).RequestToken(ctx, request(tokenURL))
		if !errors.Is(err, context.Canceled) || token != nil {
			t.Errorf("got %v, %v", token, err)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error quotes the URL: %v", err)
		}
	})
	t.Run("between attempts", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tokenURL, forms := scripted(t, answer{503, nil, ""})
		c := newTestClient(t, Options{Sleep: func(ctx context.Context, _ time.Duration) error {
			cancel()
			return ctx.Err()
		}})
		_, err := c.RequestToken(ctx, request(tokenURL))
		if !errors.Is(err, context.Canceled) || len(forms()) != 1 {
			t.Errorf("got %v after %d requests", err, len(forms()))
		}
	})
}

func TestTimeouts(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		tokenURL, _ := scripted(t, answer{200, nil, goodBody})
		r := request(tokenURL)
		r.Timeout = 0
		if _, err := newTestClient(t, Options{}).RequestToken(t.Context(), r); err != nil {
			t.Error(err)
		}
	})
	t.Run("of each attempt", func(t *testing.T) {
		tokenURL, arrived := blocking(t)
		r := request(tokenURL)
		r.Timeout = 30 * time.Millisecond
		token, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
		e := failureOf(t, token, err)
		if e.Kind != Timeout || e.Attempts != 3 || !strings.Contains(e.Error(), "request_timeout (30ms)") {
			t.Errorf("got %v: %v after %d attempts", e.Kind, e, e.Attempts)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Error("an attempt's own timeout looks like the caller's deadline")
		}
		if len(arrived) > 3 {
			t.Errorf("%d requests arrived", len(arrived))
		}
	})
	t.Run("of the caller", func(t *testing.T) {
		tokenURL, _ := blocking(t)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		token, err := newTestClient(t, Options{}).RequestToken(ctx, request(tokenURL))
		e := failureOf(t, token, err)
		if e.Kind != Timeout || e.Attempts != 1 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v: %v after %d attempts", e.Kind, e, e.Attempts)
		}
	})
	t.Run("of the body", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"access_token":`)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		defer server.Close()
		r := request(server.URL)
		r.Timeout, r.MaxRetries = 30*time.Millisecond, 0
		token, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
		if e := failureOf(t, token, err); e.Kind != Timeout {
			t.Errorf("got %v: %v", e.Kind, e)
		}
	})
}

func TestRedirectIsNotFollowed(t *testing.T) {
	followed := false
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer target.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, location := range []string{target.URL, "", "http://[broken"} {
			tokenURL, forms := scripted(t, answer{status, map[string]string{"Location": location}, ""})
			token, err := newTestClient(t, Options{}).RequestToken(t.Context(), request(tokenURL))
			e := failureOf(t, token, err)
			if e.Kind != Rejected || e.StatusCode != status || !strings.Contains(e.Error(), "redirect, which is not followed") {
				t.Errorf("%d to %q gives %v: %v", status, location, e.Kind, e)
			}
			if followed || len(forms()) != 1 {
				t.Fatalf("%d to %q was followed", status, location)
			}
		}
	}
}

func TestConnectionIsReused(t *testing.T) {
	for _, first := range []answer{{200, nil, goodBody}, {400, nil, `{"error":"invalid_request"}`}} {
		t.Run(strconv.Itoa(first.status), func(t *testing.T) {
			var remotes []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				remotes = append(remotes, r.RemoteAddr)
				w.WriteHeader(first.status)
				io.WriteString(w, first.body)
			}))
			defer server.Close()
			c := newTestClient(t, Options{})
			for range 2 {
				c.RequestToken(t.Context(), request(server.URL))
			}
			if len(remotes) != 2 || remotes[0] != remotes[1] {
				t.Errorf("requests came from %v, want one address twice", remotes)
			}
		})
	}
}

func TestInvalidTokenURL(t *testing.T) {
	for _, tokenURL := range []string{"", "api.redoxengine.com", "ftp://host/", "https://", "https://:443/", "https://user:hunter2@host/", "http://a b/", "https://host/%zz"} {
		r := request(tokenURL)
		r.Assertion = func() (string, error) {
			t.Error("signed for nothing")
			return "", nil
		}
		token, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
		e := failureOf(t, token, err)
		if e.Kind != Rejected || !strings.Contains(e.Error(), "token_url") || strings.Contains(e.Error(), "hunter2") {
			t.Errorf("%q gives %v: %v", tokenURL, e.Kind, e)
		}
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := sleep(t.Context(), time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Errorf("slept %v, %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute+time.Second {
			t.Errorf("slept %v, %v", time.Since(start), err)
		}
	})
}
