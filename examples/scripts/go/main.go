// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command resource reads something from Redox, such as a patient, with Vault's Go client and an oauth2.TokenSource:
//
//	resource TOKEN_PATH URL
//
// TOKEN_PATH is where Vault has the token, such as redox/token/team-a. VAULT_ADDR and VAULT_TOKEN say where Vault is and who
// asks; a service logs in with one of Vault's auth methods instead.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	vault "github.com/hashicorp/vault/api"
	"golang.org/x/oauth2"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: resource TOKEN_PATH URL")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path, url string) error {
	client, err := vault.NewClient(nil) // settings from the environment
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/fhir+json")
	response, err := NewHTTPClient(&TokenSource{Vault: client, Path: path}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return errors.New("no resource: Redox answered 401 to a fresh token, too")
	default:
		return fmt.Errorf("no resource: Redox answered %d", response.StatusCode)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// TokenSource reads access tokens from Vault. It is an oauth2.TokenSource.
type TokenSource struct {
	Vault *vault.Client
	Path  string // such as redox/token/team-a
}

// Token returns the token that all readers of the role share. Its expiry is when to read again, which is before the token
// expires.
func (s *TokenSource) Token() (*oauth2.Token, error) { return token(s.Vault.Logical().Read(s.Path)) }

// Fresh has a new token minted, for when Redox has rejected the shared one. It needs the capability update.
func (s *TokenSource) Fresh() (*oauth2.Token, error) {
	return token(s.Vault.Logical().Write(s.Path, nil))
}

func token(secret *vault.Secret, err error) (*oauth2.Token, error) {
	if err == nil && secret == nil {
		err = errors.New("there is nothing at this path")
	}
	if err != nil {
		return nil, fmt.Errorf("no token from Vault: %w", err)
	}
	accessToken, _ := secret.Data["access_token"].(string)
	ttl, _ := secret.Data["ttl"].(json.Number) // lease_duration is 0: the token has no lease
	seconds, err := ttl.Int64()
	if accessToken == "" || err != nil {
		return nil, errors.New("no token from Vault: its answer has no access_token and ttl")
	}
	return &oauth2.Token{AccessToken: accessToken, TokenType: "Bearer", Expiry: time.Now().Add(time.Duration(seconds) * time.Second)}, nil
}

// NewHTTPClient returns a client that sends a token with each request. When Redox answers 401 it sends the request once more, with
// a fresh token. It follows no redirect, which would take the token to another server.
func NewHTTPClient(s *TokenSource) *http.Client {
	return &http.Client{
		Transport:     &retryOnce{source: s, shared: remembering(nil, s)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// remembering returns a source that reads from Vault again when the last token's time is over.
func remembering(token *oauth2.Token, s *TokenSource) oauth2.TokenSource {
	return oauth2.ReuseTokenSourceWithExpiry(token, s, 0)
}

type retryOnce struct {
	source *TokenSource

	mu     sync.Mutex
	shared oauth2.TokenSource
}

func (r *retryOnce) RoundTrip(request *http.Request) (*http.Response, error) {
	r.mu.Lock()
	source := r.shared
	r.mu.Unlock()
	shared, err := source.Token()
	if err != nil {
		return nil, err
	}
	response, err := send(request, shared)
	if err != nil || response.StatusCode != http.StatusUnauthorized || request.Body != nil && request.GetBody == nil {
		return response, err
	}
	_ = response.Body.Close()
	fresh, err := r.source.Fresh()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.shared = remembering(fresh, r.source)
	r.mu.Unlock()
	return send(request, fresh)
}

func send(request *http.Request, token *oauth2.Token) (*http.Response, error) {
	request = request.Clone(request.Context())
	if request.GetBody != nil {
		body, err := request.GetBody()
		if err != nil {
			return nil, err
		}
		request.Body = body
	}
	token.SetAuthHeader(request)
	return http.DefaultTransport.RoundTrip(request)
}
