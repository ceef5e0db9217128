// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// addAdminRoutes adds the endpoints that Redox doesn't have. They ask for no authentication.
func (s *Sandbox) addAdminRoutes(mux *http.ServeMux) {
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET /{$}":                     s.adminHelp,
		"GET /sandbox/faults":          s.adminFaults,
		"PUT /sandbox/faults":          s.adminSetFaults,
		"DELETE /sandbox/faults":       s.adminEndFaults,
		"GET /sandbox/counters":        s.adminCounters,
		"DELETE /sandbox/counters":     s.adminResetCounters,
		"GET /sandbox/apikeys":         s.adminListAPIKeys,
		"POST /sandbox/apikeys":        s.adminCreateAPIKey,
		"GET /sandbox/apikeys/{id}":    s.adminReadAPIKey,
		"PUT /sandbox/apikeys/{id}":    s.adminSetKeys,
		"DELETE /sandbox/apikeys/{id}": s.adminDeleteAPIKey,
		"GET /sandbox/ca.pem":          s.adminCA,
	} {
		mux.HandleFunc(pattern, handle)
	}
}

// help is what a person sees who opens the sandbox in a browser. %s is the base URL.
const help = `redox-sandbox: a local Redox, for trials and tests. Nothing here is real.

Redox's own endpoints
  POST   %[1]s/v2/auth/token
  GET    %[1]s/fhir/R4/{destination}/{environment}/Patient/{id}
  GET    %[1]s/platform/v1/apikeys/{id}                              also PATCH, DELETE
  GET    %[1]s/platform/v1/environments/{environmentId}/apikeys      also POST
         environment IDs: development-environment, staging-environment, production-environment

The sandbox's own endpoints (JSON, no authentication)
  POST   %[1]s/sandbox/apikeys          id, name, one of jwk, jwkSet, jwksURL; scope, environmentFlag, management
  PUT    %[1]s/sandbox/apikeys/{id}     one of jwk, jwkSet, jwksURL; also GET, DELETE
  GET    %[1]s/sandbox/apikeys
  PUT    %[1]s/sandbox/faults           path, count, latency, status, retry_after, body, content_type, redirect,
                                        reset, reset_mid_body, slow_body, huge_body, clock_offset, token_lifetime,
                                        expires_in_raw, token_type, empty_access_token; also GET, DELETE
  GET    %[1]s/sandbox/counters         also DELETE
  GET    %[1]s/sandbox/ca.pem           the throw-away CA, when TLS is on

Examples
  curl -X PUT %[1]s/sandbox/faults -d '{"status": 503, "retry_after": "2", "count": 3}'
  curl -X PUT %[1]s/sandbox/faults -d '{"clock_offset": "-10m"}'
  curl -X DELETE %[1]s/sandbox/faults
  curl %[1]s/sandbox/counters
`

func (s *Sandbox) adminHelp(w http.ResponseWriter, r *http.Request) {
	exchangeOf(r).say("help read")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintf(w, help, s.BaseURL)
}

// readAdmin reads a request's JSON body into v; on an error it has answered.
func readAdmin(w http.ResponseWriter, r *http.Request, v any) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		adminError(w, r, http.StatusRequestEntityTooLarge, errors.New("the body can't be read, or is larger than 1 MiB"))
		return false
	}
	if err := decodeStrict(body, v); err != nil {
		adminError(w, r, http.StatusBadRequest, fmt.Errorf("the body: %s", printable(err.Error())))
		return false
	}
	return true
}

// adminError answers with an error of the sandbox's own endpoints, and logs it.
func adminError(w http.ResponseWriter, r *http.Request, status int, err error) {
	x := exchangeOf(r)
	x.say("rejected %s %s: %s", x.method, printable(x.path), err)
	writeJSON(w, "application/json", status, map[string]string{"error": err.Error()})
}

func (s *Sandbox) adminFaults(w http.ResponseWriter, r *http.Request) {
	exchangeOf(r).say("faults read")
	writeJSON(w, "application/json", http.StatusOK, s.Faults())
}

func (s *Sandbox) adminSetFaults(w http.ResponseWriter, r *http.Request) {
	var f Faults
	if !readAdmin(w, r, &f) {
		return
	}
	if err := f.check(); err != nil {
		adminError(w, r, http.StatusBadRequest, err)
		return
	}
	s.SetFaults(f)
	exchangeOf(r).say("faults set")
	writeJSON(w, "application/json", http.StatusOK, s.Faults())
}

func (s *Sandbox) adminEndFaults(w http.ResponseWriter, r *http.Request) {
	s.SetFaults(Faults{})
	exchangeOf(r).say("faults ended")
	w.WriteHeader(http.StatusNoContent)
}

func (s *Sandbox) adminCounters(w http.ResponseWriter, r *http.Request) {
	exchangeOf(r).say("counters read")
	writeJSON(w, "application/json", http.StatusOK, s.Counters())
}

func (s *Sandbox) adminResetCounters(w http.ResponseWriter, r *http.Request) {
	s.ResetCounters()
	exchangeOf(r).say("counters set to zero")
	w.WriteHeader(http.StatusNoContent)
}

func (s *Sandbox) adminListAPIKeys(w http.ResponseWriter, r *http.Request) {
	keys := s.APIKeys()
	for i := range keys {
		keys[i] = adminView(keys[i])
	}
	exchangeOf(r).say("%d API keys listed", len(keys))
	writeJSON(w, "application/json", http.StatusOK, map[string]any{"apikeys": keys})
}

// adminView gives an API key that can be encoded, also when a test broke its JWK set on purpose.
func adminView(k APIKey) APIKey {
	if !json.Valid(k.JWKSet) {
		k.JWKSet = nil
	}
	return k
}

// APIKeyRequest is what makes an API key through POST /sandbox/apikeys.
type APIKeyRequest struct {
	ID              string          `json:"id"`
	Name            string          `json:"name"`
	JWKSURL         *string         `json:"jwksURL"`
	JWKSet          json.RawMessage `json:"jwkSet"`
	JWK             json.RawMessage `json:"jwk"` // one public JWK, as an object or as a string that holds one
	Scope           string          `json:"scope"`
	EnvironmentFlag string          `json:"environmentFlag"` // Development (default), Staging or Production
	Management      bool            `json:"management"`
}

// ParseAPIKeyRequest reads one API key's JSON.
func ParseAPIKeyRequest(data []byte) (APIKeyRequest, error) {
	var request APIKeyRequest
	err := decodeStrict(data, &request)
	return request, err
}

// CreateAPIKeyChecked makes an API key as POST /sandbox/apikeys does. It rejects what the Platform API rejects.
func (s *Sandbox) CreateAPIKeyChecked(request APIKeyRequest) (APIKey, error) {
	source := keySource{JWKSURL: request.JWKSURL, JWKSet: request.JWKSet, JWK: request.JWK}
	if err := source.resolve(); err != nil {
		return APIKey{}, err
	}
	switch request.EnvironmentFlag {
	case "", Development, Staging, Production:
	default:
		return APIKey{}, fmt.Errorf("environmentFlag: must be %s, %s or %s", Development, Staging, Production)
	}
	k := APIKey{
		ID:          request.ID,
		Name:        request.Name,
		Scope:       request.Scope,
		Environment: Environment{Flag: request.EnvironmentFlag},
		Management:  request.Management,
	}
	source.apply(&k)
	return s.CreateAPIKey(k), nil
}

func (s *Sandbox) adminCreateAPIKey(w http.ResponseWriter, r *http.Request) {
	var request APIKeyRequest
	if !readAdmin(w, r, &request) {
		return
	}
	if _, exists := s.APIKey(request.ID); exists {
		adminError(w, r, http.StatusConflict, errors.New("id: there is an API key with this ID; PUT changes its keys, DELETE takes it away"))
		return
	}
	k, err := s.CreateAPIKeyChecked(request)
	if err != nil {
		adminError(w, r, http.StatusBadRequest, err)
		return
	}
	exchangeOf(r).say("API key %s created with %s", printable(k.ID), describeKeys(k))
	writeJSON(w, "application/json", http.StatusCreated, k)
}

func (s *Sandbox) adminReadAPIKey(w http.ResponseWriter, r *http.Request) {
	k, ok := s.APIKey(r.PathValue("id"))
	if !ok {
		adminError(w, r, http.StatusNotFound, errors.New(noSuchAPIKey))
		return
	}
	exchangeOf(r).say("API key %s read", printable(k.ID))
	writeJSON(w, "application/json", http.StatusOK, adminView(k))
}

func (s *Sandbox) adminSetKeys(w http.ResponseWriter, r *http.Request) {
	var source keySource
	if !readAdmin(w, r, &source) {
		return
	}
	if err := source.resolveStated(); err != nil {
		adminError(w, r, http.StatusBadRequest, err)
		return
	}
	k, ok := s.apiKeys.change(r.PathValue("id"), source.apply)
	if !ok {
		adminError(w, r, http.StatusNotFound, errors.New(noSuchAPIKey))
		return
	}
	exchangeOf(r).say("API key %s has now %s", printable(k.ID), describeKeys(k))
	writeJSON(w, "application/json", http.StatusOK, k)
}

func (s *Sandbox) adminDeleteAPIKey(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !s.DeleteAPIKey(id) {
		adminError(w, r, http.StatusNotFound, errors.New(noSuchAPIKey))
		return
	}
	exchangeOf(r).say("API key %s deleted", printable(id))
	w.WriteHeader(http.StatusNoContent)
}

func (s *Sandbox) adminCA(w http.ResponseWriter, r *http.Request) {
	if s.authority == "" {
		adminError(w, r, http.StatusNotFound, errors.New("there is no CA: the sandbox was started without TLS"))
		return
	}
	exchangeOf(r).say("CA read")
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = io.WriteString(w, s.authority)
}

// describeKeys says where an API key's public keys are, for the log.
func describeKeys(k APIKey) string {
	if k.JWKSURL != "" {
		return "the JWKS URL " + printable(k.JWKSURL)
	}
	var kids []string
	keys, _ := jwkSetKeys(k.JWKSet) // a set that can't be read has no keys
	for _, jwk := range keys {
		if object, _, err := decodeObject(jwk); err == nil {
			kids = append(kids, printable(stringMember(object, "kid")))
		}
	}
	switch len(kids) {
	case 0:
		return "no public key"
	case 1:
		return "the public key " + kids[0]
	}
	return fmt.Sprintf("the public keys %s", printable(strings.Join(kids, ", ")))
}
