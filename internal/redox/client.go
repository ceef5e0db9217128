// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package redox talks to Redox (healthcare interoperability) over HTTP: it
// exchanges a signed client assertion for an access token, and turns every
// failure into a diagnosis that names what to do next. It knows nothing of
// Vault, of keys or of how assertions are signed.
//
// Why no library: golang.org/x/oauth2/clientcredentials sends fixed
// EndpointParams, so it has no place for a new assertion per request, and its
// RetrieveError quotes the raw response body when it holds no error code.
// hashicorp/go-retryablehttp waits out any Retry-After by default, whether or
// not the caller's deadline allows it, and retries nearly every 5xx; with each
// of its hooks replaced, what would be left of it is the loop in RequestToken.
package redox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"vault-plugin-secrets-redox/internal/pemtext"
)

const (
	defaultUserAgent = "vault-plugin-secrets-redox"

	// A dial and a handshake end well before the default request_timeout of
	// 10 s, so that the error can say which of them got no answer.
	dialTimeout         = 5 * time.Second
	tlsHandshakeTimeout = 5 * time.Second

	// Tokens live five minutes and are asked for again after about four.
	idleConnTimeout = 5 * time.Minute

	maxHeaderBytes = 64 << 10
)

// Options of a Client. Zero values give the defaults.
type Options struct {
	// CAPEM holds one or more PEM certificates. When set, they are the only
	// trust; when empty, the system's certificates are.
	CAPEM string
	// UserAgent is sent with each request.
	UserAgent string
	// Now is the clock that Redox's is compared with, time.Now by default.
	Now func() time.Time
	// Sleep waits for d or until ctx ends, whose error it then returns. It is
	// called between two attempts.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Client is an HTTP client for Redox that reuses its connections. It is safe
// for concurrent use.
type Client struct {
	// The bare transport, not an http.Client: nothing follows a redirect, or
	// so much as parses its Location.
	transport *http.Transport
	ownTrust  bool // Options.CAPEM was set
	userAgent string
	now       func() time.Time
	sleep     func(ctx context.Context, d time.Duration) error
}

// NewClient makes a client. Its only errors are about Options.CAPEM; they
// never quote it.
func NewClient(o Options) (*Client, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAPEM != "" {
		pool, err := parseCertificates(o.CAPEM)
		if err != nil {
			return nil, err
		}
		tlsConfig.RootCAs = pool
	}
	c := &Client{
		transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        tlsConfig,
			TLSHandshakeTimeout:    tlsHandshakeTimeout,
			ForceAttemptHTTP2:      true, // a TLSClientConfig of one's own turns it off otherwise
			IdleConnTimeout:        idleConnTimeout,
			MaxIdleConnsPerHost:    16,
			MaxResponseHeaderBytes: maxHeaderBytes,
			DisableCompression:     true, // the answers are small
			// One dead HTTP/2 connection would otherwise serve, and fail,
			// every request until the system gives it up.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
			OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
				if resp.StatusCode != http.StatusOK {
					return &proxyRefusal{status: resp.StatusCode}
				}
				return nil
			},
		},
		ownTrust:  o.CAPEM != "",
		userAgent: o.UserAgent,
		now:       o.Now,
		sleep:     o.Sleep,
	}
	if c.userAgent == "" {
		c.userAgent = defaultUserAgent
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.sleep == nil {
		c.sleep = sleep
	}
	return c, nil
}

// Close closes the idle connections. Requests under way are not disturbed.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
}

// parseCertificates reads a bundle of PEM certificates, as text that people bring. Text outside of the blocks is allowed, as
// bundles carry comments there. Its error says which block is wrong, and why.
func parseCertificates(bundle string) (*x509.CertPool, error) {
	blocks, err := pemtext.Blocks(pemtext.Normalize(bundle))
	if err != nil {
		return nil, errors.New("a PEM block is damaged or cut off; give whole CERTIFICATE blocks")
	}
	if len(blocks) == 0 {
		return nil, errors.New("no PEM certificate found; give one or more blocks that begin with -----BEGIN CERTIFICATE-----")
	}
	pool := x509.NewCertPool()
	for i, block := range blocks {
		which := fmt.Sprintf("block %d of %d", i+1, len(blocks))
		if block.Label != "CERTIFICATE" {
			return nil, fmt.Errorf("%s is not a CERTIFICATE; give only the CA certificates, no keys or requests", which)
		}
		der, err := block.Bytes()
		if err != nil {
			return nil, fmt.Errorf("%s is not base64 alone; give the CA certificates as PEM", which)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			// What x509 says is of its own words: certificates are public, and it quotes nothing of them.
			return nil, fmt.Errorf("%s can't be used (%s); take that certificate out, or replace it by one that keeps to RFC 5280", which, err)
		}
		pool.AddCert(certificate)
	}
	return pool, nil
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
