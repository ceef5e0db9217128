// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	bearer = "Bearer"

	// defaultLifetime is what Redox documents, for an answer without
	// expires_in (optional in RFC 6749 section 5.1).
	defaultLifetime = 300 * time.Second
	// maxLifetime caps what is believed: to take a token for shorter-lived
	// than it is costs one request, the other way round costs an outage.
	maxLifetime = time.Hour

	maxAccessTokenBytes = 16 << 10
	maxScopeBytes       = 4 << 10
)

// tokenResponse is a successful answer (RFC 6749 section 5.1), checked.
type tokenResponse struct {
	accessToken string
	scope       string
	lifetime    time.Duration
}

// parseTokenResponse reads the body of a 200. Its errors say what is wrong
// with the answer as a noun phrase, and quote nothing of it.
func parseTokenResponse(body []byte) (*tokenResponse, error) {
	if looksLikeHTML(body) {
		return nil, errors.New("an HTML page")
	}
	members, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	if _, ok := members["access_token"]; !ok {
		if _, ok := members["error"]; ok {
			return nil, errors.New("an error with the status of a success")
		}
		return nil, errors.New("an answer without access_token")
	}
	accessToken, ok := stringMember(members, "access_token")
	if !ok || !isAccessToken(accessToken) {
		return nil, errors.New("an access_token that is not a string of 1 to 16384 visible ASCII characters")
	}
	// RFC 6749 requires token_type. Redox documents only Bearer, so its
	// absence can mean nothing else, while any other type could not be used.
	if _, present := members["token_type"]; present {
		if tokenType, ok := stringMember(members, "token_type"); !ok || !strings.EqualFold(tokenType, bearer) {
			return nil, errors.New("a token_type other than Bearer")
		}
	}
	lifetime, err := parseLifetime(members["expires_in"])
	if err != nil {
		return nil, err
	}
	// The scope only informs: one that is no string counts as absent.
	scope, _ := stringMember(members, "scope")
	// It is shown where tokens and assertions are not.
	if len(accessToken) >= 16 && strings.Contains(scope, accessToken) || jwtLike.MatchString(scope) {
		scope = ""
	}
	return &tokenResponse{accessToken: accessToken, scope: cleanScope(scope), lifetime: lifetime}, nil
}

// parseObject reads one JSON object with nothing after it and no name twice:
// which of two values another reader believes would be anyone's guess. Names
// are case-sensitive, null counts as absent.
func parseObject(body []byte) (map[string]json.RawMessage, error) {
	malformed := errors.New("malformed or truncated JSON")
	decoder := json.NewDecoder(bytes.NewReader(body))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("something other than a JSON object")
	}
	members := make(map[string]json.RawMessage)
	seen := make(map[string]bool)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, malformed
		}
		name, ok := token.(string)
		if !ok {
			return nil, malformed
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, malformed
		}
		if seen[name] {
			return nil, errors.New("a JSON object with a name twice")
		}
		seen[name] = true
		if string(value) != "null" {
			members[name] = value
		}
	}
	if _, err := decoder.Token(); err != nil {
		return nil, malformed
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something after the JSON object")
	}
	return members, nil
}

// stringMember gives the named member, and whether it is there and a string.
func stringMember(members map[string]json.RawMessage, name string) (string, bool) {
	raw, ok := members[name]
	if !ok || raw[0] != '"' {
		return "", false
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", false
	}
	return s, true
}

// jsonNumber is the grammar of RFC 8259 section 6; strconv takes more.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// parseLifetime reads expires_in: seconds as a number or, as some servers
// send it, a number in a string. Fractions are cut off.
func parseLifetime(raw json.RawMessage) (time.Duration, error) {
	if raw == nil {
		return defaultLifetime, nil
	}
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return 0, errors.New("an unreadable expires_in")
		}
		text = strings.TrimSpace(text)
	}
	if !jsonNumber.MatchString(text) {
		return 0, errors.New("an expires_in that is not a number")
	}
	// Out of range gives ±Inf, which the bounds below take care of.
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errors.New("an expires_in that is not a number")
	}
	seconds = math.Floor(seconds)
	if seconds <= 0 {
		return 0, fmt.Errorf("an expires_in of %s", lessThanOne(seconds))
	}
	if seconds >= maxLifetime.Seconds() {
		return maxLifetime, nil
	}
	return time.Duration(seconds) * time.Second, nil
}

func lessThanOne(seconds float64) string {
	if seconds < 0 {
		return "less than zero"
	}
	return "less than a second"
}

// isAccessToken reports whether s can be sent as a bearer token: visible
// ASCII, a little more than RFC 6750's b64token.
func isAccessToken(s string) bool {
	if s == "" || len(s) > maxAccessTokenBytes {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// looksLikeHTML reports whether a body is a web page, of a gateway or a
// portal, whatever Content-Type it was sent with.
func looksLikeHTML(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, "\ufeff \t\r\n"), []byte("<"))
}
