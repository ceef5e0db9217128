// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/gate"
	"vault-plugin-secrets-redox/internal/redox"
)

// config is the connection to Redox and what roles inherit. What can be derived (the token URL) is not stored unless
// it was set.
type config struct {
	header

	ClientID       string        `json:"client_id"`
	Key            string        `json:"key"`
	Scope          string        `json:"scope"`
	BaseURL        string        `json:"base_url"`
	TokenURL       string        `json:"token_url"`
	Audience       string        `json:"audience"`
	PlatformURL    string        `json:"platform_url"`
	JKU            string        `json:"jku"`
	CAPEM          string        `json:"ca_pem"`
	AssertionTTL   time.Duration `json:"assertion_ttl"`
	ClockSkew      time.Duration `json:"clock_skew"`
	RequestTimeout time.Duration `json:"request_timeout"`
	MaxRetries     int           `json:"max_retries"`
	MinTTL         time.Duration `json:"min_ttl"`
	RequestLimit   int           `json:"request_limit"`
	MaxConcurrent  int           `json:"max_concurrent_requests"`
}

// The bounds of min_ttl, here and in roles.
const (
	leastMinTTL = time.Second
	mostMinTTL  = time.Hour
)

func defaultConfig() *config {
	return &config{
		BaseURL:        "https://api.redoxengine.com",
		AssertionTTL:   120 * time.Second,
		ClockSkew:      30 * time.Second,
		RequestTimeout: 10 * time.Second,
		MaxRetries:     2,
		MinTTL:         30 * time.Second,
		RequestLimit:   5000,
		MaxConcurrent:  64,
	}
}

var configRows = []row[config]{
	{"client_id", framework.TypeString, "Client ID",
		"Client ID of the Redox OAuth API key, as its page in the Redox dashboard shows it. Roles may name their own.",
		func(c *config) any { return &c.ClientID }},
	{"key", framework.TypeString, "Signing key",
		"Name of the signing key (see keys/) that signs for the client ID. Roles may name their own.",
		func(c *config) any { return &c.Key }},
	{"scope", framework.TypeString, "Scope",
		"Scope to ask for with each token, space separated. Most Redox API keys need none. Roles may name their own.",
		func(c *config) any { return &c.Scope }},
	{"base_url", framework.TypeString, "Base URL",
		"Where Redox is; the other URLs are derived from it. For Canada: https://api.ca.redoxengine.com.",
		func(c *config) any { return &c.BaseURL }},
	{"token_url", framework.TypeString, "Token URL",
		"Token endpoint, if it is elsewhere. Default: base_url followed by /v2/auth/token.",
		func(c *config) any { return &c.TokenURL }},
	{"audience", framework.TypeString, "Audience",
		"The assertion's aud (audience) claim, if Redox wants another. Default: the token URL.",
		func(c *config) any { return &c.Audience }},
	{"platform_url", framework.TypeString, "Platform API URL",
		"Where Redox's Platform API is, if it is elsewhere. Default: base_url followed by /platform.",
		func(c *config) any { return &c.PlatformURL }},
	{"jku", framework.TypeString, "JWKS URL",
		"JWKS URL to name in the assertion's jku header: exactly the URL saved at the API key in the Redox dashboard. " +
			"Unset: no such header, and Redox uses what the dashboard has. Roles may name their own.",
		func(c *config) any { return &c.JKU }},
	{"ca_pem", framework.TypeString, "CA certificates",
		"PEM certificates of the CAs to trust when connecting to Redox, in place of the system's. Unset: the system's.",
		func(c *config) any { return &c.CAPEM }},
	{"assertion_ttl", framework.TypeDurationSecond, "Assertion TTL",
		"How long an assertion, the signed request for a token, is valid. At least 10s, and together with clock_skew " +
			"at most 300s, which is Redox's limit.",
		func(c *config) any { return &c.AssertionTTL }},
	{"clock_skew", framework.TypeDurationSecond, "Clock skew",
		"How far the assertion's iat (issued at) is set back, so that Redox takes it though this node's clock is ahead.",
		func(c *config) any { return &c.ClockSkew }},
	{"request_timeout", framework.TypeDurationSecond, "Request timeout",
		"How long one attempt to get a token may take, from 1s to 20s. Retries included, a caller waits at most 20s.",
		func(c *config) any { return &c.RequestTimeout }},
	{"max_retries", framework.TypeInt, "Retries",
		"How many times a request is repeated when Redox can't be reached or is overloaded. At most 10.",
		func(c *config) any { return &c.MaxRetries }},
	{"min_ttl", framework.TypeDurationSecond, "Least TTL",
		"A token with less life left than this is replaced before it is given out. From 1s to 1h, but no more than " +
			"a quarter of the token's lifetime counts. Roles may name their own.",
		func(c *config) any { return &c.MinTTL }},
	{"request_limit", framework.TypeInt, "Request limit",
		"How many requests this mount may send to one host in any five minutes, from this node, whichever roles they are for. " +
			"Redox counts the requests of a source address and allows some 7,500. A quarter may be sent at once. 0: no limit.",
		func(c *config) any { return &c.RequestLimit }},
	{"max_concurrent_requests", framework.TypeInt, "Concurrent requests",
		"How many requests may wait for the answer of one host at the same time, from 1 to 1000.",
		func(c *config) any { return &c.MaxConcurrent }},
}

// tokenURL is the token endpoint: as set, or derived.
func (c *config) tokenURL() string {
	if c.TokenURL != "" {
		return c.TokenURL
	}
	return strings.TrimRight(c.BaseURL, "/") + "/v2/auth/token"
}

// normalizeURLs writes hosts as servers compare them: they become part of the audience. It is for what is written: another
// audience of what is stored would be another one to the server, too.
func (c *config) normalizeURLs() {
	for _, field := range []*string{&c.BaseURL, &c.TokenURL, &c.PlatformURL} {
		*field = normalizeHost(*field)
	}
}

// checkBaseURL refuses a token URL where the base URL is wanted.
func checkBaseURL(value string) error {
	path := strings.TrimRight(value, "/")
	base, isDefault := strings.CutSuffix(path, "/v2/auth/token")
	switch {
	case isDefault:
		return fieldError("base_url", "give what comes before that: base_url="+base, "it is a token URL, and the engine appends /v2/auth/token itself")
	case strings.HasSuffix(path, "/token"):
		return fieldError("base_url", "give it as token_url, and leave base_url out", "it looks like a token URL, and the engine would append /v2/auth/token")
	}
	return nil
}

// limits returns what may be sent to one host.
func (c *config) limits() gate.Limits {
	return gate.Limits{AtOnce: c.MaxConcurrent, PerWindow: c.RequestLimit}
}

func (c *config) audience() string {
	if c.Audience != "" {
		return c.Audience
	}
	return c.tokenURL()
}

func (c *config) platformURL() string {
	if c.PlatformURL != "" {
		return c.PlatformURL
	}
	return strings.TrimRight(c.BaseURL, "/") + "/platform"
}

// validate checks all but whether the key exists.
func (c *config) validate() error {
	if err := firstError(
		checkClientID(c.ClientID),
		checkReference("key", c.Key),
		checkScope("scope", c.Scope),
		checkURL("base_url", c.BaseURL, noQuery),
		checkURL("token_url", c.TokenURL, queryAllowed),
		checkText("audience", c.Audience),
		checkURL("platform_url", c.PlatformURL, noQuery),
		checkBaseURL(c.BaseURL),
		checkURL("jku", c.JKU, queryAllowed),
		checkRange("assertion_ttl", c.AssertionTTL, 10*time.Second, 300*time.Second),
		checkRange("clock_skew", c.ClockSkew, 0, 290*time.Second),
		checkRange("request_timeout", c.RequestTimeout, time.Second, 20*time.Second),
		checkRange("min_ttl", c.MinTTL, leastMinTTL, mostMinTTL),
	); err != nil {
		return err
	}
	if c.CAPEM != "" {
		client, err := redox.NewClient(redox.Options{CAPEM: c.CAPEM})
		if err != nil {
			problem, wayOut, _ := strings.Cut(err.Error(), "; ")
			return &userError{"ca_pem", problem, wayOut}
		}
		client.Close()
	}
	if c.AssertionTTL+c.ClockSkew > 300*time.Second {
		return fieldError("assertion_ttl", "lower one of them", "assertion_ttl and clock_skew together exceed 300s, "+
			"and Redox rejects an assertion whose iat and exp lie further apart")
	}
	if c.MaxRetries < 0 || c.MaxRetries > 10 {
		return fieldError("max_retries", "give a number from 0 to 10", "the value is out of range")
	}
	if c.RequestLimit != 0 && (c.RequestLimit < 60 || c.RequestLimit > 1_000_000) {
		return fieldError("request_limit", "give 0, or a number from 60 to 1000000", "the value is out of range")
	}
	if c.MaxConcurrent < 1 || c.MaxConcurrent > 1000 {
		return fieldError("max_concurrent_requests", "give a number from 1 to 1000", "the value is out of range")
	}
	return nil
}

func (b *backend) pathConfig() *framework.Path {
	const writing = "Configure the connection to Redox, or change the fields that are named."
	shown := responseFields(rowSchemas(configRows, &config{}))
	fields := rowSchemas(configRows, defaultConfig())
	fields[forceField] = deletionForce()
	return &framework.Path{
		Pattern:        "config",
		Fields:         fields,
		ExistenceCheck: b.configExists,
		DisplayAttrs:   display("configuration"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.CreateOperation: changing(b.configWrite, writing, noContent),
			logical.UpdateOperation: changing(b.configWrite, writing, noContent),
			logical.ReadOperation:   reading(b.configRead, "Read the configuration.", ok("The configuration.", shown)),
			logical.DeleteOperation: changing(b.configDelete, "Delete the configuration.", noContent),
		},
		HelpSynopsis: "The connection to Redox, and the defaults that roles inherit.",
		HelpDescription: `
Tells the engine where Redox is and, unless each role has its own, which OAuth
API key of yours it acts for: client_id is the API key's client ID in the Redox
dashboard, and key names the signing key (see keys/) whose public half is
registered there. For most this is all there is to write:

    vault write redox/config client_id=CLIENT_ID key=main

An update changes only the fields it names; an empty value brings a field's
default back. A read shows the URLs in effect, also where they are derived from
base_url. The configuration can be deleted when no role is left. One whose stored
entry can't be read is deleted with force=true, whatever roles there are: until
it is written again, they have its defaults.
`,
	}
}

func (b *backend) configExists(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (bool, error) {
	_, written, err := b.store.config(ctx)
	return written, err
}

func (b *backend) configRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	c, written, err := b.store.config(ctx)
	if err != nil || !written {
		return nil, err
	}
	data := showRows(configRows, c)
	data["token_url"], data["audience"], data["platform_url"] = c.tokenURL(), c.audience(), c.platformURL()
	return &logical.Response{Data: data}, nil
}

func (b *backend) configWrite(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	err := b.store.write(ctx, func(w *writing) error {
		c, _, err := w.config(ctx)
		if err != nil {
			return err
		}
		before := *c
		if err := applyRows(configRows, data, c, defaultConfig()); err != nil {
			return err
		}
		c.normalizeURLs()
		if err := c.validate(); err != nil {
			return err
		}
		if err := w.requireKey(ctx, c.Key); err != nil {
			return err
		}
		defer b.minter.tokens.DoubtAll() // also after a failed Put: it may have been carried out
		if err := w.configChanges(ctx, &before, c, b.now().Wall); err != nil {
			return err
		}
		return w.put(ctx, configStorageKey, c)
	})
	if err != nil {
		return nil, err
	}
	b.telemetry.changed(eventConfigWrite, req.Path, req.Operation)
	return nil, nil
}

func (b *backend) configDelete(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	deleted := false
	err := b.store.write(ctx, func(w *writing) error {
		c, written, err := w.config(ctx)
		switch {
		case err != nil:
			if err = forced(err, data); err == nil {
				c, err = defaultConfig(), w.clientLeaves(ctx, b.now().Wall) // whichever there were
			}
		case !written:
			return nil
		default:
			err = requireNoRoles(ctx, w.store)
		}
		if err != nil {
			return err
		}
		deleted = true
		defer b.minter.tokens.DoubtAll()
		if err := w.configChanges(ctx, c, defaultConfig(), b.now().Wall); err != nil {
			return err
		}
		return w.delete(ctx, configStorageKey)
	})
	if err != nil || !deleted {
		return nil, err
	}
	b.telemetry.changed(eventConfigDelete, req.Path, req.Operation)
	return nil, nil
}

// requireNoRoles refuses to delete the configuration from which roles inherit, also those that can't be used.
func requireNoRoles(ctx context.Context, s *store) error {
	roles, err := s.roleNames(ctx)
	if err != nil {
		return err
	}
	if len(roles) > 0 {
		return fieldError("", "delete those roles first, or write the fields you want to change",
			"the configuration can't be deleted: roles inherit from it (%s)", someOf(roles))
	}
	return nil
}
