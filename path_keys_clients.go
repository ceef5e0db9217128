// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"maps"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

const (
	defaultClientsLimit = 100
	maxClientsLimit     = 1000
)

// What is known of the version that signs for a client.
const (
	proofProven   = "proven"   // the server has accepted it from the client
	proofRecorded = "recorded" // it was promoted by force, without asking the server
	proofNone     = "none"
)

func (b *backend) pathKeysClients() *framework.Path {
	return &framework.Path{
		Pattern: "keys/" + framework.GenericNameRegex("name") + "/clients$",
		Fields: map[string]*framework.FieldSchema{
			"name": nameField("Name of the key."),
			"after": {Type: framework.TypeString, Query: true,
				Description:  "Begin after this client ID, or after next_after of an answer before.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "After"}},
			"limit": {Type: framework.TypeInt, Query: true, Default: defaultClientsLimit,
				Description:  "How many clients to answer at most, up to 1000. Default: 100.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Limit"}},
		},
		DisplayAttrs: display("key-clients"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: reading(b.keyClientsRead, "Read what is known of the clients of a key.", ok("The clients.",
				map[string]*framework.FieldSchema{
					"clients": answerField(framework.TypeSlice, "Each client: client_id, token_url, version and kid that sign for it, proof "+
						"(proven, recorded, none), proven_time, what came of asking for the next version, and with registration=platform "+
						"where its public keys are registered."),
					"next_after": answerField(framework.TypeString, "What to give as after for more; empty when there are no more."),
				})),
		},
		HelpSynopsis: "The clients of a signing key: which version signs for each, and what Redox has said.",
		HelpDescription: `
A client is a client ID at a token endpoint, as the configuration or a role has
it. Redox accepts a version for each client by itself, so a rotation goes on when
it has for all. For each client this has the version that signs, whether Redox
has accepted it (proof), and Redox's last answer about the next one:

    vault read -format=json redox/keys/NAME/clients

They are sorted by client ID. Where there are many: limit=100, and then again
with after=, given next_after of the answer.
`,
	}
}

func (b *backend) keyClientsRead(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	limit, _ := data.Get("limit").(int)
	if limit < 1 || limit > maxClientsLimit {
		return nil, fieldError("limit", "give a number from 1 to 1000", "the value is out of range")
	}
	after, _ := data.Get("after").(string)
	k, err := b.keys.snapshot(ctx, pathName(data, "name"))
	if err != nil || k == nil {
		return nil, err
	}
	configured, err := findClients(ctx, b.store)
	if err != nil {
		return nil, err
	}
	clients := maps.Clone(configured[k.name])
	if clients == nil {
		clients = map[rotation.Client]*roleConfig{}
	}
	for _, standing := range k.clients.Standings {
		clients[standing.Client] = nil
	}
	byCursor := map[string]rotation.Client{}
	for client := range clients {
		if c := cursor(client); client.ClientID != after && c > after {
			byCursor[c] = client
		}
	}
	cursors := slices.Sorted(maps.Keys(byCursor))
	next := ""
	if len(cursors) > limit {
		cursors = cursors[:limit]
		next = cursors[limit-1]
	}
	shown := []any{}
	for _, c := range cursors {
		shown = append(shown, k.showClient(byCursor[c]))
	}
	return &logical.Response{Data: map[string]any{"clients": shown, "next_after": next}}, nil
}

// cursor orders clients, and stands for one in next_after.
func cursor(c rotation.Client) string { return c.ClientID + " " + c.TokenURL }

// showClient returns what is known of a client: which version signs for it, and how far the next one is.
func (k *keySnapshot) showClient(client rotation.Client) map[string]any {
	shown := map[string]any{
		"client_id": client.ClientID, "token_url": client.TokenURL, "proof": proofNone, "registration": k.registrationsOf(client),
	}
	if order := k.rotation().Order(client); len(order) > 0 {
		shown["version"], shown["kid"] = order[0], k.version(order[0]).KID
	}
	i := slices.IndexFunc(k.clients.Standings, func(s rotation.Standing) bool { return s.Client == client })
	if i < 0 {
		return shown
	}
	standing := k.clients.Standings[i]
	if standing.Accepted == shown["version"] {
		v := k.version(standing.Accepted)
		if v.Forced && standing.AcceptedTime.Equal(v.ActivatedTime) {
			shown["proof"] = proofRecorded
		} else {
			shown["proof"], shown["proven_time"] = proofProven, formatTime(standing.AcceptedTime)
		}
	}
	if probe := standing.Probe; probe.Asked > 0 {
		shown["rejected_version"], shown["rejected_since"] = probe.Version, formatTime(probe.FirstTime)
		shown["last_asked_time"], shown["last_answer"] = formatTime(probe.LastTime), probe.Answer
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
		if state == "" {
			state = "registered"
		}
		shown = append(shown, r.KID+": "+state)
	}
	return shown
}
