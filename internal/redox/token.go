// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"vault-plugin-secrets-redox/internal/gate"
)

const (
	// GrantType and ClientAssertionType are the form values of RFC 6749 section
	// 4.4.2 and RFC 7523 section 2.2.
	GrantType           = "client_credentials"
	ClientAssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// TokenRequest is what to ask Redox's token endpoint for.
type TokenRequest struct {
	TokenURL string
	// Scope is sent as a form field unless it is empty.
	Scope string
	// Timeout of one attempt; 0 leaves only the context's deadline.
	Timeout time.Duration
	// MaxRetries is how many more attempts may follow the first.
	MaxRetries int
	// Assertion gives a newly signed assertion with a new jti. It is called
	// once per attempt: Redox rejects a jti that it has seen. Its error ends
	// the request and is returned as it is.
	Assertion func() (string, error)
	// Gate is the host's, where each attempt waits until it may be sent, and is told what comes of it. Nil: there is none.
	Gate *gate.Gate
}

// Token is Redox's answer to a TokenRequest.
type Token struct {
	AccessToken string
	TokenType   string // always "Bearer"
	Scope       string // as granted; as asked for when the answer names none (RFC 6749 section 5.1)

	// Lifetime is expires_in: more than 0, at most an hour. It counts from
	// some moment after Assertion was called.
	Lifetime time.Duration
	// Latency of the successful attempt.
	Latency time.Duration

	// ClockOffset is Redox's clock minus ours, to the second, known when the
	// answer carried a Date header.
	ClockOffset      time.Duration
	ClockOffsetKnown bool
}

// RequestToken exchanges a client assertion for an access token (RFC 6749
// section 4.4, RFC 7523 section 2.2). It tries again after connection errors,
// timeouts and the statuses 429, 502, 503 and 504, as long as the wait fits
// before the deadline of ctx. After a 429 the gate says how long that is.
//
// Errors are an *Error, the error of r.Assertion, or one that wraps
// context.Canceled.
func (c *Client) RequestToken(ctx context.Context, r TokenRequest) (*Token, error) {
	endpoint, err := parseEndpoint(r.TokenURL)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ended(ctx, endpoint)
	}
	var failure *Error
	for attempt := 1; ; attempt++ {
		token, err := c.attempt(ctx, endpoint, &r)
		if err == nil {
			return token, nil
		}
		before := failure
		if !errors.As(err, &failure) {
			return nil, err
		}
		if failure.NotSent && before != nil {
			return nil, before // which is why there is no time to wait
		}
		failure.Attempts = attempt
		if !failure.retryable || attempt > r.MaxRetries {
			return nil, failure
		}
		if r.Gate != nil && failure.StatusCode == http.StatusTooManyRequests {
			continue
		}
		wait := max(backoff(attempt), failure.RetryAfter)
		if !fits(ctx, wait) {
			return nil, failure
		}
		if c.sleep(ctx, wait) != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ended(ctx, endpoint)
			}
			return nil, failure // says more than that the time is over
		}
	}
}

// attempt sends one request when it is its turn, and reads its answer. The assertion is made then: it is valid from that
// moment on.
func (c *Client) attempt(ctx context.Context, endpoint *url.URL, r *TokenRequest) (*Token, error) {
	pass, err := enter(ctx, r.Gate, endpoint)
	if err != nil {
		return nil, err
	}
	defer pass.Leave()
	assertion, err := r.Assertion()
	if err != nil {
		return nil, err
	}
	form := url.Values{
		"grant_type":            {GrantType},
		"client_assertion_type": {ClientAssertionType},
		"client_assertion":      {assertion},
	}
	if r.Scope != "" {
		form.Set("scope", r.Scope)
	}
	got, err := c.send(ctx, endpoint, call{
		method: http.MethodPost, contentType: "application/x-www-form-urlencoded", body: form.Encode(), timeout: r.Timeout, gate: r.Gate,
	})
	if err != nil {
		return nil, err
	}
	if got.status() != http.StatusOK {
		// Of these two the body says what was rejected, and so what to do: without its end nothing is known yet.
		if got.incomplete != nil && (got.status() == http.StatusBadRequest || got.status() == http.StatusUnauthorized) {
			return nil, got.incomplete
		}
		// Of the others the status decides, also when the body is too large or cut off.
		return nil, rejection(endpoint, got)
	}
	if got.incomplete != nil {
		return nil, got.incomplete
	}
	var answer *tokenResponse
	if got.tooLarge {
		err = errors.New("an answer larger than 64 KiB")
	} else if encoding := got.unknownEncoding(); encoding != "" {
		err = fmt.Errorf("an answer in Content-Encoding %s, which was not asked for", encoding)
	} else {
		answer, err = parseTokenResponse(got.body)
	}
	if err != nil {
		return nil, invalidResponse(endpoint, got, err)
	}
	scope := answer.scope
	if scope == "" {
		scope = r.Scope
	}
	return &Token{
		AccessToken: answer.accessToken, TokenType: bearer, Scope: scope,
		Lifetime: answer.lifetime, Latency: got.latency,
		ClockOffset: got.offset, ClockOffsetKnown: got.offsetKnown,
	}, nil
}

// parseEndpoint reads a token URL. Its error doesn't quote the URL, which may
// carry a password.
func parseEndpoint(tokenURL string) (*url.URL, error) {
	u, err := url.Parse(tokenURL)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" || u.User != nil {
		return nil, invalidEndpoint()
	}
	return u, nil
}

// ended is the error for a context that ended: Timeout after its deadline,
// else one that wraps context.Canceled, for which nobody at Redox is to blame.
func ended(ctx context.Context, endpoint *url.URL) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("the token request was given up: %w", ctx.Err())
	}
	failure := noAnswer(endpoint, "in the time the caller had")
	failure.retryable = false
	failure.wrapped = ctx.Err()
	return failure
}

// clockOffset estimates Redox's clock minus ours from a Date header. Date is
// cut to whole seconds, so half a second is added, and it is compared with
// the middle of the round trip; the result is rounded to the second.
func clockOffset(date string, sent, received time.Time) (offset time.Duration, known bool) {
	t, err := http.ParseTime(date)
	if err != nil {
		return 0, false
	}
	middle := sent.Add(received.Sub(sent) / 2)
	return t.Add(500 * time.Millisecond).Sub(middle).Round(time.Second), true
}
