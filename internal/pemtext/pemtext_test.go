// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package pemtext

import (
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	for input, want := range map[string]string{
		"":                             "",
		" \r\n\t":                      "",
		"\ufeffa":                      "a",
		" \ufeff 'a' ":                 "a",
		`"a\nb"`:                       "a\nb",
		`"\"a\""`:                      "a",
		"a\r\nb\rc\nd":                 "a\nb\nc\nd",
		`a\r\nb\nc`:                    "a\nb\nc",
		`{"a":"b\nc"}`:                 `{"a":"b\nc"}`,
		"\"not JSON\x01\"":             "not JSON\x01",
		`'`:                            `'`,
		"`a`":                          "a",
		"'unbalanced\"":                "'unbalanced\"",
		"\ufeff[1]":                    "[1]",
		"\"{\\\"kty\\\":\\\"EC\\\"}\"": `{"kty":"EC"}`,
	} {
		if got := Normalize(input); got != want {
			t.Errorf("%q gives %q, want %q", input, got, want)
		}
	}
}

func TestBlocks(t *testing.T) {
	block := func(label, body string) string {
		return "-----BEGIN " + label + "-----" + body + "-----END " + label + "-----"
	}
	for name, test := range map[string]struct {
		text   string
		labels string // "damaged" for an error
	}{
		"none":                 {"text", ""},
		"two with text":        {"a\n" + block("X", "\nAAAA\n") + "\nb\n" + block("Y Z", " AAAA ") + "c", "X,Y Z"},
		"no end":               {"-----BEGIN X-----\nAAAA", "damaged"},
		"another end":          {"-----BEGIN X-----\nAAAA\n-----END Y-----", "damaged"},
		"one in another":       {"-----BEGIN X-----\n" + block("X", "AAAA") + "\n-----END X-----", "damaged"},
		"an end of its own":    {"-----END X-----\n" + block("X", "AAAA"), "X"},
		"no end, then a whole": {"-----BEGIN X-----\nAAAA\n" + block("X", "AAAA"), "damaged"},
	} {
		found, err := Blocks(test.text)
		var labels []string
		for _, b := range found {
			labels = append(labels, b.Label)
			if der, err := b.Bytes(); err != nil || len(der) != 3 {
				t.Errorf("%s: %v, %v", name, der, err)
			}
		}
		got := strings.Join(labels, ",")
		if err != nil {
			got = "damaged"
		}
		if got != test.labels {
			t.Errorf("%s: %s, want %s", name, got, test.labels)
		}
	}
	for _, body := range []string{"", " ", "AAA", "AA=A", "A*AA", "Proc-Type: 4,ENCRYPTED\n\nAAAA"} {
		if der, err := (Block{"X", body}).Bytes(); err == nil {
			t.Errorf("%q gives %v", body, der)
		}
	}
}

func FuzzBlocks(f *testing.F) {
	f.Add("-----BEGIN X-----\nAAAA\n-----END X-----")
	f.Fuzz(func(t *testing.T, text string) {
		if again := Normalize(Normalize(text)); again != Normalize(text) && !strings.Contains(text, `\`) {
			t.Errorf("%q changes when it is normalized again", text)
		}
		found, err := Blocks(text)
		if err == nil && len(found) != strings.Count(text, Begin) {
			t.Errorf("%d blocks", len(found))
		}
	})
}
