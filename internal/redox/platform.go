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
}

// APIKey is an OAuth API key as Redox keeps it: where its public keys are.
type APIKey struct {
	JWKSURL string            // empty when there is none
	JWKSet  []json.RawMessage // the members of its JWK set, each as it is there
}

// ReadAPIKey reads an OAuth API key. It tries once: who calls it comes back anyway. Errors are as of RequestToken.
func (c *Client) ReadAPIKey(ctx context.Context, r PlatformRequest) (*APIKey, error) {
	return c.apiKey(ctx, r, call{method: http.MethodGet})
}

// ReplaceJWKSet replaces the JWK set of an OAuth API key as a whole, and gives the API key as it is then. Redox knows
// no precondition: what another has changed since the set was read is lost, so read it again afterwards.
func (c *Client) ReplaceJWKSet(ctx context.Context, r PlatformRequest, keys []json.RawMessage) (*APIKey, error) {
	body, err := json.Marshal(map[string]any{"jwkSet": map[string]any{"keys": keys}})
	if err != nil {
		return nil, errors.New("a JWK set can't be encoded")
	}
	return c.apiKey(ctx, r, call{method: http.MethodPatch, contentType: "application/json", body: string(body)})
}

func (c *Client) apiKey(ctx context.Context, r PlatformRequest, what call) (*APIKey, error) {
	endpoint, err := parseEndpoint(strings.TrimRight(r.PlatformURL, "/") + "/v1/apikeys/" + url.PathEscape(r.APIKeyID))
	if err != nil {
		return nil, err
	}
	what.accessToken, what.timeout = r.AccessToken, r.Timeout
	got, err := c.send(ctx, endpoint, what)
	switch {
	case err != nil:
		return nil, err
	case got.status() != http.StatusOK:
		return nil, platformRefusal(endpoint, got)
	case got.incomplete != nil:
		return nil, got.incomplete
	case got.tooLarge:
		return nil, invalidPlatformAnswer(endpoint, got, "an answer larger than 64 KiB")
	}
	var answer struct {
		Payload struct {
			APIKey *struct {
				JWKSURL string `json:"jwksURL"`
				JWKSet  *struct {
					Keys []json.RawMessage `json:"keys"`
				} `json:"jwkSet"`
			} `json:"apikey"`
		} `json:"payload"`
	}
	if json.Unmarshal(got.body, &answer) != nil || answer.Payload.APIKey == nil {
		return nil, invalidPlatformAnswer(endpoint, got, "something other than an API key")
	}
	key := &APIKey{JWKSURL: answer.Payload.APIKey.JWKSURL}
	if set := answer.Payload.APIKey.JWKSet; set != nil {
		key.JWKSet = set.Keys
	}
	return key, nil
}

// ReadJWKSet reads a JWKS URL as Redox does: without authentication. It gives the set's members.
func (c *Client) ReadJWKSet(ctx context.Context, jwksURL string, timeout time.Duration) ([]json.RawMessage, error) {
	endpoint, err := parseEndpoint(jwksURL)
	if err != nil {
		return nil, err
	}
	got, err := c.send(ctx, endpoint, call{method: http.MethodGet, timeout: timeout})
	if err != nil {
		return nil, err
	}
	const action = "check public_jwks_url, and that whatever stands between it and Vault lets the JWKS path through without authentication"
	e := &Error{Kind: Refused, StatusCode: got.status(), Action: action}
	switch {
	case got.status() != http.StatusOK:
		e.Cause = fmt.Sprintf("the JWKS can't be read from %s", endpoint.Host)
		return nil, e
	case got.incomplete != nil:
		return nil, got.incomplete
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

// platformRefusal makes the Error for any answer of the Platform API but a 200. Redox documents none: what a status
// stands for everywhere is taken.
func platformRefusal(endpoint *url.URL, got *reply) *Error {
	e := refusal(endpoint, got)
	switch got.status() {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.Cause = "Redox does not let this token manage the OAuth API key"
		e.Action = "check that platform_role stands for a user-level API key of the same Redox organization, and that its user may manage API keys"
	case http.StatusNotFound:
		e.Cause = "Redox's Platform API knows no OAuth API key with this client ID"
		e.Action = "compare client_id with the Redox dashboard, and check base_url, platform_url, and that platform_role is of the same organization"
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusConflict:
		e.Cause = "Redox's Platform API refuses the JWK set"
		e.Action = "look at the JWK set of this OAuth API key in the Redox dashboard: is there a kid twice, or a JWK that is malformed?"
	}
	return e
}

func invalidPlatformAnswer(endpoint *url.URL, got *reply, problem string) *Error {
	return &Error{
		Kind: InvalidResponse, StatusCode: got.status(),
		Cause:  fmt.Sprintf("%s answered with %s", endpoint.Host, problem),
		Action: "check base_url and platform_url, and any proxy between Vault and Redox",
	}
}
