// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second

	// maxWait bounds one wait even when the caller set no deadline.
	maxWait = time.Minute

	// maxRetryAfter bounds what is believed of a Retry-After header: what Redox counts over (REDOX.md).
	maxRetryAfter = 5 * time.Minute
)

// retryableStatus reports whether the status says that the same request may
// succeed later. 500 is not among them: it tells nothing of the kind.
func retryableStatus(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// backoff is how long to wait after the given failed attempt (from 1): twice
// as long each time, between half and one and a half of that.
func backoff(attempt int) time.Duration {
	d := min(firstBackoff<<min(attempt-1, 10), maxBackoff)
	return d/2 + rand.N(d)
}

// fits reports whether there is time left after waiting. A context's deadline
// is in real time, whatever clock the client has.
func fits(ctx context.Context, wait time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return wait <= maxWait && (!ok || wait < time.Until(deadline))
}

// parseRetryAfter reads a Retry-After header (RFC 9110 section 10.2.3), in
// seconds or as an HTTP date. now is the sender's clock, its Date header, if
// that is known. It gives 0 for what it can't read, and at most five minutes.
func parseRetryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if header == "" {
		return 0
	}
	if strings.Trim(header, "0123456789") == "" {
		seconds, err := strconv.ParseUint(header, 10, 32)
		if err != nil || seconds > uint64(maxRetryAfter/time.Second) {
			return maxRetryAfter // too large a number
		}
		return time.Duration(seconds) * time.Second
	}
	t, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(t.Sub(now), 0), maxRetryAfter)
}
