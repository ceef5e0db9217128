// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command authorization-server is an OAuth 2.0 token endpoint that nobody wrote with this plugin in mind: the one of the
// library Fosite, on a loopback address, with TLS. Tests use it to see the plugin at a server that is not Redox. It
// prints where it is and its CA as one line of JSON, and ends when its standard input does.
//
//	POST /clients   registers a client, or replaces it; whoever reaches this address may do that
//	POST /token     the token endpoint: client credentials with private_key_jwt
//	GET  /scope     what the bearer token in the request allows
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
)

// tokenLifetime is longer than the plugin believes.
const tokenLifetime = 2 * time.Hour

type server struct {
	mu       sync.Mutex // one request at a time: the store's clients have no lock that can be had
	store    *storage.MemoryStore
	provider fosite.OAuth2Provider
}

func main() {
	log.SetFlags(0)
	listener := httptest.NewUnstartedServer(nil)
	tokenURL := "https://" + listener.Listener.Addr().String() + "/token"
	s, err := newServer(tokenURL)
	if err != nil {
		log.Fatal(err)
	}
	listener.Config.Handler = s.routes()
	listener.StartTLS()
	defer listener.Close()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: listener.Certificate().Raw})
	place := map[string]string{"url": listener.URL, "token_url": tokenURL, "ca_pem": string(certificate)}
	if err := json.NewEncoder(os.Stdout).Encode(place); err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func newServer(tokenURL string) (*server, error) {
	// Its access tokens are signed with this.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	fetcher := retryablehttp.NewClient()
	fetcher.Logger = nil
	fetcher.RetryMax = 0
	config := &fosite.Config{
		AccessTokenLifespan: tokenLifetime,
		AccessTokenIssuer:   tokenURL,
		TokenURL:            tokenURL,
		ScopeStrategy:       fosite.ExactScopeStrategy,
		JWKSFetcherStrategy: fosite.NewDefaultJWKSFetcherStrategy(fosite.JWKSFetcherWithHTTPClient(fetcher)),
		GlobalSecret:        []byte(rand.Text() + rand.Text()),
	}
	strategy := compose.NewOAuth2JWTStrategy(func(context.Context) (any, error) { return key, nil },
		compose.NewOAuth2HMACStrategy(config), config)
	store := storage.NewMemoryStore()
	return &server{store: store, provider: compose.Compose(config, store, strategy,
		compose.OAuth2ClientCredentialsGrantFactory, compose.OAuth2StatelessJWTIntrospectionFactory)}, nil
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /clients", s.register)
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("GET /scope", s.scope)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		mux.ServeHTTP(w, r)
	})
}

// register takes a client as Fosite stores it.
func (s *server) register(w http.ResponseWriter, r *http.Request) {
	client := &fosite.DefaultOpenIDConnectClient{DefaultClient: &fosite.DefaultClient{}}
	if err := json.NewDecoder(r.Body).Decode(client); err != nil || client.ID == "" {
		http.Error(w, "not a client with an id", http.StatusBadRequest)
		return
	}
	s.store.Clients[client.ID] = client
	w.WriteHeader(http.StatusNoContent)
}

func (s *server) token(w http.ResponseWriter, r *http.Request) {
	session := &oauth2.JWTSession{JWTClaims: &jwt.JWTClaims{}, JWTHeader: &jwt.Headers{}}
	request, err := s.provider.NewAccessRequest(r.Context(), r, session)
	if err != nil {
		s.provider.WriteAccessError(r.Context(), w, request, err)
		return
	}
	for _, scope := range request.GetRequestedScopes() {
		request.GrantScope(scope)
	}
	response, err := s.provider.NewAccessResponse(r.Context(), request)
	if err != nil {
		s.provider.WriteAccessError(r.Context(), w, request, err)
		return
	}
	s.provider.WriteAccessResponse(r.Context(), w, request, response)
}

func (s *server) scope(w http.ResponseWriter, r *http.Request) {
	token := fosite.AccessTokenFromRequest(r)
	_, request, err := s.provider.IntrospectToken(r.Context(), token, fosite.AccessToken, &oauth2.JWTSession{})
	if err != nil {
		http.Error(w, "the token is not valid", http.StatusUnauthorized)
		return
	}
	_, _ = io.WriteString(w, strings.Join(request.GetGrantedScopes(), " "))
}
