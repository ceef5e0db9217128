// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/gate"
)

// PlatformRequest is what every request to the Platform API needs (REDOX.md, Platform API).
type PlatformRequest struct {
	PlatformURL string
	// AccessToken is one of a user-level API key.
	AccessToken string
	// APIKeyID is the OAuth API key in question: its client ID.
	APIKeyID string
	// Timeout of the request; 0 leaves only the context's deadline.
	Timeout time.Duration
	// Gate is the host's, as of TokenRequest.
	Gate *gate.Gate
}

// APIKey is an OAuth API key as Redox keeps it: where its public keys are.
type APIKey struct {
	JWKSURL string            // empty when there is none
	JWKSet  []json.RawMessage // the members of its JWK set, each as it is there
}

// ReadAPIKey reads an OAuth API key. It tries once: who calls it comes back anyway. Errors are as of RequestToken.
// It takes nothing but what Redox documents: on what it reads, a JWK set is replaced.
func (c *Client) ReadAPIKey(ctx context.Context, r PlatformRequest) (*APIKey, error) {
	endpoint, got, err := c.platform(ctx, r, call{method: http.MethodGet})
	switch {
	case err != nil:
		return nil, err
	case got.incomplete != nil:
		return nil, got.incomplete
	}
	e := &Error{
		Kind: InvalidResponse, StatusCode: got.status(),
		Cause:  fmt.Sprintf("%s answered with something other than the OAuth API key that was asked for", endpoint.Host),
		Action: "check base_url and platform_url, and any proxy between Vault and Redox",
	}
	if got.tooLarge {
		e.Cause = fmt.Sprintf("%s answered with more than 64 KiB", endpoint.Host)
		e.Action = "take JWKs that nobody uses any more out of this OAuth API key in the Redox dashboard; else " + e.Action
		return nil, e
	}
	key, ok := parseAPIKey(got.body, r.APIKeyID)
	if !ok || got.status() != http.StatusOK {
		return nil, e
	}
	return key, nil
}

// ReplaceJWKSet replaces the JWK set of an OAuth API key as a whole; each JWK is sent byte for byte. Redox knows no
// precondition: what another has changed since the set was read is lost. So what Redox answers to a success is of no
// interest: only reading it again tells what is there.
func (c *Client) ReplaceJWKSet(ctx context.Context, r PlatformRequest, keys []json.RawMessage) error {
	body := []byte(`{"jwkSet":{"keys":[`)
	for i, key := range keys { // json.Marshal would escape in them
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, key...)
	}
	body = append(body, `]}}`...)
	if !json.Valid(body) {
		return errors.New("a JWK set can't be encoded")
	}
	_, _, err := c.platform(ctx, r, call{method: http.MethodPatch, contentType: "application/json", body: string(body)})
	return err
}

// platform sends a request about an OAuth API key. Any answer but a success is an error.
func (c *Client) platform(ctx context.Context, r PlatformRequest, what call) (*url.URL, *reply, error) {
	switch r.APIKeyID {
	case "", ".", "..": // would lead to another path
		return nil, nil, &Error{Kind: Rejected, Cause: "the client ID is none that an OAuth API key can have",
			Action: "compare client_id with the Redox dashboard"}
	}
	endpoint, err := parseEndpoint(strings.TrimRight(r.PlatformURL, "/") + "/v1/apikeys/" + url.PathEscape(r.APIKeyID))
	if err != nil {
		return nil, nil, &Error{Kind: Rejected, Action: "check base_url and platform_url",
			Cause: "the Platform API's URL is not an http or https URL with a host and without user and password"}
	}
	what.accessToken, what.timeout, what.gate = r.AccessToken, r.Timeout, r.Gate
	pass, err := enter(ctx, r.Gate, endpoint)
	if err != nil {
		return nil, nil, err
	}
	defer pass.Leave()
	got, err := c.send(ctx, endpoint, what)
	if err != nil {
		return nil, nil, err
	}
	if got.status() < 200 || got.status() > 299 {
		return nil, nil, platformRejection(endpoint, got)
	}
	return endpoint, got, nil
}

// parseAPIKey reads the answer about one OAuth API key.
func parseAPIKey(body []byte, id string) (*APIKey, bool) {
	members, err := parseObject(body)
	for _, name := range []string{"payload", "apikey"} {
		if err == nil {
			members, err = parseObject(members[name])
		}
	}
	if err != nil {
		return nil, false
	}
	key := &APIKey{}
	ok := true
	if _, present := members["jwksURL"]; present {
		key.JWKSURL, ok = stringMember(members, "jwksURL")
	}
	// A proxy that mixes answers up must not make one API key's JWK set another's.
	if got, _ := stringMember(members, "id"); !ok || !strings.EqualFold(got, id) {
		return nil, false
	}
	if members["jwkSet"] == nil {
		return key, true
	}
	set, err := parseObject(members["jwkSet"])
	if err != nil || len(set) > 0 && json.Unmarshal(set["keys"], &key.JWKSet) != nil {
		return nil, false
	}
	return key, true
}

// ReadJWKSet reads a JWKS URL as Redox does: without authentication. It gives the set's members.
func (c *Client) ReadJWKSet(ctx context.Context, jwksURL string, timeout time.Duration) ([]json.RawMessage, error) {
	endpoint, err := parseEndpoint(jwksURL)
	if err != nil {
		return nil, &Error{Kind: Rejected, Action: "check public_jwks_url",
			Cause: "the JWKS URL is not an http or https URL with a host and without user and password"}
	}
	got, err := c.send(ctx, endpoint, call{method: http.MethodGet, timeout: timeout})
	if err == nil && got.status() == http.StatusOK {
		err = got.incomplete
	}
	if failure := (*Error)(nil); errors.As(err, &failure) {
		failure.Action = "check public_jwks_url; " + failure.Action // what comes is about Redox's own URLs, too
	}
	if err != nil {
		return nil, err
	}
	const action = "check public_jwks_url, and that whatever stands between it and Vault lets the JWKS path through " +
		"without authentication"
	e := &Error{Kind: Rejected, StatusCode: got.status(), Action: action}
	if got.status() != http.StatusOK {
		e.Cause = fmt.Sprintf("the JWKS can't be read from %s", endpoint.Host)
		return nil, e
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if got.tooLarge || json.Unmarshal(got.body, &set) != nil || set.Keys == nil {
		e.Cause = fmt.Sprintf("%s serves something other than a JWK set of at most 64 KiB", endpoint.Host)
		return nil, e
	}
	return set.Keys, nil
}

// platformRejection makes the Error for any answer of the Platform API but a success. Redox documents none, so the status
// is taken for what it stands for everywhere, and nothing of the body is.
func platformRejection(endpoint *url.URL, got *reply) *Error {
	e := rejection(endpoint, got)
	e.Code, e.Description = "", ""
	status := got.status()
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		e.Cause = "Redox does not let this token manage the OAuth API key"
		e.Action = "check that platform_role stands for a user-level API key of the same Redox organization, and that " +
			"its user may manage API keys"
	case status == http.StatusNotFound:
		e.Cause = "Redox's Platform API knows no OAuth API key with this client ID"
		e.Action = "compare client_id with the Redox dashboard, and check base_url, platform_url, and that platform_role " +
			"is of the same organization"
	case status == http.StatusTooManyRequests:
		e.Cause = "Redox limits the rate of Platform API requests"
		e.Action = "wait; Redox counts all requests of one source address, so if it stays, see what else leaves through the same one"
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity, status == http.StatusConflict:
		e.Cause = "Redox's Platform API rejects the request"
		e.Action = "look at the JWK set of this OAuth API key in the Redox dashboard: is there a kid twice, or a JWK " +
			"that is malformed?"
	case status < 400:
		e.Cause = fmt.Sprintf("%s answered with a redirect, which is not followed: a token goes only where it is "+
			"configured to go", endpoint.Host)
		e.Action = "check base_url and platform_url"
	case e.Kind == Rejected:
		e.Cause = fmt.Sprintf("there is no Platform API at %s, or a gateway or proxy on the way keeps Vault from it",
			endpoint.Host)
		e.Action = "check base_url and platform_url, and any proxy between Vault and Redox"
	}
	return e.named(endpoint)
}
