// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"bytes"
	"encoding/json"
	"mime"
	"strings"
	"unicode/utf8"
)

// words are what a server says of an error, cleaned and cut.
type words struct {
	code, description string
	// foreign is set when they are not in the form of RFC 6749 section 5.2, which a token endpoint's are.
	foreign bool
}

// parseWords reads what a server says of an error, in the form of RFC 6749 section 5.2 or of those that gateways and other APIs
// use. What it returns is empty when nothing is said.
func parseWords(body []byte) words {
	if members, err := parseObject(body); err == nil {
		code, _ := stringMember(members, "error")
		description, _ := stringMember(members, "error_description")
		if w := (words{clean(code, maxCodeRunes), clean(description, maxDescriptionRunes), false}); w.description != "" || w.code != "" && len(members) == 1 {
			return w
		}
		said := clean(findWords(body), maxDescriptionRunes)
		if said == "" || said == clean(code, maxDescriptionRunes) {
			return words{code: clean(code, maxCodeRunes)}
		}
		return words{clean(code, maxCodeRunes), said, true}
	}
	text := strings.TrimSpace(string(body))
	switch {
	case text == "", !utf8.ValidString(text), strings.HasPrefix(text, "<"):
		return words{}
	case json.Valid(body):
		text = findWords(body)
	case strings.HasPrefix(text, "{"), strings.HasPrefix(text, "["):
		return words{} // it is cut off
	}
	said := clean(text, maxDescriptionRunes)
	return words{description: said, foreign: said != ""}
}

// wordMembers are where answers have what they say, the most telling first: those of problem details (RFC 9457), of FHIR's
// OperationOutcome, and of gateways and frameworks.
var wordMembers = []string{
	"error_description", "errorDescription", "detail", "message", "error_message", "errorMessage", "Message", "diagnostics", "details", "text",
	"reason", "msg", "faultstring", "description", "title", "issue", "errors", "error", "fault", "status_message",
}

// findWords returns the first thing that JSON says.
func findWords(body []byte) string {
	var value any
	if json.NewDecoder(bytes.NewReader(body)).Decode(&value) != nil {
		return ""
	}
	const deepest = 6
	return wordsIn(value, deepest)
}

func wordsIn(value any, depth int) string {
	if depth == 0 {
		return ""
	}
	switch value := value.(type) {
	case string:
		return strings.TrimSpace(value)
	case []any:
		for _, one := range value {
			if said := wordsIn(one, depth-1); said != "" {
				return said
			}
		}
	case map[string]any:
		for _, name := range wordMembers {
			if said := wordsIn(value[name], depth-1); said != "" {
				return said
			}
		}
	}
	return ""
}

// mediaType returns the media type of an answer, for an error; "none" where it names none.
func mediaType(header string) string {
	kind, _, err := mime.ParseMediaType(header)
	if err != nil || kind == "" {
		return "none"
	}
	return clean(kind, maxCodeRunes)
}
