// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"net/http"
	"strings"
	"time"
)

// authenticate gives what is known of the request's access token (RFC 6750 section 2.1). Not ok: there is none, or
// none that is live.
func (s *Sandbox) authenticate(r *http.Request) (token issuedToken, ok bool) {
	scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return issuedToken{}, false
	}
	return s.tokens.get(strings.TrimSpace(credentials), s.options.Now())
}

// challenge sets the header that goes with a 401 (RFC 6750 section 3).
func challenge(w http.ResponseWriter, r *http.Request) {
	value := `Bearer realm="redox-sandbox"`
	if r.Header.Get("Authorization") != "" {
		value += `, error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", value)
}

// age writes how long ago a token was issued, for the log.
func (s *Sandbox) age(token issuedToken) string {
	return seconds(s.options.Now().Sub(token.issued).Round(time.Second)) + " ago"
}
