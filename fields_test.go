// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestURLs(t *testing.T) {
	urlFields := []string{"base_url", "token_url", "platform_url", "jku"}
	long := "https://redox.example/" + strings.Repeat("a", 512)
	for _, c := range []struct {
		value string
		says  string // empty: accepted
	}{
		{"https://redox.example", ""},
		{"HTTPS://redox.example:8443/a/b", ""},
		{"https://127.0.0.1.example", ""},
		{"http://localhost:8765", ""},
		{"http://127.0.0.1:8765/base", ""},
		{"http://127.9.9.9", ""},
		{"http://[::1]:8765", ""},
		{"http://[::ffff:127.0.0.1]:8765", ""},

		{"https://%ff", "host in ASCII"},
		{"https://%e2%80%ae.com", "host in ASCII"},
		{"http://redox.example", "http is accepted for loopback hosts only"},
		{"http://127.0.0.1.evil.example", "http is accepted for loopback hosts only"},
		{"http://localhost.evil.example", "http is accepted for loopback hosts only"},
		{"http://0.0.0.0", "http is accepted for loopback hosts only"},
		{"http://[::]", "http is accepted for loopback hosts only"},
		{"http://2130706433", "http is accepted for loopback hosts only"},
		{"http://0x7f.1", "http is accepted for loopback hosts only"},
		{"http://169.254.169.254", "http is accepted for loopback hosts only"},
		{"https://user@redox.example", "credentials"},
		{"https://user:" + misplaced + "@redox.example", "credentials"},
		{"https://@redox.example", "credentials"},
		{"http://localhost:x@evil.example", "credentials"},
		{"https://redox.example/#", "fragment"},
		{"https://redox.example/#part", "fragment"},
		{"https://", "no host"},
		{"https:///path", "no host"},
		{"https://:443", "no host"},
		{"https:redox.example", "not an http URL"},
		{"ftp://redox.example", "not an http URL"},
		{"file:///etc/passwd", "not an http URL"},
		{"javascript:alert(1)", "not an http URL"},
		{"redox.example", "not an http URL"},
		{"//redox.example", "not an http URL"},
		{"/v2/auth/token", "not an http URL"},
		{"https://redox.example:port", "not an http URL"},
		{"https://redox.example\\@evil.example", "not an http URL"},
		{"https://redox. example", "not an http URL"},
		{"https://[::1", "not an http URL"},
		{"https://%zz", "not an http URL"},
		{misplaced, "not an http URL"},
		{"https://redox.example/\n", "a character that is not allowed"},
		{"https://redox.example/\x00", "a character that is not allowed"},
		{"https://redöx.example", "a character that is not allowed"},
		{" https://redox.example", "begins or ends with a space"},
		{long, "longer than 512 bytes"},
	} {
		m := newMount(t)
		for _, field := range urlFields {
			path := "config"
			if field == "jku" {
				path = "roles/team" // which checks it as config does, see below
			}
			if c.says == "" {
				m.write(path, map[string]any{field: c.value})
				if got := m.read(path)[field]; got != c.value {
					t.Errorf("%s=%s was stored as %v", field, c.value, got)
				}
				continue
			}
			text := m.refused(logical.UpdateOperation, path, map[string]any{field: c.value})
			if !strings.HasPrefix(text, field+": ") || !strings.Contains(text, c.says) {
				t.Errorf("%s=%q was refused with %q, which does not say %q", field, c.value, text, c.says)
			}
			if strings.Contains(text, misplaced) || strings.Contains(text, c.value) {
				t.Errorf("%s: the error repeats the value: %q", field, text)
			}
		}
		if c.says != "" {
			m.refusedWith(logical.UpdateOperation, "config", map[string]any{"jku": c.value}, "jku: ", c.says)
		}
	}
}

// Paths are appended to some URLs, so that a query would end up in the middle.
func TestURLsWithAQuery(t *testing.T) {
	m := newMount(t)
	for _, value := range []string{"https://redox.example/a?b=c", "https://redox.example/a?"} {
		m.write("config", map[string]any{"token_url": value, "jku": value})
		m.refusedWith(logical.UpdateOperation, "config", map[string]any{"base_url": value}, "base_url: ", "query")
		m.refusedWith(logical.UpdateOperation, "config", map[string]any{"platform_url": value}, "platform_url: ", "query")
	}
}

func TestTexts(t *testing.T) {
	m := newMount(t)
	for _, c := range []struct {
		path, field string
		value       any
		says        string // empty: accepted
	}{
		{"config", "client_id", "c0ffee00-1234-5678-9abc-def012345678", ""},
		{"config", "client_id", "with space", ""},
		{"config", "client_id", json.Number("12345678901234567890"), ""},
		{"config", "client_id", strings.Repeat("a", 4096), ""},
		{"config", "client_id", strings.Repeat("a", 4097), "longer than 4096 bytes"},
		{"config", "client_id", "pasted\n", "a character that is not allowed"},
		{"config", "client_id", "pasted ", "begins or ends with a space"},
		{"config", "client_id", "tab\there", "a character that is not allowed"},
		{"config", "client_id", "delete\x7f", "a character that is not allowed"},
		{"config", "client_id", "ünïcode", "a character that is not allowed"},
		{"config", "client_id", "-----BEGIN PRIVATE KEY-----\n" + misplaced, "a character that is not allowed"},
		{"config", "audience", "https://redox.example/any#thing", ""},
		{"config", "audience", "\x1b[31m", "a character that is not allowed"},
		{"config", "scope", "fhir:read fhir:write", ""},
		{"config", "scope", `"quoted"`, "a quote or a backslash"},
		{"config", "scope", `back\slash`, "a quote or a backslash"},
		{"config", "scope", "new\nline", "a character that is not allowed"},
		{"roles/team", "client_id", "pasted\n", "a character that is not allowed"},
		{"roles/team", "scope", `"quoted"`, "a quote or a backslash"},
		{"config", "key", "../config", "two dots in a row"},
		{"config", "key", "a/b", "can't be a name"},
		{"config", "key", "-a", "can't be a name"},
		{"config", "key", "a.", "can't be a name"},
		{"config", "key", "a b", "can't be a name"},
		{"config", "key", "schlüssel", "can't be a name"},
		{"config", "key", misplaced + "\n", "can't be a name"},
		{"config", "key", "a..b", "two dots in a row"},
		{"config", "key", strings.Repeat("a", 129), "longer than 128 characters"},
		{"roles/team", "key", "../config", "two dots in a row"},
		{"config", "key", "absent", `no signing key named "absent"; create it first with a write to keys/absent`},
		{"roles/team", "key", "absent", `no signing key named "absent"; create it first with a write to keys/absent`},
	} {
		data := map[string]any{c.field: c.value}
		if c.says == "" {
			m.write(c.path, data)
			continue
		}
		text := m.refused(logical.UpdateOperation, c.path, data)
		if !strings.HasPrefix(text, c.field+": ") || !strings.Contains(text, c.says) {
			t.Errorf("%s=%q was refused with %q, which does not say %q", c.field, c.value, text, c.says)
		}
		if strings.Contains(text, misplaced) {
			t.Errorf("%s: the error repeats the value: %q", c.field, text)
		}
	}
	if got := m.read("config")["client_id"]; got != strings.Repeat("a", 4096) {
		t.Errorf("the last client ID that was accepted is not the stored one, but %v", got)
	}
}

func TestRanges(t *testing.T) {
	m := newMount(t)
	for _, c := range []struct {
		path, field string
		value       any
		want        int    // as read back, if accepted
		says        string // empty: accepted
	}{
		{"config", "assertion_ttl", "10s", 10, ""},
		{"config", "assertion_ttl", "9s", 0, "not between 10s and 300s"},
		{"config", "assertion_ttl", "301s", 0, "not between 10s and 300s"},
		{"config", "assertion_ttl", "270", 270, ""},
		{"config", "assertion_ttl", json.Number("271"), 0, "assertion_ttl and clock_skew together exceed 300s"},
		{"config", "clock_skew", "31s", 0, "assertion_ttl and clock_skew together exceed 300s"},
		{"config", "assertion_ttl", "2m", 120, ""},
		{"config", "clock_skew", "3m", 180, ""},
		{"config", "clock_skew", "0", 0, ""},
		{"config", "clock_skew", "291s", 0, "not between 0s and 290s"},
		{"config", "request_timeout", "1s", 1, ""},
		{"config", "request_timeout", "20s", 20, ""},
		{"config", "request_timeout", "0s", 0, "not between 1s and 20s"},
		{"config", "request_timeout", "21s", 0, "not between 1s and 20s"},
		{"config", "request_timeout", "106751d", 0, "not between 1s and 20s"},
		{"config", "max_retries", json.Number("0"), 0, ""},
		{"config", "max_retries", "10", 10, ""},
		{"config", "max_retries", json.Number("-1"), 0, "out of range; give a number from 0 to 10"},
		{"config", "max_retries", "11", 0, "out of range; give a number from 0 to 10"},
		{"config", "max_retries", "9223372036854775807", 0, "out of range; give a number from 0 to 10"},
		{"config", "request_limit", 0, 0, ""},
		{"config", "request_limit", 60, 60, ""},
		{"config", "request_limit", 1_000_000, 1_000_000, ""},
		{"config", "request_limit", 59, 0, "out of range; give 0, or a number from 60 to 1000000"},
		{"config", "request_limit", -1, 0, "out of range; give 0, or a number from 60 to 1000000"},
		{"config", "request_limit", 1_000_001, 0, "out of range; give 0, or a number from 60 to 1000000"},
		{"config", "max_concurrent_requests", 1, 1, ""},
		{"config", "max_concurrent_requests", 1000, 1000, ""},
		{"config", "max_concurrent_requests", 0, 0, "out of range; give a number from 1 to 1000"},
		{"config", "max_concurrent_requests", 1001, 0, "out of range; give a number from 1 to 1000"},
		{"config", "min_ttl", "1", 1, ""},
		{"config", "min_ttl", "1h", 3600, ""},
		{"config", "min_ttl", "59m60s", 3600, ""},
		{"config", "min_ttl", "0", 0, "not between 1s and 3600s"},
		{"config", "min_ttl", "3601s", 0, "not between 1s and 3600s"},
		{"config", "min_ttl", "1d", 0, "not between 1s and 3600s"},
		{"roles/team", "min_ttl", "1h", 3600, ""},
		{"roles/team", "min_ttl", "0", 0, ""},
		{"roles/team", "min_ttl", "3601s", 0, "not between 1s and 3600s"},
	} {
		data := map[string]any{c.field: c.value}
		if c.says != "" {
			m.refusedWith(logical.UpdateOperation, c.path, data, c.says)
			continue
		}
		m.write(c.path, data)
		if got := m.read(c.path)[c.field]; got != c.want {
			t.Errorf("%s=%v is read back as %v", c.field, c.value, got)
		}
	}
}
