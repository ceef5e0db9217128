// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// hugeBodyMax bounds the huge_body fault.
const hugeBodyMax = 1 << 30

// Duration is a time.Duration that is a string in JSON, such as "1.5s" or "-2m".
type Duration time.Duration

// MarshalJSON writes the duration as Go does.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads a duration as Go writes it.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return errors.New(`a duration is a string such as "1.5s"`)
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf(`%q is not a duration such as "1.5s"`, printable(text))
	}
	*d = Duration(parsed)
	return nil
}

// Faults says what goes wrong. The zero value is no fault. Faults are looked at when a request is about to be
// answered, after the gate. The members can be combined: what replaces the answer (status, body, redirect, reset)
// goes before what changes the token endpoint's own answer.
type Faults struct {
	// Path is the prefix of the paths that are hit. Default: the token endpoint. The sandbox's own endpoints are
	// never hit.
	Path string `json:"path,omitempty"`
	// Count is how many requests are hit, from now on. Default: all, until the faults are replaced.
	Count int `json:"count,omitempty"`

	// Latency is waited before the request is looked at.
	Latency Duration `json:"latency,omitempty"`
	// Status is answered instead of the real answer; with Body, or with a line of text.
	Status int `json:"status,omitempty"`
	// RetryAfter is sent, as it is, as the Retry-After header; without Status, with the real answer.
	RetryAfter string `json:"retry_after,omitempty"`
	// Body is sent, as it is, instead of the real answer.
	Body string `json:"body,omitempty"`
	// ContentType goes with Body. Default "text/html".
	ContentType string `json:"content_type,omitempty"`
	// Redirect is the Location of a redirect that is answered, with Status when that is a 3xx, else with 307.
	Redirect string `json:"redirect,omitempty"`
	// Reset resets the connection (TCP RST) instead of answering.
	Reset bool `json:"reset,omitempty"`
	// ResetMidBody closes the connection after half of the answer's body.
	ResetMidBody bool `json:"reset_mid_body,omitempty"`
	// SlowBody is waited before each byte of the answer's body.
	SlowBody Duration `json:"slow_body,omitempty"`
	// HugeBody is how many bytes of white space the answer's body begins with: valid JSON, but large.
	HugeBody int64 `json:"huge_body,omitempty"`
	// ClockOffset is how far Redox's own clock is off: the windows of iat and exp, and the Date header.
	ClockOffset Duration `json:"clock_offset,omitempty"`

	// TokenLifetime is how long tokens live that are issued now, and what expires_in says.
	TokenLifetime Duration `json:"token_lifetime,omitempty"`
	// ExpiresInRaw is the JSON value of expires_in, whatever it is; null leaves expires_in out. The token lives as
	// it would without.
	ExpiresInRaw json.RawMessage `json:"expires_in_raw,omitempty"`
	// TokenType is answered as token_type.
	TokenType string `json:"token_type,omitempty"`
	// EmptyAccessToken answers with an empty access_token.
	EmptyAccessToken bool `json:"empty_access_token,omitempty"`
}

// answers says whether the faults replace the real answer.
func (f Faults) answers() bool { return f.Reset || f.Redirect != "" || f.Status != 0 || f.Body != "" }

// check says what is wrong with faults that a request wants to set.
func (f Faults) check() error {
	switch {
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return errors.New("status: must be from 200 to 599")
	case f.Count < 0:
		return errors.New("count: must not be negative; leave it out to hit every request")
	case f.Path != "" && !strings.HasPrefix(f.Path, "/"):
		return errors.New("path: must begin with /, such as " + tokenPath)
	case f.Latency < 0, f.SlowBody < 0, f.TokenLifetime < 0:
		return errors.New("latency, slow_body and token_lifetime: must not be negative")
	case len(f.ExpiresInRaw) > 0 && !json.Valid(f.ExpiresInRaw):
		return errors.New("expires_in_raw: not a JSON value")
	case f.HugeBody < 0 || f.HugeBody > hugeBodyMax:
		return fmt.Errorf("huge_body: must be from 0 to %d bytes", hugeBodyMax)
	}
	return nil
}

// faultBox holds the faults that are set.
type faultBox struct {
	mu     sync.Mutex
	faults Faults
	used   int // requests hit, counted only when Count is set
}

func (b *faultBox) set(f Faults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults, b.used = f, 0
}

// get gives the faults that are set, with the Count that is left; used up, they are gone.
func (b *faultBox) get() Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.faults
	f.ExpiresInRaw = append(json.RawMessage(nil), f.ExpiresInRaw...)
	if f.Count > 0 {
		f.Count -= b.used
	}
	return f
}

// take gives the faults that hit one request to path, and counts it.
func (b *faultBox) take(path string) Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	prefix := b.faults.Path
	if prefix == "" {
		prefix = tokenPath
	}
	if !strings.HasPrefix(path, prefix) {
		return Faults{}
	}
	f := b.faults
	if f.Count > 0 {
		if b.used++; b.used == f.Count {
			b.faults, b.used = Faults{}, 0
		}
	}
	return f
}

// SetFaults replaces the faults; the zero value ends them. It panics on values that PUT /sandbox/faults rejects, a
// mistake in the program.
func (s *Sandbox) SetFaults(f Faults) {
	if err := f.check(); err != nil {
		panic("sandbox: faults: " + err.Error())
	}
	s.faults.set(f)
}

// Faults gives the faults that are set now; Count is what is left of it.
func (s *Sandbox) Faults() Faults { return s.faults.get() }
