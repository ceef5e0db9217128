// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/gate"
)

// TestGateIsTold: a 429 closes the gate for what Retry-After says, any other answer opens it, and none says nothing.
func TestGateIsTold(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer answer
		closed time.Duration // at least half of it
	}{
		{"limited", answer{429, map[string]string{"Retry-After": "40"}, ""}, 40 * time.Second},
		{"limited for a day", answer{429, map[string]string{"Retry-After": "86400"}, ""}, 5 * time.Minute},
		{"limited without a time", answer{429, nil, ""}, 2 * time.Second},
		{"rejected", answer{401, nil, ""}, 0},
		{"failing", answer{503, map[string]string{"Retry-After": "40"}, ""}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			tokenURL, _ := scripted(t, test.answer)
			r := request(tokenURL)
			r.MaxRetries, r.Gate = 0, gate.New(gate.Limits{AtOnce: 1}, nil)
			token, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
			if e := failureOf(t, token, err); e.NotSent {
				t.Error("the request was not sent")
			}
			s := r.Gate.State()
			if s.ClosedFor > test.closed || s.ClosedFor < test.closed/3 || s.Inside != 0 {
				t.Errorf("the state is %+v", s)
			}
		})
	}
}

// TestGateBeforeEachAttempt: each attempt waits at the gate, and no assertion is made before; after a 429 the gate says
// when the next may be sent, and where that is too late the 429 is what is told.
func TestGateBeforeEachAttempt(t *testing.T) {
	tokenURL, forms := scripted(t, answer{503, nil, ""}, answer{429, map[string]string{"Retry-After": "60"}, ""})
	r := request(tokenURL)
	made := 0
	assertion := r.Assertion
	r.Assertion = func() (string, error) {
		made++
		return assertion()
	}
	r.MaxRetries, r.Gate = 5, gate.New(gate.Limits{PerWindow: 100_000}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	token, err := newTestClient(t, Options{}).RequestToken(ctx, r)
	e := failureOf(t, token, err)
	if e.StatusCode != 429 || e.NotSent || e.Attempts != 2 || made != 2 || len(forms()) != 2 {
		t.Errorf("%v: %d attempts, %d assertions, %d requests", e, e.Attempts, made, len(forms()))
	}
	// Now it is closed for all who ask this host.
	token, err = newTestClient(t, Options{}).RequestToken(ctx, r)
	e = failureOf(t, token, err)
	if !e.NotSent || e.Kind != Timeout || e.RetryAfter < 50*time.Second || made != 2 || len(forms()) != 2 ||
		!errors.Is(e, context.DeadlineExceeded) || !strings.Contains(e.Error(), "the server limits requests") {
		t.Errorf("%v: %d assertions, %d requests", e, made, len(forms()))
	}
	_, err = newTestClient(t, Options{}).ReadAPIKey(ctx, PlatformRequest{PlatformURL: tokenURL, AccessToken: "token", APIKeyID: "id", Gate: r.Gate})
	if !errors.As(err, &e) || !e.NotSent {
		t.Errorf("the Platform API was asked: %v", err)
	}
	cancel()
	if _, err := newTestClient(t, Options{}).RequestToken(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestWhyNotSent: each reason is told with how long and what to do.
func TestWhyNotSent(t *testing.T) {
	endpoint, err := parseEndpoint("https://redox.example/token")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		refusal gate.Refusal
		words   string
	}{
		{gate.Refusal{Closed: true, Wait: 90 * time.Second}, "the server limits requests|redox.example|1m30s|source address"},
		{gate.Refusal{Wait: 10 * time.Minute, Ahead: 285}, "the server limits requests|redox.example|10m0s|285 others|request_limit"},
		{gate.Refusal{}, "redox.example answers too slowly|max_concurrent_requests|try again"},
	} {
		e := notSent(endpoint, &test.refusal)
		for word := range strings.SplitSeq(test.words, "|") {
			if !strings.Contains(e.Error(), word) {
				t.Errorf("%q is not in: %s", word, e)
			}
		}
		if strings.Contains(e.Error(), "asks to wait") || e.StatusCode != 0 {
			t.Errorf("Redox is quoted: %s", e)
		}
	}
}
