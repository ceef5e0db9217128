// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/gate"
)

// diagnosis is what is wrong and what to do next.
type diagnosis struct{ cause, action string }

// publicKeyNotFound begins the description of the one rejection that the
// engine acts upon.
const publicKeyNotFound = "Public key not found"

// toleratedSkew is what Redox allows a clock to be off (REDOX.md).
const toleratedSkew = 10 * time.Second

// Causes and actions that several answers share.
const (
	bodyChanged       = "the token request did not reach Redox as it was sent"
	bodyChangedAction = "check that token_url is Redox's own token endpoint, and that no proxy or gateway between Vault and Redox rewrites requests"

	clockAction = "compare the clock of the Vault server with an NTP server; then check assertion_ttl and clock_skew"

	rightTokenURL = "check base_url and token_url: Redox's token endpoint is https://api.redoxengine.com/v2/auth/token, in Canada https://api.ca.redoxengine.com/v2/auth/token"
)

// documentedErrors are the descriptions that Redox documents (REDOX.md,
// Errors). The first that the description begins with counts, so a longer one
// stands before its own beginning.
var documentedErrors = []struct {
	prefix string
	diagnosis
}{
	{"x-www-form-urlencoded content-type required", diagnosis{bodyChanged + ": its form content type is gone", bodyChangedAction}},
	{"Missing grant_type parameter", diagnosis{bodyChanged + ": grant_type is gone", bodyChangedAction}},
	{"The grant_type parameter should equal", diagnosis{bodyChanged + ": grant_type is another", bodyChangedAction}},
	{"Missing client assertion type", diagnosis{bodyChanged + ": client_assertion_type is gone", bodyChangedAction}},
	{"Invalid client assertion type", diagnosis{bodyChanged + ": client_assertion_type is another", bodyChangedAction}},
	{"Missing client assertion", diagnosis{bodyChanged + ": client_assertion is gone", bodyChangedAction}},
	{"JWT header kid property is required", diagnosis{
		"the assertion names no key: its header has no kid",
		"check that the key which config or the role names in key has a kid, and rotate or import it anew with one"}},
	{publicKeyNotFound, diagnosis{
		"Redox found no public key for this client_id and kid: the client ID is wrong, the kid is not in the API key's JWK set, Redox cannot read the JWKS URL, or the change in the dashboard was not saved",
		"in the Redox dashboard open the OAuth API key, compare its client ID with client_id, see that its JWK set has the key's kid (or that its JWKS URL, and jku if set, can be read from the internet), and save"}},
}

// unexpectedValues are the diagnoses of `Unexpected X claim value` by X, the
// claim or header that is missing or malformed (REDOX.md).
var unexpectedValues = map[string]diagnosis{
	"iss": {"Redox rejects the claim iss, the client ID", "compare client_id with the client ID of the OAuth API key in the Redox dashboard"},
	"sub": {"Redox rejects the claim sub, the client ID", "compare client_id with the client ID of the OAuth API key in the Redox dashboard"},
	"aud": {"Redox rejects the audience", "set audience to the token URL as Redox documents it, or leave it out so that it is token_url"},
	"iat": {"Redox rejects the claim iat, the time of issue", clockAction},
	"exp": {"Redox rejects the claim exp, the expiry, which may be at most 5 minutes ahead", clockAction},
	"jti": {"Redox has already seen the jti of this assertion", "something between Vault and Redox repeats requests: look for a proxy or gateway that does"},
	"kid": {"Redox rejects the kid", "compare the key's kid with the JWK set of the OAuth API key in the Redox dashboard"},
	"alg": {"Redox rejects the algorithm", "use a key with algorithm RS384 or ES384, and see that its public JWK in the Redox dashboard has the same alg"},
	"jku": {"Redox rejects the JWKS URL in the header jku", "set jku to exactly the JWKS URL saved with the OAuth API key in the Redox dashboard, or leave it out"},
}

// codeDiagnoses are those of RFC 6749 section 5.2 whose code says more than
// an undocumented description does.
var codeDiagnoses = map[string]diagnosis{
	"invalid_client":         {"Redox does not accept this client's assertion", "compare client_id, the key's kid and audience with the OAuth API key in the Redox dashboard, and see that the key is in its JWK set"},
	"unauthorized_client":    {"this OAuth API key may not use client credentials", "check in the Redox dashboard that the OAuth API key of this client_id is active and belongs to the right environment"},
	"access_denied":          {"Redox denies this OAuth API key a token", "check in the Redox dashboard that the OAuth API key of this client_id is active and belongs to the right environment"},
	"invalid_scope":          {"Redox does not grant the scope asked for", "compare scope with what the OAuth API key in the Redox dashboard allows, or leave it out"},
	"invalid_grant":          {"Redox rejects the assertion", "compare client_id, the key's kid and audience with the OAuth API key in the Redox dashboard; " + clockAction},
	"unsupported_grant_type": {"the endpoint does not know the client credentials grant", rightTokenURL},
}

// statusDiagnoses are those of statuses that say enough by themselves.
var statusDiagnoses = map[int]diagnosis{
	http.StatusForbidden:         {"access is forbidden: by Redox, or by a gateway or proxy on the way", "check that the OAuth API key in the Redox dashboard is active, and that the network lets Vault reach base_url"},
	http.StatusNotFound:          {"there is no token endpoint at this address", rightTokenURL},
	http.StatusMethodNotAllowed:  {"there is no token endpoint at this address: it takes no POST", rightTokenURL},
	http.StatusProxyAuthRequired: proxyCredentials,
	http.StatusRequestTimeout:    {"the request took too long to arrive", "try again; if it stays, check the network and any proxy between Vault and Redox"},
	http.StatusTooManyRequests:   {"Redox limits the rate of token requests", "wait; Redox counts all requests of one source address, so if it stays, see what else leaves through the same one, and ask Redox for its limit"},
}

// rejection makes the Error for any answer but a 200.
func rejection(endpoint *url.URL, got *reply) *Error {
	status := got.status()
	e := &Error{
		StatusCode:  status,
		RetryAfter:  got.retryAfter(),
		ClockOffset: got.offset, ClockOffsetKnown: got.offsetKnown,
		retryable: retryableStatus(status),
	}
	said := parseWords(got.body)
	e.Code, e.Description, e.foreign = said.code, said.description, said.foreign
	var d diagnosis
	switch {
	case status < 300:
		e.Kind = InvalidResponse
		d = diagnosis{fmt.Sprintf("%s answered with a status that no token endpoint gives", endpoint.Host), rightTokenURL}
	case status < 400:
		e.Kind = Rejected
		d = diagnosis{fmt.Sprintf("%s answered with a redirect, which is not followed: an assertion goes only where it is configured to go", endpoint.Host), rightTokenURL}
	case status >= 500:
		e.Kind = Unavailable
		d = diagnosis{fmt.Sprintf("Redox, or a gateway in front of it (%s), has a failure of its own", endpoint.Host), "try again later; if it stays, ask Redox, and look at any proxy between Vault and Redox"}
	default:
		e.Kind = Rejected
		if status == http.StatusTooManyRequests || status == http.StatusRequestTimeout {
			e.Kind = Unavailable
		}
		d = e.diagnoseClientError(looksLikeHTML(got.body))
		if encoding := got.unknownEncoding(); encoding != "" {
			d = diagnosis{fmt.Sprintf("%s rejected the request, with an answer in Content-Encoding %s, which was not asked for", endpoint.Host, encoding),
				"look at any gateway or proxy between Vault and Redox"}
		}
		if e.foreign && d == notUnderstood {
			d.cause = fmt.Sprintf("%s rejected the request, and not as a token endpoint does: its answer is of type %s",
				endpoint.Host, mediaType(got.response.Header.Get("Content-Type")))
			d.action = rightTokenURL + "; then look at any gateway or proxy between Vault and Redox; if it is the token endpoint, " + d.action
		}
	}
	e.Cause, e.Action = d.cause, d.action
	return e.named(endpoint)
}

// notUnderstood is for a rejection of which nothing is known.
var notUnderstood = diagnosis{"Redox rejected the token request", "check client_id, key, audience and scope against the OAuth API key in the Redox dashboard"}

// notSent makes the Error for a request that the host's gate has not let through.
func notSent(endpoint *url.URL, r *gate.Refusal) *Error {
	e := &Error{Kind: Timeout, NotSent: true, RetryAfter: r.Wait, wrapped: r}
	wait := max(r.Wait.Round(time.Second), time.Second)
	switch {
	case r.Closed:
		e.Cause = fmt.Sprintf("the server limits requests: %s has asked for a pause, and nothing is sent to it for another %s", endpoint.Host, wait)
		e.Action = "try again then; the server counts all requests from one source address, so see what else uses it"
	case r.Wait > 0:
		e.Cause = fmt.Sprintf("the server limits requests, and those to %s are kept under request_limit: this one would have waited %s behind %d others",
			endpoint.Host, wait, r.Ahead)
		e.Action = "try again later: who has waited longest goes first; if it stays, fewer roles are to be read, or, where the server allows more, request_limit can be higher"
	default:
		e.Cause = fmt.Sprintf("%s answers too slowly: as many requests as max_concurrent_requests allows wait for it, and this one could not be sent", endpoint.Host)
		e.Action = "try again; if it stays, look at the server and the network on the way to it"
	}
	return e
}

// diagnoseClientError finds the diagnosis for a 4xx: Redox's own words first,
// then what the status or the code says, then what is left.
func (e *Error) diagnoseClientError(html bool) diagnosis {
	for _, documented := range documentedErrors {
		if strings.HasPrefix(e.Description, documented.prefix) {
			return documented.diagnosis
		}
	}
	if name, ok := unexpectedValueName(e.Description); ok {
		if d, ok := unexpectedValues[name]; ok {
			return d
		}
		return diagnosis{"a claim or header value of the assertion is missing or malformed", "check client_id, audience, jku and the key's kid and algorithm against the OAuth API key in the Redox dashboard"}
	}
	if d, ok := statusDiagnoses[e.StatusCode]; ok {
		return d
	}
	if html {
		return diagnosis{"a web page came instead of Redox's answer: from a gateway or proxy on the way, or because the address is not a token endpoint", rightTokenURL + "; then look at any proxy between Vault and Redox"}
	}
	// Without a description, these two codes say no more than that.
	if e.Description == "" && (e.Code == "" || e.Code == "invalid_request" || e.Code == "invalid_client") {
		return e.diagnoseEmpty()
	}
	if d, ok := codeDiagnoses[e.Code]; ok {
		return d
	}
	return notUnderstood
}

// diagnoseEmpty is for an error without a description. Redox gives it for a
// wrong aud, alg or jti, and for an iat outside of the past 5 minutes.
func (e *Error) diagnoseEmpty() diagnosis {
	const values = "check audience (leave it out so that it is token_url), jku if it is set (exactly the JWKS URL in the Redox dashboard), " +
		"and that the public JWK in the Redox dashboard under the key's kid is the key's public_jwk, with algorithm RS384 or ES384"
	const rest = "; if it stays, " + values
	switch {
	case e.ClockOffsetKnown && e.ClockOffset > toleratedSkew:
		return diagnosis{
			fmt.Sprintf("Redox gave no reason, but the clock of the Vault server is %s behind Redox's", e.ClockOffset),
			"set the clock of the Vault server right (NTP); a longer assertion_ttl helps until then" + rest}
	case e.ClockOffsetKnown && e.ClockOffset < -toleratedSkew:
		return diagnosis{
			fmt.Sprintf("Redox gave no reason, but the clock of the Vault server is %s ahead of Redox's", -e.ClockOffset),
			"set the clock of the Vault server right (NTP); a larger clock_skew helps until then" + rest}
	case e.ClockOffsetKnown:
		return diagnosis{
			"Redox gave no reason, which stands for a wrong value in the assertion: its audience, algorithm, jti, jku or signature (the clock of the Vault server agrees with Redox's)",
			values + "; then check assertion_ttl and clock_skew"}
	}
	return diagnosis{
		"Redox gave no reason, which stands for a wrong value in the assertion (its audience, algorithm, jti, jku or signature) or a wrong clock",
		values + "; " + clockAction}
}

// unexpectedValueName gives X of `Unexpected X claim value`.
func unexpectedValueName(description string) (string, bool) {
	rest, ok := strings.CutPrefix(description, "Unexpected ")
	if !ok {
		return "", false
	}
	name, _, ok := strings.Cut(rest, " claim value")
	return strings.Trim(name, "'\"`"), ok
}

// invalidResponse makes the Error for a 200 that holds no token; problem is
// what it holds instead.
func invalidResponse(endpoint *url.URL, got *reply, problem error) *Error {
	e := &Error{
		Kind: InvalidResponse, StatusCode: got.status(),
		Cause:       fmt.Sprintf("%s answered the token request with %s", endpoint.Host, problem),
		Action:      rightTokenURL + "; then look at any proxy between Vault and Redox",
		ClockOffset: got.offset, ClockOffsetKnown: got.offsetKnown,
	}
	said := parseWords(got.body)
	if !said.foreign { // a success says nothing of an error in other words
		e.Code, e.Description = said.code, said.description
	}
	return e.named(endpoint)
}

// invalidEndpoint is the Error for a token URL that can't be used.
func invalidEndpoint() *Error {
	return &Error{
		Kind:   Rejected,
		Cause:  "the token URL is not an http or https URL with a host and without user and password",
		Action: rightTokenURL,
	}
}
