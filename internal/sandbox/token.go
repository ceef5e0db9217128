// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"time"
)

// TokenPrefix begins every access token the sandbox issues, so that a search for leaked tokens finds them.
const TokenPrefix = "sandbox-token-"

const (
	formType      = "application/x-www-form-urlencoded"
	grantType     = "client_credentials"
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	errorURI      = "https://docs.redoxengine.com/"
	scopeMax      = 1024
)

// issuedToken is what the sandbox remembers of an access token.
type issuedToken struct {
	clientID    string
	environment Environment
	management  bool
	issued      time.Time
}

// IsLive says whether the FHIR endpoint would take an access token now: this sandbox issued it, and it has not
// expired.
func (s *Sandbox) IsLive(accessToken string) bool {
	_, live := s.tokens.get(accessToken, s.options.Now())
	return live
}

// handleToken is the token endpoint: RFC 6749 section 4.4 with a client assertion (RFC 7523).
func (s *Sandbox) handleToken(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	form, broken := readForm(r)
	if broken != nil {
		s.reject(w, x, assertion{}, *broken)
		return
	}
	a, k, broken := s.checkAssertion(r.Context(), x, form.Get("client_assertion"))
	if broken != nil {
		s.reject(w, x, a, *broken)
		return
	}
	// Redox documents nothing about scopes that an API key doesn't have: what is asked for is granted.
	scope := k.Scope
	if form.Has("scope") {
		scope = form.Get("scope")
		scope = scope[:min(len(scope), scopeMax)]
	}
	s.issue(w, x, a, k, scope)
}

// readForm checks the request up to its assertion. RFC 6749 section 3.2 forbids to repeat a parameter; one that is
// there twice counts as one with a wrong value.
func readForm(r *http.Request) (url.Values, *rejection) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != formType {
		return nil, &rejection{ruleContentType, "Content-Type is " + quoted(r.Header.Get("Content-Type"))}
	}
	if err := r.ParseForm(); err != nil {
		return nil, &rejection{ruleContentType, "the body is not a form"}
	}
	form := r.PostForm // what is in the URL's query doesn't count
	for _, parameter := range []struct {
		name           string
		want           string
		missing, other rule
	}{
		{"grant_type", grantType, ruleGrantTypeMissing, ruleGrantTypeOther},
		{"client_assertion_type", assertionType, ruleAssertionTypeMissing, ruleAssertionTypeOther},
		{"client_assertion", "", ruleAssertionMissing, ruleAssertionMalformed},
	} {
		switch value := form.Get(parameter.name); {
		case value == "":
			return nil, &rejection{parameter.missing, "the form has no " + parameter.name}
		case len(form[parameter.name]) > 1:
			return nil, &rejection{parameter.other, "the form has " + parameter.name + " more than once"}
		case parameter.want != "" && value != parameter.want:
			return nil, &rejection{parameter.other, parameter.name + " is " + quoted(value)}
		}
	}
	return form, nil
}

// reject answers with what Redox documents for the broken rule, and logs what was really wrong.
func (s *Sandbox) reject(w http.ResponseWriter, x *exchange, a assertion, broken rejection) {
	with := rejections[broken.rule]
	s.counters.tokenRejected(s.knownClient(a.clientID), with.Description)
	description := with.Description
	if description == "" {
		description = emptyDescription
	}
	who := ""
	if a.clientID != "" || a.kid != "" {
		who = " (client " + quoted(a.clientID) + ", kid " + quoted(a.kid) + ")"
	}
	x.say("rejected: %s%s: %s", description, who, broken.why)
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, "application/json", with.Status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		URI         string `json:"error_uri"`
	}{"invalid_request", with.Description, errorURI})
}

// knownClient gives the client ID if an API key has it, else "": counters are kept for those only.
func (s *Sandbox) knownClient(clientID string) string {
	if _, ok := s.apiKeys.get(clientID); !ok {
		return ""
	}
	return clientID
}

// issue makes an access token and answers with it, RFC 6749 section 5.1, as the faults that are set change it.
func (s *Sandbox) issue(w http.ResponseWriter, x *exchange, a assertion, k APIKey, scope string) {
	lifetime := s.options.TokenLifetime
	if x.fault.TokenLifetime > 0 {
		lifetime = time.Duration(x.fault.TokenLifetime)
	}
	token := newAccessToken()
	now := s.options.Now()
	s.tokens.add(token, issuedToken{k.ID, k.Environment, k.Management, now}, now, now.Add(lifetime))
	s.counters.tokenIssued(k.ID)
	x.say("issued for client %s signed with kid %s (%s), lives %s", printable(k.ID), printable(a.kid), a.algorithm, seconds(lifetime))

	answer := map[string]any{
		"access_token": token,
		"token_type":   "Bearer",
		"expires_in":   int64(lifetime / time.Second),
		"scope":        scope,
	}
	if x.fault.EmptyAccessToken {
		answer["access_token"] = ""
	}
	if x.fault.TokenType != "" {
		answer["token_type"] = x.fault.TokenType
	}
	if raw := x.fault.ExpiresInRaw; string(raw) == "null" {
		delete(answer, "expires_in")
	} else if len(raw) > 0 {
		answer["expires_in"] = json.RawMessage(raw)
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, "application/json", http.StatusOK, answer)
}

// newAccessToken gives an opaque random token.
func newAccessToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	return TokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}
