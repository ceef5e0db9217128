// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command nothing is a Vault secrets plugin that does nothing: the yardstick of the benchmarks. Reading token/NAME
// answers with constants of the same form and size as a Redox access token's.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

var (
	tokenLength = flag.Int("token-length", 0, "length of the constant access token")
	keepState   = flag.Bool("keep-state", false, "keep the replication state for a second, as the Redox engine does")
)

func main() {
	flag.Parse()
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func factory(ctx context.Context, config *logical.BackendConfig) (logical.Backend, error) {
	data := map[string]any{
		"access_token":        strings.Repeat("x", *tokenLength),
		"token_type":          "Bearer",
		"scope":               "",
		"client_id":           "client-1",
		"kid":                 strings.Repeat("x", 43),
		"expire_time":         "2026-01-02T03:04:05Z",
		"ttl":                 int64(270),
		"rotation_period":     int64(270),
		"last_vault_rotation": "2026-01-02T03:04:05Z",
	}
	b := &framework.Backend{
		BackendType:    logical.TypeLogical,
		RunningVersion: "v0.0.0",
		Paths: []*framework.Path{{
			Pattern: "token(/" + framework.GenericNameRegex("role") + ")?$",
			Fields:  map[string]*framework.FieldSchema{"role": {Type: framework.TypeString}},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
						return &logical.Response{Data: data}, nil
					},
				},
			},
		}},
	}
	kept := *config
	if *keepState && config.System != nil {
		kept.System = &keptState{SystemView: config.System}
	}
	return b, b.Setup(ctx, &kept)
}

// keptState answers for a second from memory.
type keptState struct {
	logical.SystemView
	known atomic.Pointer[known]
}

type known struct {
	state consts.ReplicationState
	until time.Time
}

func (k *keptState) ReplicationState() consts.ReplicationState {
	if last := k.known.Load(); last != nil && time.Now().Before(last.until) {
		return last.state
	}
	state := k.SystemView.ReplicationState()
	k.known.Store(&known{state, time.Now().Add(time.Second)})
	return state
}
