// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package pemtext reads text as people bring it: PEM (RFC 7468) and JSON that editors, shells, YAML files and secret stores have
// changed in ways that leave no doubt about what is meant. It knows nothing of keys and certificates.
package pemtext

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
)

// Begin is what every PEM block begins with.
const Begin = "-----BEGIN "

// Normalize returns a text without a byte order mark, blanks and quotes around it, and with line ends as they are on Unix, also
// where they were escaped.
func Normalize(text string) string {
	for {
		inner := unquote(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "\ufeff")))
		if inner == text {
			break
		}
		text = inner
	}
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") { // in JSON they are escaped rightly
		text = strings.NewReplacer(`\r\n`, "\n", `\n`, "\n", `\r`, "\n", `\t`, " ").Replace(text)
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimSpace(text))
}

// unquote takes one pair of quotes away: those of JSON with what they escape.
func unquote(text string) string {
	if len(text) < 2 || text[0] != text[len(text)-1] {
		return text
	}
	switch text[0] {
	case '"':
		var inner string
		if json.Unmarshal([]byte(text), &inner) == nil {
			return inner
		}
		return text[1 : len(text)-1]
	case '\'', '`':
		return text[1 : len(text)-1]
	}
	return text
}

// Block is a PEM block.
type Block struct {
	Label string
	Body  string // as it is there, also its headers
}

// Bytes returns what the block holds. It has to be base64 alone: its error is for one that is not, or is empty.
func (b Block) Bytes() ([]byte, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(b.Body), ""))
	if err == nil && len(der) == 0 {
		err = errors.New("the block is empty")
	}
	return der, err
}

// ErrDamaged is a text with a block that does not end, or ends as another one.
var ErrDamaged = errors.New("a PEM block is malformed or cut off")

var blocks = regexp.MustCompile(`(?s)-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END ([A-Z0-9 ]+)-----`)

// Blocks returns the PEM blocks of a text, whatever stands before, between and after them, and however their lines end. Its
// error is ErrDamaged.
func Blocks(text string) ([]Block, error) {
	found := blocks.FindAllStringSubmatch(text, -1)
	if len(found) != strings.Count(text, Begin) {
		return nil, ErrDamaged
	}
	result := make([]Block, len(found))
	for i, block := range found {
		if block[1] != block[3] {
			return nil, ErrDamaged
		}
		result[i] = Block{block[1], block[2]}
	}
	return result, nil
}
