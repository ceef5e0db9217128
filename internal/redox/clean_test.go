// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	const jwt = "eyJhbGciOiJSUzM4NCJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"
	tests := []struct{ name, in, want string }{
		{"plain", "Public key not found, check client_id, kid", "Public key not found, check client_id, kid"},
		{"white space", " a\r\n\tb \u00a0 c ", "a b c"},
		{"control characters", "a\x00b\x1b[31mc\x7f", "ab[31mc"},
		{"direction and invisible characters", "a\u202eb\u200bc", "abc"},
		{"invalid UTF-8", "a\xffb", "ab"},
		{"JWT", "bad token " + jwt + "!", "bad token [removed]!"},
		{"JWT without signature", "eyJhbGciOiJSUzM4NCJ9.eyJpc3MiOiJ4In0.", "[removed]"},
		{"JWT split by invisible characters", strings.ReplaceAll(jwt, "J", "J\u200b"), "[removed]"},
		{"hex", "key " + strings.Repeat("0123456789abcdef", 2), "key [removed]"},
		{"base64", strings.Repeat("Ab+/", 8) + "==", "[removed]"},
		{"UUID", "client 0f8fad5b-d9cb-469f-a165-70867728950e unknown", "client 0f8fad5b-d9cb-469f-a165-70867728950e unknown"},
		{"UUID and more", "0f8fad5b-d9cb-469f-a165-70867728950e0", "[removed]"},
		{"31 characters", strings.Repeat("a", 31), strings.Repeat("a", 31)},
		{"400 runes", strings.Repeat("ä ", 199) + "äö", strings.Repeat("ä ", 199) + "äö"},
		{"401 runes", strings.Repeat("ä ", 200) + "ö", strings.Repeat("ä ", 199) + "ä…"},
	}
	for _, test := range tests {
		got := clean(test.in, maxDescriptionRunes)
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
		if utf8.RuneCountInString(got) > maxDescriptionRunes {
			t.Errorf("%s: %d runes", test.name, utf8.RuneCountInString(got))
		}
	}
}
