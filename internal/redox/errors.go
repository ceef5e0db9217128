// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Kind says whose fault a failure is.
type Kind int

const (
	// Rejected: the request or the configuration is wrong. Trying again
	// without a change is useless.
	Rejected Kind = iota + 1
	// Unavailable: no connection, or an answer that may pass: 408, 429, 5xx.
	Unavailable
	// Timeout: no answer in time.
	Timeout
	// InvalidResponse: an answer came that is no token response.
	InvalidResponse
)

// String gives the kind's name for logs and metrics.
func (k Kind) String() string {
	switch k {
	case Rejected:
		return "rejected"
	case Unavailable:
		return "unavailable"
	case Timeout:
		return "timeout"
	case InvalidResponse:
		return "invalid_response"
	}
	return "unknown"
}

// Error is every failure that Redox, or the way to it, caused. No field ever
// holds an assertion, a token, a key or a raw response body.
type Error struct {
	Kind       Kind
	StatusCode int // of the HTTP answer; 0 when none came

	// Redox's own error and error_description, cleaned and cut; may be empty.
	Code, Description string

	// The diagnosis: what is wrong, and what to do next.
	Cause, Action string

	// RetryAfter is how long Redox asked to wait; 0 when it did not. With NotSent it is how long it takes at least until a
	// request can be sent.
	RetryAfter time.Duration
	// NotSent is set when no request was sent, so as not to ask the server more often than it allows.
	NotSent bool

	// ClockOffset is Redox's clock minus ours, to the second, known when the
	// answer carried a Date header.
	ClockOffset      time.Duration
	ClockOffsetKnown bool

	// Attempts counts the requests that were tried.
	Attempts int

	retryable bool
	foreign   bool   // the answer was not in the form of a token endpoint's
	server    string // who it is about; empty for Redox
	wrapped   error  // the context's error, when its deadline ended the request
}

// Error gives the diagnosis and Redox's own words in one sentence:
// cause (answer); action.
func (e *Error) Error() string {
	var details []string
	if e.StatusCode != 0 {
		details = append(details, fmt.Sprintf("HTTP %d", e.StatusCode))
	}
	if e.Code != "" {
		details = append(details, e.Code)
	}
	if e.Description != "" {
		details = append(details, fmt.Sprintf("%q", e.Description))
	}
	if e.RetryAfter > 0 && !e.NotSent {
		details = append(details, fmt.Sprintf("%s asks to wait %s", cmp.Or(e.server, "Redox"), e.RetryAfter.Round(time.Second)))
	}
	if e.Attempts > 1 {
		details = append(details, fmt.Sprintf("%d attempts", e.Attempts))
	}
	text := e.Cause
	if len(details) > 0 {
		text += " (" + strings.Join(details, ", ") + ")"
	}
	if e.Action != "" {
		text += "; " + e.Action
	}
	return text
}

// Unwrap gives context.DeadlineExceeded when the caller's deadline ended the
// request, else nil.
func (e *Error) Unwrap() error { return e.wrapped }

// PublicKeyNotFound reports whether Redox rejected the assertion because it
// has no such public key for the client ID (REDOX.md, Errors), in its own words.
func (e *Error) PublicKeyNotFound() bool {
	return e.StatusCode >= 400 && e.StatusCode < 500 && strings.HasPrefix(e.Description, publicKeyNotFound)
}
