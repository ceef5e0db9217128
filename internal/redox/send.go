// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/gate"
)

const maxBodyBytes = 64 << 10

// call is one HTTP request.
type call struct {
	method      string
	contentType string // of the body
	body        string
	accessToken string        // sent as bearer token unless it is empty
	timeout     time.Duration // 0 leaves only the context's deadline
	gate        *gate.Gate    // is told what the server answers; nil: there is none
}

// reply is an answer to a call.
type reply struct {
	response *http.Response // its body is read
	body     []byte         // at most 64 KiB
	tooLarge bool           // there was more
	// incomplete is the error of a connection that broke off in the middle of the body. The status may say enough.
	incomplete error
	received   time.Time
	latency    time.Duration

	// Redox's clock minus ours, to the second, known when the answer carried a Date header.
	offset      time.Duration
	offsetKnown bool
}

func (r *reply) status() int { return r.response.StatusCode }

// send sends one request and reads its answer. It follows no redirect. Its error is an *Error, or wraps
// context.Canceled.
func (c *Client) send(ctx context.Context, endpoint *url.URL, what call) (*reply, error) {
	attemptCtx, cancel := ctx, context.CancelFunc(func() {})
	if what.timeout > 0 {
		attemptCtx, cancel = context.WithTimeout(ctx, what.timeout)
	}
	defer cancel()
	request, err := http.NewRequestWithContext(attemptCtx, what.method, endpoint.String(), strings.NewReader(what.body))
	if err != nil {
		return nil, invalidEndpoint()
	}
	if what.contentType != "" {
		request.Header.Set("Content-Type", what.contentType)
	}
	if what.accessToken != "" {
		request.Header.Set("Authorization", "Bearer "+what.accessToken)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", c.userAgent)

	sent, started := c.now(), time.Now()
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return nil, c.connectionFailure(ctx, attemptCtx, endpoint, what.timeout, err)
	}
	defer response.Body.Close()
	got := &reply{response: response, received: c.now()}
	got.offset, got.offsetKnown = clockOffset(response.Header.Get("Date"), sent, got.received)
	if got.body, got.tooLarge, err = readBody(response); err != nil {
		got.incomplete = c.connectionFailure(ctx, attemptCtx, endpoint, what.timeout, err)
	}
	got.latency = time.Since(started) // by the monotonic clock, which c.now may not have
	if got.status() == http.StatusTooManyRequests {
		what.gate.Limited(got.retryAfter())
	} else {
		what.gate.Answered()
	}
	return got, nil
}

// retryAfter returns how long the server asks to wait (RFC 9110 section 10.2.3), 0 when it does not.
func (r *reply) retryAfter() time.Duration {
	now := r.received
	if sent, err := http.ParseTime(r.response.Header.Get("Date")); err == nil {
		now = sent // a date is by the same clock
	}
	return parseRetryAfter(r.response.Header.Get("Retry-After"), now)
}

// enter waits at a host's gate. Its error is an *Error, or wraps context.Canceled.
func enter(ctx context.Context, g *gate.Gate, endpoint *url.URL) (*gate.Pass, error) {
	pass, err := g.Enter(ctx)
	if refusal := (*gate.Refusal)(nil); errors.As(err, &refusal) {
		return nil, notSent(endpoint, refusal)
	}
	if err != nil {
		return nil, ended(ctx, endpoint)
	}
	return pass, nil
}

// unknownEncoding returns the Content-Encoding of an answer if it is one that nobody asked for and readBody can't undo.
func (r *reply) unknownEncoding() string {
	switch encoding := strings.ToLower(r.response.Header.Get("Content-Encoding")); encoding {
	case "", "identity", "gzip", "x-gzip":
		return ""
	default:
		return clean(encoding, maxCodeRunes)
	}
}

// readBody reads the body to its end, so that the connection can be used again, or up to the limit. What was compressed, though
// nobody asked for it, is decompressed up to the same limit. A byte order mark is left out (RFC 8259 section 8.1).
func readBody(response *http.Response) (body []byte, tooLarge bool, err error) {
	if response.StatusCode < http.StatusOK {
		return nil, false, nil // after 101 the body is the connection, without an end
	}
	var content io.Reader = response.Body
	switch strings.ToLower(response.Header.Get("Content-Encoding")) {
	case "gzip", "x-gzip":
		// What is read of the connection is bounded, too: little of it can become much.
		decompressed, failed := gzip.NewReader(io.LimitReader(response.Body, maxBodyBytes+1))
		if failed != nil {
			return nil, false, nil // which is no answer that could be understood
		}
		content = decompressed
	}
	body, err = io.ReadAll(io.LimitReader(content, maxBodyBytes+1))
	if content != io.Reader(response.Body) && err != nil {
		return nil, false, nil
	}
	if len(body) > maxBodyBytes {
		return body[:maxBodyBytes], true, err
	}
	return bytes.TrimPrefix(body, []byte("\ufeff")), false, err
}
