// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathKeysVersions() *framework.Path {
	return &framework.Path{
		Pattern:      "keys/" + framework.GenericNameRegex("name") + "/versions/?$",
		Fields:       map[string]*framework.FieldSchema{"name": nameField("Name of the key.")},
		DisplayAttrs: display("key-versions"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: reading(b.keyVersionsRead, "Read the versions of a key.", ok("The versions.",
				map[string]*framework.FieldSchema{
					"versions": answerField(framework.TypeMap, "By number: state, algorithm, kid, times, whether imported, forced or compromised, public_jwk, public_pem."),
				})),
			logical.ListOperation: reading(b.keyVersionsList, "List the versions of a key.", listing("The numbers of the versions.",
				"By number: state, kid, algorithm, when it was made.")),
		},
		HelpSynopsis: "The versions of a signing key, also those that are destroyed.",
		HelpDescription: `
Each rotation makes a version, which is pending, then active, then retired, and
at last destroyed: then its private key is gone, and this record stays. As a
table:

    vault list -detailed redox/keys/NAME/versions
`,
	}
}

func (b *backend) keyVersionsRead(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	k, err := b.store.key(ctx, pathName(data, "name"))
	if err != nil || k == nil {
		return nil, err
	}
	versions := make(map[string]any, len(k.Versions))
	for i := range k.Versions {
		if versions[strconv.Itoa(k.Versions[i].Number)], err = k.showVersion(&k.Versions[i]); err != nil {
			return nil, err
		}
	}
	return &logical.Response{Data: map[string]any{"versions": versions}}, nil
}

func (b *backend) keyVersionsList(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	k, err := b.store.key(ctx, pathName(data, "name"))
	if err != nil || k == nil {
		return nil, err
	}
	numbers := make([]string, len(k.Versions))
	about := make(map[string]any, len(k.Versions))
	for i := range k.Versions {
		v := &k.Versions[i]
		numbers[i] = strconv.Itoa(v.Number)
		about[numbers[i]] = map[string]any{
			"state": string(v.State), "kid": v.KID, "algorithm": v.Algorithm, "created_time": formatTime(v.CreatedTime),
		}
	}
	return logical.ListResponseWithInfo(numbers, about), nil
}

// showVersion returns what is shown of a version, with the times that are known.
func (k *signingKey) showVersion(v *keyVersion) (map[string]any, error) {
	public, err := k.jwk(v)
	if err != nil {
		return nil, err
	}
	shown := map[string]any{
		"state":        string(v.State),
		"algorithm":    v.Algorithm,
		"kid":          v.KID,
		"imported":     v.Imported,
		"forced":       v.Forced,
		"compromised":  v.Compromised,
		"created_time": formatTime(v.CreatedTime),
		"public_jwk":   public.Compact(),
		"public_pem":   v.publicPEM(),
	}
	for name, moment := range map[string]time.Time{
		"activated_time": v.ActivatedTime, "retired_time": v.RetiredTime, "destroyed_time": v.DestroyedTime,
	} {
		if !moment.IsZero() {
			shown[name] = formatTime(moment)
		}
	}
	return shown, nil
}
