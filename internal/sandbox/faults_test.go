// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestFaultsOnTokens(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults string
		status int
		check  func(t *testing.T, r *rig, got reply)
	}{
		{"status", `{"status":503,"retry_after":"7"}`, 503, func(t *testing.T, r *rig, got reply) {
			if got.header.Get("Retry-After") != "7" || r.Counters().Token.Faulted != 1 || r.Counters().Token.Issued != 0 {
				t.Errorf("got %v, counted %+v", got.header, r.Counters())
			}
		}},
		{"retry_after verbatim, with the real answer", `{"retry_after":"soon, maybe"}`, 200, func(t *testing.T, _ *rig, got reply) {
			if got.header.Get("Retry-After") != "soon, maybe" {
				t.Errorf("got %v", got.header)
			}
		}},
		{"HTML page", `{"status":502,"body":"<html>bad gateway</html>"}`, 502, func(t *testing.T, _ *rig, got reply) {
			if string(got.body) != "<html>bad gateway</html>" || got.header.Get("Content-Type") != "text/html" {
				t.Errorf("got %v %s", got.header, got.body)
			}
		}},
		{"body alone", `{"body":"{\"access_token\":","content_type":"application/json"}`, 200, func(t *testing.T, _ *rig, got reply) {
			if string(got.body) != `{"access_token":` || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("got %v %s", got.header, got.body)
			}
		}},
		{"redirect", `{"redirect":"https://example.com/"}`, 307, func(t *testing.T, _ *rig, got reply) {
			if got.header.Get("Location") != "https://example.com/" {
				t.Errorf("got %v", got.header)
			}
		}},
		{"redirect with status", `{"redirect":"/x","status":302}`, 302, nil},
		{"latency", `{"latency":"1ms"}`, 200, nil},
		{"slow body", `{"slow_body":"1us"}`, 200, func(t *testing.T, r *rig, got reply) {
			if token, _ := got.fields["access_token"].(string); !r.IsLive(token) {
				t.Errorf("got %d bytes", len(got.body))
			}
		}},
		{"huge body", `{"huge_body":100000}`, 200, func(t *testing.T, r *rig, got reply) {
			token, _ := got.fields["access_token"].(string)
			if !bytes.HasPrefix(got.body, bytes.Repeat([]byte(" "), 100000)) || !r.IsLive(token) {
				t.Errorf("got %d bytes", len(got.body))
			}
		}},
		{"token lifetime", `{"token_lifetime":"20s"}`, 200, func(t *testing.T, r *rig, got reply) {
			token, _ := got.fields["access_token"].(string)
			if got.fields["expires_in"] != 20.0 || !r.IsLive(token) {
				t.Errorf("expires_in is %v", got.fields["expires_in"])
			}
			if r.clock.advance(20 * time.Second); r.IsLive(token) {
				t.Error("the token lives longer")
			}
		}},
		{"expires_in a string", `{"expires_in_raw":"300"}`, 200, func(t *testing.T, _ *rig, got reply) {
			if got.fields["expires_in"] != "300" {
				t.Errorf("expires_in is %v", got.fields["expires_in"])
			}
		}},
		{"expires_in negative", `{"expires_in_raw":-1}`, 200, func(t *testing.T, _ *rig, got reply) {
			if got.fields["expires_in"] != -1.0 {
				t.Errorf("expires_in is %v", got.fields["expires_in"])
			}
		}},
		{"expires_in left out", `{"expires_in_raw":null}`, 200, func(t *testing.T, _ *rig, got reply) {
			if _, has := got.fields["expires_in"]; has {
				t.Errorf("expires_in is %v", got.fields["expires_in"])
			}
		}},
		{"token type", `{"token_type":"mac"}`, 200, func(t *testing.T, _ *rig, got reply) {
			if got.fields["token_type"] != "mac" {
				t.Errorf("token_type is %v", got.fields["token_type"])
			}
		}},
		{"empty token", `{"empty_access_token":true}`, 200, func(t *testing.T, _ *rig, got reply) {
			if got.fields["access_token"] != "" {
				t.Error("there is a token")
			}
		}},
		{"clock 6 minutes fast", `{"clock_offset":"6m"}`, 400, func(t *testing.T, r *rig, got reply) {
			if got.fields["error_description"] != "" || got.header.Get("Date") != "Sun, 01 Mar 2026 12:06:00 GMT" || !strings.Contains(lastLine(r), "check the clock") {
				t.Errorf("got %v %v %s", got.fields, got.header, lastLine(r))
			}
		}},
		{"clock 11 s slow", `{"clock_offset":"-11s"}`, 400, nil},
		{"clock 10 s slow", `{"clock_offset":"-10s"}`, 200, nil},
		{"another path", `{"path":"/fhir/","status":503}`, 200, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			if got := r.send("PUT", "/sandbox/faults", "", c.faults); got.status != http.StatusOK {
				t.Fatalf("set: %d %s", got.status, got.body)
			}
			got := r.post(form(r.valid()))
			if got.status != c.status {
				t.Errorf("got %d, want %d: %s", got.status, c.status, lastLine(r))
			}
			if c.check != nil {
				c.check(t, r, got)
			}
			if got := r.send("DELETE", "/sandbox/faults", "", ""); got.status != http.StatusNoContent {
				t.Errorf("end: %d", got.status)
			}
			if got := r.post(form(r.valid())); got.status != http.StatusOK {
				t.Errorf("without faults: %d %s", got.status, lastLine(r))
			}
		})
	}
}

func TestFaultsOnConnections(t *testing.T) {
	r := newRig(t)
	send := func() (reply, error) {
		return r.do(t.Context(), http.MethodPost, tokenPath, formType, "", form(r.valid()).Encode())
	}
	r.SetFaults(Faults{Reset: true})
	if _, err := send(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %v", err)
	}
	r.SetFaults(Faults{ResetMidBody: true})
	got, err := send()
	if !errors.Is(err, io.ErrUnexpectedEOF) || got.status != http.StatusOK || len(got.body) == 0 || json.Valid(got.body) {
		t.Errorf("reset in the body: %d %v, %d bytes", got.status, err, len(got.body))
	}
	if c := r.Counters().Token; c.Requests != 2 || c.Faulted != 1 || c.Issued != 1 {
		t.Errorf("counted %+v", c)
	}
}

func TestFaultOnOtherPath(t *testing.T) {
	r := newRig(t)
	token := r.token()
	r.SetFaults(Faults{Path: "/fhir/", Status: 500, Count: 1})
	const path = "/fhir/R4/x/Development/Patient/1"
	if got := r.send("GET", path, token, ""); got.status != 500 {
		t.Errorf("got %d", got.status)
	}
	if got := r.send("GET", path, token, ""); got.status != 200 {
		t.Errorf("then got %d", got.status)
	}
	if c := r.Counters().FHIR; c.Requests != 2 || c.Faulted != 1 {
		t.Errorf("counted %+v", c)
	}
	r.SetFaults(Faults{Path: "/", Status: 500})
	for _, path := range []string{"/sandbox/faults", "/sandbox/counters", "/"} {
		if got := r.send("GET", path, "", ""); got.status != 200 {
			t.Errorf("%s is hit: %d", path, got.status)
		}
	}
}

func TestFaultCount(t *testing.T) {
	r := newRig(t)
	r.SetFaults(Faults{Status: 429, Count: 2})
	for i, want := range []struct{ status, left int }{{429, 1}, {429, 0}, {200, 0}} {
		if got := r.post(form(r.valid())); got.status != want.status || r.Faults().Count != want.left {
			t.Errorf("request %d: %d, %d left", i, got.status, r.Faults().Count)
		}
	}
	if f := r.Faults(); f.Status != 0 {
		t.Errorf("used up, but set: %+v", f)
	}
}

// TestClientGoesAway: a client that gives up ends its request, however long the fault or the gate would hold it.
func TestClientGoesAway(t *testing.T) {
	for _, how := range []string{"latency", "gate"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t)
			r.log.lines = make(chan string, 10)
			if how == "latency" {
				r.SetFaults(Faults{Latency: Duration(time.Hour)})
			}
			arrived, release := r.HoldTokenRequests()
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error)
			go func() {
				_, err := r.do(ctx, http.MethodPost, tokenPath, formType, "", form(r.valid()).Encode())
				failed <- err
			}()
			<-arrived
			if how == "latency" {
				release()
			}
			cancel()
			if err := <-failed; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if line := <-r.log.lines; !strings.Contains(line, "the client went away") {
				t.Errorf("the log says %q", line)
			}
			if c := r.Counters().Token; c.Abandoned != 1 || c.Issued != 0 {
				t.Errorf("counted %+v", c)
			}
		})
	}
}

func TestBadFaults(t *testing.T) {
	r := newRig(t)
	r.SetFaults(Faults{Status: 503})
	for _, body := range []string{
		`{"latncy":"1s"}`, `{"latency":1}`, `{"latency":"long"}`, `{"latency":"-1s"}`, `{"status":99}`, `{"status":600}`,
		`{"count":-1}`, `{"path":"fhir"}`, `{"huge_body":-1}`, `{"huge_body":99999999999}`, `{}{}`, `[]`, ``,
	} {
		got := r.send("PUT", "/sandbox/faults", "", body)
		if message, _ := got.fields["error"].(string); got.status != http.StatusBadRequest || message == "" {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
	for _, f := range []Faults{{Status: 42}, {ExpiresInRaw: json.RawMessage(`{`)}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("SetFaults takes %+v", f)
				}
			}()
			r.SetFaults(f)
		}()
	}
	if r.Faults().Status != 503 {
		t.Error("rejected faults replaced the ones that were set")
	}
}

func TestFaultsReadBack(t *testing.T) {
	r := newRig(t)
	const faults = `{"path":"/v2/","count":3,"latency":"1.5s","status":429,"retry_after":"1","clock_offset":"-2m0s","expires_in_raw":null}`
	r.send("PUT", "/sandbox/faults", "", faults)
	if got := strings.TrimSpace(string(r.send("GET", "/sandbox/faults", "", "").body)); got != faults {
		t.Errorf("set  %s\nread %s", faults, got)
	}
}

func TestGate(t *testing.T) {
	r := newRig(t)
	arrived, release := r.HoldTokenRequests()
	const count = 20
	statuses := make(chan int, count)
	for range count {
		assertion := sign(map[string]any{"alg": "ES384", "kid": "ec", "typ": "JWT"}, r.claims(), jose.ES384, ecKey())
		go func() {
			got, err := r.do(context.Background(), http.MethodPost, tokenPath, formType, "", form(assertion).Encode())
			if err != nil {
				got.status = -1
			}
			statuses <- got.status
		}()
	}
	for range count {
		<-arrived
	}
	if c := r.Counters().Token; c.Requests != count || c.Issued != 0 {
		t.Errorf("while held: %+v", c)
	}
	// What is not the token endpoint is not held.
	if got := r.send("GET", "/sandbox/counters", "", ""); got.status != http.StatusOK {
		t.Errorf("counters: %d", got.status)
	}
	release()
	release()
	for range count {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("got %d", status)
		}
	}
	r.token() // not held any more
}

// TestReplayRace: of many requests with one assertion, exactly one gets a token.
func TestReplayRace(t *testing.T) {
	r := newRig(t)
	arrived, release := r.HoldTokenRequests()
	body := form(r.valid()).Encode()
	const count = 10
	statuses := make(chan int, count)
	for range count {
		go func() {
			got, _ := r.do(context.Background(), http.MethodPost, tokenPath, formType, "", body)
			statuses <- got.status
		}()
	}
	for range count {
		<-arrived
	}
	release()
	issued := 0
	for range count {
		if <-statuses == http.StatusOK {
			issued++
		}
	}
	if issued != 1 {
		t.Errorf("%d tokens for one assertion", issued)
	}
}
