// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testvault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// client reuses enough connections for a crowd of readers.
var client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 128}}

// Answer is what Vault said to a request.
type Answer struct {
	Status int            `json:"-"` // HTTP's; 0: there was no answer
	Body   []byte         `json:"-"`
	Data   map[string]any `json:"data"`
	Errors []string       `json:"errors"`
	Auth   struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
}

// Problem gives the words of an answer that is an error, on one line.
func (a Answer) Problem() string {
	if len(a.Errors) == 0 {
		return "no words"
	}
	return strings.Join(strings.Fields(strings.Join(a.Errors, "; ")), " ")
}

// Do sends a request with the root token; a body that is not bytes is sent as JSON. Its error is of the connection; a
// refusal is in the answer.
func (s *Server) Do(ctx context.Context, method, path string, body any) (Answer, error) {
	encoded, isBytes := body.([]byte)
	if !isBytes && body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return Answer{}, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, s.Address+"/v1/"+path, bytes.NewReader(encoded))
	if err != nil {
		return Answer{}, err
	}
	request.Header.Set("X-Vault-Token", s.Token)
	response, err := client.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	a := Answer{Status: response.StatusCode}
	if a.Body, err = io.ReadAll(response.Body); err != nil {
		return Answer{}, err
	}
	_ = json.Unmarshal(a.Body, &a) // not every answer is JSON
	return a, nil
}

// Must sends a request that has to succeed.
func (s *Server) Must(ctx context.Context, method, path string, body any) (Answer, error) {
	a, err := s.Do(ctx, method, path, body)
	if err == nil && a.Status >= http.StatusMultipleChoices {
		err = fmt.Errorf("HTTP %d: %s", a.Status, a.Problem())
	}
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return a, nil
}

// Active says whether the server does the work: it is not sealed, and no standby. A paused one does not answer.
func (s *Server) Active() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a, err := s.Do(ctx, http.MethodGet, "sys/health", nil)
	return err == nil && a.Status == http.StatusOK // a standby answers 429
}
