// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		header string
		want   time.Duration
	}{
		{"", 0}, {"0", 0}, {"1", time.Second}, {" 120 ", 2 * time.Minute},
		{"86400", maxRetryAfter}, {"86401", maxRetryAfter}, {"4294967296", maxRetryAfter}, {strings.Repeat("9", 400), maxRetryAfter},
		{"-5", 0}, {"+5", 0}, {"1.5", 0}, {"1e3", 0}, {"soon", 0}, {"5, 6", 0},
		{"Sun, 01 Mar 2026 12:00:30 GMT", 30 * time.Second},
		{"Sunday, 01-Mar-26 12:00:30 GMT", 30 * time.Second}, // RFC 850, obsolete
		{"Sun Mar  1 12:00:30 2026", 30 * time.Second},       // asctime, obsolete
		{"Sun, 01 Mar 2026 11:59:59 GMT", 0},
		{"Sun, 01 Mar 2399 12:00:30 GMT", maxRetryAfter},
	}
	for _, test := range tests {
		if got := parseRetryAfter(test.header, now); got != test.want {
			t.Errorf("%.40q gives %v, want %v", test.header, got, test.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	for _, attempt := range []int{1, 2, 5, 6, 10, 11, 64, 1000, math.MaxInt} {
		mean := maxBackoff
		if attempt <= 5 {
			mean = firstBackoff << (attempt - 1)
		}
		seen := map[time.Duration]bool{}
		for range 100 {
			d := backoff(attempt)
			if d < mean/2 || d > mean*3/2 {
				t.Fatalf("attempt %d waits %v, want about %v", attempt, d, mean)
			}
			seen[d] = true
		}
		if len(seen) < 2 {
			t.Errorf("attempt %d has no jitter", attempt)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, header := range []string{"", "0", "30", "-1", "99999999999999999999", "1.5", "Sun, 01 Mar 2026 12:00:30 GMT", "Sunday, 01-Mar-26 12:00:30 GMT", "Sun Mar  1 12:00:30 2026", "Sun, 01 Mar 2026", "\x00"} {
		f.Add(header, int64(1772366400))
	}
	f.Fuzz(func(t *testing.T, header string, now int64) {
		got := parseRetryAfter(header, time.Unix(now, 0))
		if got < 0 || got > maxRetryAfter {
			t.Errorf("%q gives %v", header, got)
		}
		// What is read is either a number of seconds or a date.
		if got > 0 && strings.Trim(strings.TrimSpace(header), "0123456789") != "" {
			if _, err := http.ParseTime(strings.TrimSpace(header)); err != nil {
				t.Errorf("%q gives %v", header, got)
			}
		}
	})
}
