// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/gate"
	"vault-plugin-secrets-redox/internal/redox"
)

// checkWait bounds a check as the cache bounds a mint.
const checkWait = 20 * time.Second

var checkFields = map[string]*framework.FieldSchema{
	"ok":                   answerField(framework.TypeBool, "Whether Redox gave a token."),
	"client_id":            {Type: framework.TypeString, Description: "Client ID that was tried."},
	"kid":                  {Type: framework.TypeString, Description: "kid of the key that signed."},
	"token_url":            {Type: framework.TypeString, Description: "Token endpoint that was asked."},
	"latency_ms":           {Type: framework.TypeInt64, Description: "Milliseconds that Redox took to answer."},
	"token_lifetime":       {Type: framework.TypeInt64, Description: "Seconds that the token lives."},
	"scope":                {Type: framework.TypeString, Description: "Scope that Redox granted."},
	"clock_offset":         {Type: framework.TypeInt64, Description: "Redox's clock minus this node's, in seconds, when Redox said its time."},
	"cause":                {Type: framework.TypeString, Description: "What is wrong."},
	"action":               {Type: framework.TypeString, Description: "What to do next."},
	"http_status":          {Type: framework.TypeInt64, Description: "Status of Redox's answer, when there was one."},
	"retry_after":          {Type: framework.TypeInt64, Description: "Seconds that Redox asks to wait, when it does; or until a request can be sent at all."},
	"requests_in_progress": {Type: framework.TypeInt64, Description: "Requests of this mount that the server has not answered yet."},
	"requests_waiting":     {Type: framework.TypeInt64, Description: "Requests of this mount that wait until they may be sent."},
	"requests_left":        {Type: framework.TypeInt64, Description: "Requests that may be sent now without waiting, by request_limit."},
	"paused_for":           {Type: framework.TypeInt64, Description: "Seconds until the server is asked again, when it has limited requests."},
	"error_code":           {Type: framework.TypeString, Description: "Redox's own error, when it gave one."},
	"error_description": {Type: framework.TypeString,
		Description: "Redox's own words, cleaned and cut, when it gave any."},
}

func (b *backend) pathCheck() *framework.Path {
	return &framework.Path{
		Pattern:      optionalRole("check"),
		Fields:       roleFields(),
		DisplayAttrs: display("check|role-check"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: acting(b.check, "run", "Try to get a token, and say what was learned.", ok("What was learned.", checkFields)),
		},
		HelpSynopsis: "Tries to get a token and explains what is wrong.",
		HelpDescription: `
Asks Redox for a token now, whatever is cached, and tells what was learned but
not the token: with ok=true the latency, the token's lifetime and scope and how
far the clocks are apart; with ok=false the cause and what to do next.

    vault write -f redox/check/ROLE
`,
	}
}

func (b *backend) check(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	roleName := pathName(data, "role")
	c, err := b.minter.resolve(ctx, roleName)
	if user := (*userError)(nil); errors.As(err, &user) {
		cause := user.problem
		if user.field != "" {
			cause = user.field + ": " + cause
		}
		return &logical.Response{Data: map[string]any{"ok": false, "cause": cause, "action": user.wayOut}}, nil
	}
	if err != nil {
		return nil, err
	}
	learned := map[string]any{
		"ok":        false,
		"client_id": c.ClientID,
		"kid":       c.next(nil).KID,
		"token_url": c.tokenURL(),
	}
	b.minter.searches.forget(c) // what was mended there is to be found at once
	result, err := b.minter.exchange(ctx, c)
	addGate(learned, b.minter.gates.of(c.tokenURL(), c.limits()).State())
	if remote := (*redox.Error)(nil); errors.As(err, &remote) {
		learned["cause"], learned["action"] = remote.Cause, remote.Action
		if remote.StatusCode != 0 {
			learned["http_status"] = remote.StatusCode
		}
		if remote.Code != "" {
			learned["error_code"] = remote.Code
		}
		if remote.Description != "" {
			learned["error_description"] = remote.Description
		}
		if remote.RetryAfter > 0 {
			learned["retry_after"] = int64(remote.RetryAfter.Seconds())
		}
		addClockOffset(learned, remote.ClockOffset, remote.ClockOffsetKnown)
		return &logical.Response{Data: learned}, nil
	}
	if err != nil {
		return nil, err
	}
	// What was mended at Redox is no write here: this is how readers get to know of it at once.
	b.minter.tokens.ForgetFailure(roleName)
	answer := result.token
	learned["ok"], learned["kid"] = true, result.kid
	learned["latency_ms"] = answer.Latency.Milliseconds()
	learned["token_lifetime"] = int64(answer.Lifetime.Seconds())
	learned["scope"] = answer.Scope
	addClockOffset(learned, answer.ClockOffset, answer.ClockOffsetKnown)
	response := &logical.Response{Data: learned}
	if result.warning != "" {
		response.AddWarning(result.warning)
	}
	return response, nil
}

// addGate tells what may be sent to the server.
func addGate(learned map[string]any, s gate.State) {
	learned["requests_in_progress"], learned["requests_waiting"] = int64(s.Inside), int64(s.Waiting)
	if s.Left >= 0 {
		learned["requests_left"] = int64(s.Left)
	}
	if s.ClosedFor > 0 {
		learned["paused_for"] = int64(max(1, s.ClosedFor.Seconds()))
	}
}

func addClockOffset(learned map[string]any, offset time.Duration, known bool) {
	if known {
		learned["clock_offset"] = int64(offset.Seconds())
	}
}
