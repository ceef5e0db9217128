// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/rotation"
)

// The verbs under keys/NAME that move its versions on. What the states mean is in internal/rotation.

// keyVerb declares POST keys/NAME/verb.
func keyVerb(verb, summary string, fields map[string]*framework.FieldSchema, handler framework.OperationFunc, description string) *framework.Path {
	if fields == nil {
		fields = map[string]*framework.FieldSchema{}
	}
	fields["name"] = nameField("Name of the key.")
	operation := changing(handler, summary, ok("The key's public half.", keyShownFields()))
	operation.DisplayAttrs = &framework.DisplayAttributes{OperationVerb: verb}
	return &framework.Path{
		Pattern:         "keys/" + framework.GenericNameRegex("name") + "/" + verb,
		Fields:          fields,
		DisplayAttrs:    display("key"),
		Operations:      map[logical.Operation]framework.OperationHandler{logical.UpdateOperation: operation},
		HelpSynopsis:    summary,
		HelpDescription: description,
	}
}

func (b *backend) pathKeysRotate() []*framework.Path {
	return []*framework.Path{
		keyVerb("rotate", "Make the next version of a key.", map[string]*framework.FieldSchema{
			"algorithm": {Type: framework.TypeString, AllowedValues: []any{privatekey.RS384, privatekey.ES384},
				Description:  "Signature algorithm of the new version. Default: as before.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Algorithm"}},
			"rsa_bits": {Type: framework.TypeInt, AllowedValues: rsaBitsAllowed,
				Description:  "Size of an RS384 key: 2048, 3072 or 4096. Default: as before, but at most 4096; 3072 after an ES384 key.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "RSA bits"}},
			"kid": {Type: framework.TypeString,
				Description:  "Key ID of the new version. Default: its RFC 7638 thumbprint.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Key ID"}},
		}, b.keyRotate, `
Adds a version with a new key pair. It is pending: its public half is in the
JWKS, and it signs for nobody yet. The answer's next_step says how to make Redox
know it; the JWK to register is pending_public_jwk.

The version takes over by itself once Redox has accepted it for every client ID
that uses the key (see keys/NAME/activate). Until then, and if that never
happens, the version before goes on signing: a rotation can't cause an outage.
`),
		keyVerb("activate", "Prove the pending version at Redox, and promote it.", map[string]*framework.FieldSchema{
			"force": {Type: framework.TypeBool,
				Description:  "Promote it without asking Redox. Default: false.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Force"}},
		}, b.keyActivate, `
Asks Redox for a token with the pending version, now, for every client ID that
has used the key (if none has, for those that are configured to). If Redox
accepts it for all, the version becomes the active one, and the one before is
retired: kept until retire_grace is over. If not, nothing changes, and the error
says which client was rejected and why.

With force=true it is promoted unproved. That is for a Vault that can't reach
Redox and only hands out assertions.
`),
		keyVerb("abandon", "Drop the pending version of a key.", nil, b.keyAbandon, `
Destroys the private key of the pending version; its public record stays.
Refused while the version signs for a client ID: then go on with the rotation,
or take its kid away at Redox first.
`),
		keyVerb("retire", "Destroy retired versions of a key before their time, or a compromised one.", map[string]*framework.FieldSchema{
			"version": {Type: framework.TypeInt,
				Description:  "Number of the version. Default: all retired versions.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Version"}},
			"destroy_now": {Type: framework.TypeBool,
				Description:  "With version: it is compromised, so destroy it in whatever state, even if it is in use. Default: false.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Destroy now"}},
		}, b.keyRetire, `
Destroys the private keys of the retired versions, or of the one that is named,
without waiting for the end of retire_grace. Refused for a version that still
signs for a client ID.

With destroy_now=true the named version is marked compromised and destroyed in
whatever state it is and whoever uses it. That alone stops no thief: who has a
copy of the key can use it until its kid is taken away at Redox. So in this
order: rotate, register the new key, activate, take the old kid away at Redox,
and then

    vault write redox/keys/NAME/retire version=N destroy_now=true
`),
		keyVerb("register", "Register a key's public keys at Redox again.", nil, b.keyRegister, `
For registration=platform. The engine registers new public keys by itself; but
one that has been there and was taken away by somebody it does not put back,
since that may have had a reason. This puts it back.
`),
	}
}

func (b *backend) keyRotate(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	k, err := b.store.existingKey(ctx, "name", name)
	if err != nil {
		return nil, err
	}
	if k.in(rotation.Pending) != nil { // before the costly part; what holds is decided below
		return nil, explain(k, rotation.ErrPendingExists)
	}
	next, err := b.generateVersion(data, k.newest().Algorithm, k.generatedBits())
	if err != nil {
		return nil, err
	}
	return showChanged(b.keys.edit(ctx, name, func(_ *writing, k *signingKey) (*edit, error) {
		if len(k.Versions) == 0 {
			return nil, noSuchKey("name", name)
		}
		return &edit{version: next, cause: "rotated by an operator"}, nil
	}))
}

func (b *backend) keyActivate(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	if force, _ := data.Get("force").(bool); force {
		response, err := showChanged(b.keys.apply(ctx, name, rotation.Force{}))
		if err != nil {
			return nil, err
		}
		response.AddWarning("This version was promoted without a proof that Redox knows it. Where Redox says that it does not, " +
			"the retired version goes on signing until it is destroyed: read keys/" + name + "/clients.")
		return response, nil
	}
	before, after, err := b.maintainer.activate(ctx, name)
	if err != nil {
		return nil, err
	}
	response, err := showKey(after)
	if err != nil {
		return nil, err
	}
	if before.in(rotation.Pending) == nil { // no error: a pass may have been faster
		active := before.in(rotation.Active)
		response.AddWarning(fmt.Sprintf("There is no pending version: version %d is active since %s.",
			active.Number, formatTime(active.ActivatedTime)))
	}
	return response, nil
}

func (b *backend) keyAbandon(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	return showChanged(b.keys.apply(ctx, pathName(data, "name"), rotation.Abandon{}))
}

func (b *backend) keyRetire(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	number, _ := data.Get("version").(int)
	compromised, _ := data.Get("destroy_now").(bool)
	var event rotation.Event = rotation.RetireAll{}
	switch named := isGiven(data, "version"); {
	case compromised && !named:
		return nil, fieldError("version", "name the version that is compromised", "destroy_now needs it")
	case compromised:
		event = rotation.Compromise{Version: number}
	case named:
		event = rotation.Retire{Version: number}
	}
	return showChanged(b.keys.apply(ctx, pathName(data, "name"), event))
}

func (b *backend) keyRegister(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	return showChanged(b.maintainer.registerAgain(ctx, pathName(data, "name")))
}
