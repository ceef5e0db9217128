// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// meta goes with every answer of the Platform API.
var meta = map[string]string{"version": "1.0.0"}

func (s *Sandbox) addPlatformRoutes(mux *http.ServeMux) {
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET /platform/v1/apikeys/{apikeyId}":                    s.platformRead,
		"PATCH /platform/v1/apikeys/{apikeyId}":                  s.platformChange,
		"DELETE /platform/v1/apikeys/{apikeyId}":                 s.platformDelete,
		"GET /platform/v1/environments/{environmentId}/apikeys":  s.platformList,
		"POST /platform/v1/environments/{environmentId}/apikeys": s.platformCreate,
	} {
		mux.HandleFunc(pattern, s.managed(handle))
	}
}

// managed lets only live tokens of user-level API keys through.
func (s *Sandbox) managed(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token, live := s.authenticate(r)
		s.counters.access(areaPlatform, live && token.management)
		switch {
		case !live:
			challenge(w, r)
			platformError(w, r, http.StatusUnauthorized, "a live access token is required")
		case !token.management:
			platformError(w, r, http.StatusForbidden, "the access token is not of a user-level API key")
		default:
			handle(w, r)
		}
	}
}

// platformAPIKey is an API key as the Platform API shows it.
type platformAPIKey struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	JWKSURL     *string         `json:"jwksURL"`
	JWKSet      json.RawMessage `json:"jwkSet"`
	Environment Environment     `json:"environment"`
}

func platformView(k APIKey) platformAPIKey {
	view := platformAPIKey{ID: k.ID, Name: k.Name, JWKSet: k.JWKSet, Environment: k.Environment}
	if k.JWKSURL != "" {
		view.JWKSURL = &k.JWKSURL
	}
	if json.Unmarshal(view.JWKSet, new(any)) != nil {
		view.JWKSet = nil // none, or one that a test broke on purpose
	}
	return view
}

// platformAnswer answers in the documented envelope.
func platformAnswer(w http.ResponseWriter, status int, name string, value any) {
	writeJSON(w, "application/json", status, map[string]any{"meta": meta, "payload": map[string]any{name: value}})
}

// platformError answers with an error. Redox documents no form for them; this one is the sandbox's own.
func platformError(w http.ResponseWriter, r *http.Request, status int, message string) {
	x := exchangeOf(r)
	x.say("rejected %s %s: %s", x.method, printable(x.path), message)
	writeJSON(w, "application/json", status, map[string]any{"meta": meta, "error": map[string]string{"message": message}})
}

const noSuchAPIKey = "there is no API key with this ID"

func (s *Sandbox) platformRead(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	k, ok := s.apiKeys.get(r.PathValue("apikeyId"))
	if !ok {
		platformError(w, r, http.StatusNotFound, noSuchAPIKey)
		return
	}
	x.say("API key %s read", printable(k.ID))
	platformAnswer(w, http.StatusOK, "apikey", platformView(k))
}

// platformFields are what PATCH and POST take.
type platformFields struct {
	Name    *string         `json:"name"`
	JWKSURL *string         `json:"jwksURL"`
	JWKSet  json.RawMessage `json:"jwkSet"`
}

// readPlatformFields reads and checks a PATCH's or POST's body. Members that Redox doesn't document are rejected:
// whether Redox ignores them is unknown, and here a mistyped one should show.
func readPlatformFields(r *http.Request) (platformFields, keySource, error) {
	var fields platformFields
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fields, keySource{}, errors.New("the body can't be read")
	}
	if err := decodeStrict(body, &fields); err != nil {
		return fields, keySource{}, errors.New("the body: " + printable(err.Error()))
	}
	if fields.Name != nil && *fields.Name == "" {
		return fields, keySource{}, errors.New("name: must not be empty")
	}
	source := keySource{JWKSURL: fields.JWKSURL, JWKSet: fields.JWKSet}
	return fields, source, source.resolve()
}

// platformChange changes what the body names; jwkSet is replaced as a whole.
func (s *Sandbox) platformChange(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	fields, source, err := readPlatformFields(r)
	if err != nil {
		platformError(w, r, http.StatusBadRequest, err.Error())
		return
	}
	k, ok := s.apiKeys.change(r.PathValue("apikeyId"), func(k *APIKey) {
		if fields.Name != nil {
			k.Name = *fields.Name
		}
		source.apply(k)
	})
	if !ok {
		platformError(w, r, http.StatusNotFound, noSuchAPIKey)
		return
	}
	x.say("API key %s changed, has now %s", printable(k.ID), describeKeys(k))
	platformAnswer(w, http.StatusOK, "apikey", platformView(k))
}

func (s *Sandbox) platformDelete(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	k, ok := s.apiKeys.remove(r.PathValue("apikeyId"))
	if !ok {
		platformError(w, r, http.StatusNotFound, noSuchAPIKey)
		return
	}
	x.say("API key %s deleted", printable(k.ID))
	platformAnswer(w, http.StatusOK, "apikey", platformView(k))
}

func (s *Sandbox) platformList(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	environment, ok := s.apiKeys.environment(r.PathValue("environmentId"))
	if !ok {
		platformError(w, r, http.StatusNotFound, "there is no environment with this ID")
		return
	}
	views := []platformAPIKey{}
	for _, k := range s.apiKeys.list(environment.ID) {
		views = append(views, platformView(k))
	}
	x.say("%d API keys of %s listed", len(views), printable(environment.ID))
	platformAnswer(w, http.StatusOK, "apikeys", views)
}

func (s *Sandbox) platformCreate(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	environment, ok := s.apiKeys.environment(r.PathValue("environmentId"))
	if !ok {
		platformError(w, r, http.StatusNotFound, "there is no environment with this ID")
		return
	}
	fields, source, err := readPlatformFields(r)
	if err == nil && fields.Name == nil {
		err = errors.New("name: required")
	}
	if err != nil {
		platformError(w, r, http.StatusBadRequest, err.Error())
		return
	}
	k := APIKey{Name: *fields.Name, Environment: environment}
	source.apply(&k)
	k = s.apiKeys.put(k)
	x.say("API key %s created with %s", printable(k.ID), describeKeys(k))
	// Redox documents no status for this; 201 is what a POST that creates answers.
	platformAnswer(w, http.StatusCreated, "apikey", platformView(k))
}
