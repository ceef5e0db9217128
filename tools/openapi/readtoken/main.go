// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build generated

// Command readtoken reads an access token with a client that is generated from the plugin's OpenAPI document, and prints
// it. The client is no part of the repository: TestGeneratedClient in test/acceptance makes it and puts it beside this
// file for the compiler only.
//
// VAULT_ADDR and VAULT_TOKEN are as for the vault command; the argument is where the plugin is mounted.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	_ "github.com/oapi-codegen/runtime" // which the generated client needs
)

func main() {
	token, err := readToken(context.Background(), os.Getenv("VAULT_ADDR")+"/v1/"+os.Args[1], os.Getenv("VAULT_TOKEN"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(token)
}

func readToken(ctx context.Context, mount, vaultToken string) (string, error) {
	authenticate := func(_ context.Context, request *http.Request) error {
		request.Header.Set("X-Vault-Token", vaultToken)
		return nil
	}
	client, err := NewClientWithResponses(mount, WithHTTPClient(unwrapping{}), WithRequestEditorFn(authenticate))
	if err != nil {
		return "", err
	}
	response, err := client.RedoxReadTokenWithResponse(ctx)
	if err != nil {
		return "", err
	}
	if response.JSON200 == nil || response.JSON200.AccessToken == nil {
		return "", fmt.Errorf("no token: %s", response.Status())
	}
	return *response.JSON200.AccessToken, nil
}

// unwrapping is an HTTP client that takes away what Vault puts around each answer: its documents, this plugin's and all
// others, describe the data only.
type unwrapping struct{}

func (unwrapping) Do(request *http.Request) (*http.Response, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil || response.StatusCode != http.StatusOK {
		return response, err
	}
	defer response.Body.Close()
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(response.Body).Decode(&envelope); err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(envelope.Data))
	return response, nil
}
