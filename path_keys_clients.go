// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// How many client IDs a page has.
const (
	defaultPageSize = 100
	maxPageSize     = 1000
)

// What is known of the version that signs for a client.
const (
	proofProven   = "proven"   // the server has taken it from the client
	proofRecorded = "recorded" // it goes on signing though nothing is proven: it did so when another was promoted, or was forced
	proofNone     = "none"
)

func (b *backend) pathKeysClients() *framework.Path {
	answered := map[string]*framework.FieldSchema{
		"clients": answerField(framework.TypeSlice, "Each client: client_id, token_url, enabled, version and kid that sign for it, proof "+
			"(proven, recorded, none), proven_time, versions that are rejected, what came of asking last, and with "+
			"registration=platform where its public keys are registered."),
		"next_after": answerField(framework.TypeString, "What to give as after for more; empty when there are no more."),
	}
	return &framework.Path{
		Pattern: "keys/" + framework.GenericNameRegex("name") + "/clients/?$",
		Fields: map[string]*framework.FieldSchema{
			"name": nameField("Name of the key."),
			"after": {Type: framework.TypeString, Query: true,
				Description:  "Begin behind this client ID, which need not exist. To go on, give next_after of the answer before.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "After"}},
			"limit": {Type: framework.TypeInt, Query: true, Default: defaultPageSize,
				Description:  "How many client IDs to answer with, from 1 to 1000. Each comes with all its token URLs. Default: 100.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Limit"}},
		},
		DisplayAttrs: display("key-clients"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: reading(b.keyClientsRead, "Read what is known of the clients of a key.", ok("The clients.", answered)),
			logical.ListOperation: reading(b.keyClientsList, "List the client IDs that use a key.", listing("The client IDs.",
				"By client ID: version that signs for it, proof, proven_time.")),
		},
		HelpSynopsis: "The clients of a signing key: which version signs for each, and what Redox has said.",
		HelpDescription: `
A client is a client ID at a token endpoint, as the configuration or a role has
it, disabled ones included. Redox takes a version from each client or not. For
each client this has the version that signs, whether Redox has taken it (proof),
and what came of asking last:

    vault read -format=json redox/keys/NAME/clients
    vault list -detailed redox/keys/NAME/clients

They are sorted by client ID. Where there are many: limit=100, and then again
with after=, given next_after of the answer.
`,
	}
}

// clientsPage is a page of a key's clients.
type clientsPage struct {
	k         *keySnapshot
	clients   []rotation.Configured
	nextAfter string   // empty when there is nothing behind it
	warnings  []string // of what may be missing
}

// clientsPage returns the page that a request asks for, nil when there is no such key.
func (b *backend) clientsPage(ctx context.Context, data *framework.FieldData) (*clientsPage, error) {
	after, _ := data.Get("after").(string)
	limit := defaultPageSize
	if isGiven(data, "limit") {
		limit, _ = data.Get("limit").(int)
	}
	if limit < 1 || limit > maxPageSize {
		return nil, fieldError("limit", "give a number from 1 to 1000", "the value is out of range")
	}
	k, err := b.keys.snapshot(ctx, pathName(data, "name"))
	if err != nil || k == nil {
		return nil, err
	}
	clients, err := b.maintainer.directory.of(ctx, k.name)
	if err != nil {
		return nil, err
	}
	page := &clientsPage{k: k}
	page.clients, page.nextAfter = cutPage(clients.Clients, after, limit)
	for _, entry := range clients.unreadable {
		page.warnings = append(page.warnings, "The entry "+entry+" can't be read, so clients may be missing.")
	}
	if k.unusable != nil {
		page.warnings = append(page.warnings, "What was known of clients is not shown: "+k.unusable.Error())
	}
	return page, nil
}

// cutPage returns the clients behind a client ID, for so many client IDs, and the last of these if there are more. One
// client ID is never on two pages.
func cutPage(clients []rotation.Configured, after string, limit int) (page []rotation.Configured, nextAfter string) {
	ids := 0
	for i, client := range clients {
		if client.ClientID <= after {
			continue
		}
		if len(page) == 0 || clients[i-1].ClientID != client.ClientID {
			if ids == limit {
				return page, clients[i-1].ClientID
			}
			ids++
		}
		page = append(page, client)
	}
	return page, ""
}

func (b *backend) keyClientsRead(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	page, err := b.clientsPage(ctx, data)
	if err != nil || page == nil {
		return nil, err
	}
	shown := []any{}
	for _, client := range page.clients {
		shown = append(shown, page.k.showClient(client))
	}
	return &logical.Response{Data: map[string]any{"clients": shown, "next_after": page.nextAfter}, Warnings: page.warnings}, nil
}

func (b *backend) keyClientsList(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	page, err := b.clientsPage(ctx, data)
	if err != nil || page == nil {
		return nil, err
	}
	var ids []string
	about := map[string]any{}
	for _, client := range page.clients {
		if about[client.ClientID] != nil {
			continue // of the same client ID elsewhere: the table has room for one
		}
		ids = append(ids, client.ClientID)
		shown := page.k.showClient(client)
		about[client.ClientID] = map[string]any{"version": shown["version"], "proof": shown["proof"], "proven_time": shown["proven_time"]}
	}
	response := logical.ListResponseWithInfo(ids, about)
	response.Warnings = page.warnings
	if page.nextAfter != "" {
		response.AddWarning("There are more client IDs: vault read redox/keys/" + page.k.name + "/clients after=" + page.nextAfter)
	}
	return response, nil
}

// showClient returns what is known of a client: which version signs for it, and what came of asking last.
func (k *keySnapshot) showClient(client rotation.Configured) map[string]any {
	key := k.rotation()
	record := key.Of(client.Client)
	signs := key.Signing(client.Client)
	shown := map[string]any{
		"client_id": client.ClientID, "token_url": client.TokenURL, "enabled": client.Enabled,
		"proof": proofNone, "proven_time": "", "version": signs, "kid": "", "registration": k.registrationsOf(client.Client),
	}
	rejected := []int{}
	for _, verdict := range record.Verdicts {
		if v := k.version(verdict.Version); !verdict.Taken && v != nil && v.Held() {
			rejected = append(rejected, verdict.Version)
		}
	}
	shown["rejected_versions"] = rejected
	if v := k.version(signs); v != nil {
		shown["kid"] = v.KID
		if at, proven := record.Proven(signs); proven {
			shown["proof"], shown["proven_time"] = proofProven, formatTime(at)
		} else if record.Recorded == signs || v.Forced {
			shown["proof"] = proofRecorded
		}
	}
	if probe := record.Probe; probe.Count > 0 {
		shown["last_asked_time"], shown["last_asked_version"] = formatTime(probe.LastTime), probe.Version
		shown["last_outcome"], shown["last_answer"] = string(probe.Outcome), probe.Answer
	}
	return shown
}

// registrationsOf returns for each public key that the engine registers at a client's OAuth API key "KID: registered", or
// "KID: " and the problem.
func (k *keySnapshot) registrationsOf(client rotation.Client) []string {
	shown := []string{}
	for _, r := range k.registrations() {
		if r.Client != client {
			continue
		}
		state := r.Problem
		switch {
		case state == "" && r.Unwanted:
			continue // it was seen gone
		case state == "":
			state = "registered"
		}
		shown = append(shown, r.KID+": "+state)
	}
	return shown
}
