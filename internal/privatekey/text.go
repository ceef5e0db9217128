// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"strings"
	"unicode/utf8"

	"vault-plugin-secrets-redox/internal/pemtext"
)

// normalize returns an input as the text that somebody meant to give. What is no text is an InputError.
func normalize(input string) (string, error) {
	if strings.Count(input, "\x00") > len(input)/4 {
		return "", refuse("it is text in UTF-16, as PowerShell writes it", "convert it: iconv -f UTF-16 -t UTF-8 KEYFILE > key.pem")
	}
	if isBinary(input) {
		return "", refuseBinary(input, "KEYFILE", "")
	}
	return pemtext.Normalize(input), nil
}

// isBinary reports whether something is no text. Where it came as JSON, bytes that are no UTF-8 have become U+FFFD.
func isBinary(input string) bool {
	return !utf8.ValidString(input) || strings.ContainsFunc(input, func(r rune) bool {
		return r == utf8.RuneError || r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f
	})
}
