// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"regexp"
	"strings"
	"unicode"
)

const (
	maxCodeRunes        = 64
	maxDescriptionRunes = 400

	removed = "[removed]"
)

var (
	// jwtLike is a JWT, or the beginning of one: its header is a JSON object,
	// which always encodes to "ey…".
	jwtLike = regexp.MustCompile(`ey[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)+`)
	// longRun is base64, base64url or hex of 24 bytes or more.
	longRun = regexp.MustCompile(`[A-Za-z0-9+/_=-]{32,}`)
	// uuid is how Redox writes client IDs, which help and are no secret.
	uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

// clean makes words of another server fit for an error message: on one line,
// without control characters and without anything that could be a token, an
// assertion or a key, at most maxRunes long.
func clean(s string, maxRunes int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = jwtLike.ReplaceAllLiteralString(s, removed)
	s = longRun.ReplaceAllStringFunc(s, func(run string) string {
		if uuid.MatchString(run) {
			return run
		}
		return removed
	})
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > maxRunes {
		return string(runes[:maxRunes-1]) + "…"
	}
	return s
}

// cleanScope keeps the characters that RFC 6749 section 3.3 allows in a
// scope. Unlike clean it removes no long runs: scope names are long.
func cleanScope(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s[:min(len(s), maxScopeBytes)])
}
