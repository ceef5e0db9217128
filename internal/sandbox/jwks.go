// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	jwksTimeout = 5 * time.Second
	jwksMax     = 1 << 20
)

// newJWKSClient gives the client that reads JWKS URLs: no redirects, bounded time, TLS 1.2 or newer.
func newJWKSClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: jwksTimeout,
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: jwksTimeout,
			MaxIdleConns:        4,
			IdleConnTimeout:     10 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// publicKeys gives the API key's public keys that kid names. Nothing is cached: what the JWKS URL says now counts,
// and a change in the dashboard holds at once. No lock is held while the URL is read.
func (s *Sandbox) publicKeys(ctx context.Context, k APIKey, kid string) ([]jose.JSONWebKey, *rejection) {
	jwkSet := k.JWKSet
	if k.JWKSURL != "" {
		var err error
		jwkSet, err = s.fetchJWKSet(ctx, k.JWKSURL)
		s.counters.jwksFetch(err == nil)
		if err != nil {
			return nil, &rejection{ruleJWKSUnreadable, "the JWKS URL " + printable(k.JWKSURL) + " can't be read: " + err.Error()}
		}
	}
	if len(jwkSet) == 0 {
		return nil, &rejection{ruleKidUnknown, "the API key has no JWK set and no JWKS URL"}
	}
	raw, err := jwkSetKeys(jwkSet)
	if err != nil {
		return nil, &rejection{ruleJWKSUnreadable, "the API key's JWK set: " + err.Error()}
	}
	var keys []jose.JSONWebKey
	for _, one := range raw {
		if object, _, err := decodeObject(one); err != nil || stringMember(object, "kid") != kid {
			continue // a key that can't be read spoils none but itself
		}
		var key jose.JSONWebKey
		if key.UnmarshalJSON(one) != nil || !key.IsPublic() {
			return nil, &rejection{ruleKidUnknown, "the JWK that kid names is not a readable public key"}
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, &rejection{ruleKidUnknown, "the kid is not in the API key's JWK set"}
	}
	return keys, nil
}

// fetchJWKSet reads a JWKS URL, without authentication. Its errors hold nothing of the body.
func (s *Sandbox) fetchJWKSet(ctx context.Context, jwksURL string) (json.RawMessage, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, jwksURL, nil)
	if err != nil {
		return nil, errors.New("it is not a URL")
	}
	request.Header.Set("Accept", "application/json")
	response, err := s.jwks.Do(request)
	if err != nil {
		return nil, errors.New("no answer: " + printable(errors.Unwrap(err).Error()))
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %d", response.StatusCode)
	}
	if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind == "text/html" {
		return nil, errors.New("it answers with an HTML page")
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, jwksMax+1))
	if err != nil {
		return nil, errors.New("its body breaks off")
	}
	if len(body) > jwksMax {
		return nil, errors.New("its body is larger than 1 MiB")
	}
	return body, nil
}

// fits says why a JWK can't be used for an algorithm, by its own members use, alg and kty; "" when it can.
func fits(key jose.JSONWebKey, algorithm string) string {
	if key.Use != "" && key.Use != "sig" {
		return "the JWK's use is not sig"
	}
	if key.Algorithm != "" && key.Algorithm != algorithm {
		return "the JWK is for another alg"
	}
	switch key.Key.(type) {
	case *rsa.PublicKey:
		if algorithm == string(jose.RS384) {
			return ""
		}
	case *ecdsa.PublicKey:
		if algorithm == string(jose.ES384) {
			return ""
		}
	}
	return "the JWK's kty is not for this alg"
}
