// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
)

// leastTelling is how long a value has to be for its being in an error to be no accident.
const leastTelling = 24

// checkRefusal holds what is true of every refusal of a field's value: it names the field, is of bounded length and
// printable, and does not repeat the value.
func checkRefusal(t *testing.T, err error, field, value string) {
	t.Helper()
	if user := (*userError)(nil); !errors.As(err, &user) || user.field != field || user.wayOut == "" {
		t.Fatalf("the error %q does not name the field %s and a way out", err, field)
	}
	text := err.Error()
	if len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("the error is not fit to be read: %q", text)
	}
	if len(value) >= leastTelling && strings.Contains(text, value) {
		t.Errorf("the error %q repeats the value", text)
	}
}

// A URL that is accepted leads to the host that it seems to name, over TLS unless that is this machine, and what is
// appended to it leads nowhere else.
func FuzzURL(f *testing.F) {
	for _, value := range []string{
		"", "https://api.redoxengine.com", "https://api.redoxengine.com/v2/auth/token?x=1", "http://127.0.0.1:8080", "http://[::1]/",
		"http://localhost", "http://localhost.example.com", "http://127.0.0.1@example.com", "https://user:pass@example.com",
		"https:///x",
		"https://example.com#x", "https://example.com?", "https:example.com", "//example.com", "http://localhost%2eexample.com",
		"https://example.com\\@localhost", "http://127.1", "http://[::ffff:127.0.0.1]", "http://0x7f.1", "http://[::1%25eth0]:1",
		"https://example.com/%zz", "https://example.com:port", "https://ex\x00ample.com", "https://exämple.com",
		"HTTPS://EXAMPLE.COM", "https://%e2%80%ae.com", "https://%ff",
	} {
		f.Add(value, false)
		f.Add(value, true)
	}
	f.Fuzz(func(t *testing.T, value string, query bool) {
		if err := checkURL("base_url", value, query); err != nil {
			checkRefusal(t, err, "base_url", value)
			return
		}
		if value == "" {
			return // the default
		}
		u, err := url.Parse(value)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(u.Host, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("the host %q goes into errors", u.Host)
		}
		local := u.Hostname() == "localhost" || strings.HasPrefix(u.Hostname(), "127.") || strings.Contains(u.Hostname(), ":")
		if u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !local) {
			t.Errorf("%q is accepted", value)
		}
		if query {
			return
		}
		c := defaultConfig()
		c.BaseURL = value
		for _, derived := range []string{c.tokenURL(), c.platformURL()} {
			d, err := url.Parse(derived)
			if err != nil || d.Scheme != u.Scheme || d.Host != u.Host || d.User != nil || d.RawQuery != "" || d.Fragment != "" ||
				!strings.HasPrefix(d.Path, strings.TrimRight(u.Path, "/")) {
				t.Errorf("%q became %q", value, derived)
			}
		}
	})
}

// A schedule that is accepted has a next time whenever one is asked for, and those are at least an hour apart.
func FuzzRotationSchedule(f *testing.F) {
	const now = 1772366400
	for _, schedule := range []string{
		"0 3 1 * *", "0 * * * *", "*/30 * * * *", "0 0 29 2 *", "0 0 30 2 *", "0 0 31 1-12/2 1", "59 23 * * sun", "every day",
		"@hourly",
		"@every 1h", "TZ=UTC 0 3 * * *", "TZ=UTC", "TZ=", "CRON_TZ=Europe/Paris 0 3 * * *", "CRON_TZ=x", "0 3 1 * * *",
		"0-59/0 * * * *",
		"0 3 1 * ?", "99999999999999999999 * * * *", "-1 * * * *", "1,1,1 1,1 * * *", " 0 3 1 * *", "0\t3\n1 * *", "*/60 * * * *",
	} {
		f.Add(schedule, int64(now))
	}
	f.Fuzz(func(t *testing.T, schedule string, unix int64) {
		if unix < 0 || unix > 4102444800 { // 2100
			return
		}
		now := time.Unix(unix, 0)
		k := defaultKey()
		k.RotationSchedule = schedule
		if err := k.checkRotationTimes(now); err != nil {
			checkRefusal(t, err, "rotation_schedule", schedule)
			return
		}
		if schedule == "" {
			return // no rotation by itself
		}
		if len(strings.Fields(schedule)) != 5 {
			t.Errorf("%q has not five fields", schedule)
		}
		previous := now
		for i := range 3 {
			next := k.rotationTimes().next(previous)
			if next.IsZero() && i > 0 {
				return // a leap day on the other side of a century without one
			}
			if next.Location() != time.UTC || !next.After(previous) || i > 0 && next.Sub(previous) < time.Hour {
				t.Fatalf("%q comes true at %s, then at %s", schedule, previous, next)
			}
			previous = next
		}
		k.scheduleRotation(now)
		if due, missed := k.rotationDue(now); due || missed {
			t.Errorf("%q is due when it is set, or missed: %v", schedule, missed)
		}
	})
}
