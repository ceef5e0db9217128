// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command resource reads something from Redox, such as a patient:
//
//	resource TOKEN_PATH URL
//
// TOKEN_PATH is where Vault has the token, such as redox/token/team-a.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: resource TOKEN_PATH URL")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	body, err := readResource(ctx, os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.Write(body)
}

// client follows no redirects, which would take the token to another server.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

var errRejected = errors.New("no resource: Redox answered 401")

// readResource fetches from Redox with the token that all share and, if Redox rejects that, once more with a fresh one.
func readResource(ctx context.Context, tokenPath, url string) ([]byte, error) {
	token, err := vault(ctx, "read", "-field=access_token", tokenPath)
	if err != nil {
		return nil, err
	}
	body, err := fetch(ctx, url, token)
	if !errors.Is(err, errRejected) {
		return body, err
	}
	if token, err = vault(ctx, "write", "-f", "-field=access_token", tokenPath); err != nil {
		return nil, err
	}
	if body, err = fetch(ctx, url, token); errors.Is(err, errRejected) {
		err = fmt.Errorf("%w to a fresh token, too", err)
	}
	return body, err
}

// vault gives the access token that a vault command prints.
func vault(ctx context.Context, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, "vault", arguments...)
	command.Stderr = os.Stderr
	token, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("no token from Vault: %w", err)
	}
	return string(bytes.TrimSpace(token)), nil
}

func fetch(ctx context.Context, url, token string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/fhir+json")
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return io.ReadAll(response.Body)
	case http.StatusUnauthorized:
		return nil, errRejected
	default:
		return nil, fmt.Errorf("no resource: Redox answered %d", response.StatusCode)
	}
}
