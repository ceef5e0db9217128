// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const maxBodyBytes = 64 << 10

// call is one HTTP request.
type call struct {
	method      string
	contentType string // of the body
	body        string
	accessToken string        // sent as bearer token unless it is empty
	timeout     time.Duration // 0 leaves only the context's deadline
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
	return got, nil
}

// readBody reads the body to its end, so that the connection can be used
// again, or up to the limit.
func readBody(response *http.Response) (body []byte, tooLarge bool, err error) {
	if response.StatusCode < http.StatusOK {
		return nil, false, nil // after 101 the body is the connection, without an end
	}
	body, err = io.ReadAll(io.LimitReader(response.Body, maxBodyBytes+1))
	if len(body) > maxBodyBytes {
		return body[:maxBodyBytes], true, err
	}
	return body, false, err
}
