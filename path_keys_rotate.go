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

The version takes over by itself once Redox has taken it for a client ID that
is configured to use the key, and rejects it for none (see keys/NAME/activate).
Until then the version before goes on signing; and after that it is kept until
every client ID was asked and took its successor.
`),
		keyVerb("activate", "Prove the pending version at Redox, and promote it.", map[string]*framework.FieldSchema{
			forceField: {Type: framework.TypeBool,
				Description:  "Promote it without asking Redox. Default: false.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Force"}},
		}, b.keyActivate, `
Asks Redox for a token with the pending version, now, for every client ID that
the configuration or a role names with this key. If Redox takes it for one at
least and rejects it for none, the version becomes the active one, and the one
before is retired: kept until retire_grace is over and no client ID needs it. If
not, nothing changes, and the error says which client was rejected and why. Where
there are too many to ask in one request, call it again: what was answered counts.

With force=true it is promoted unproved, and signs for every client ID. That is for
a Vault that can't reach Redox and only hands out assertions.
`),
		keyVerb("abandon", "Drop the pending version of a key.", map[string]*framework.FieldSchema{
			forceField: verbForce(),
		}, b.keyAbandon, `
Makes the pending version a retired one whose grace period is over. It is destroyed
once Redox was asked about every client ID that uses the key, and each took the
version that it signs with afterwards: now, if that can be seen within the
request's time, else in the background. next_step names who still needs it.

With force=true it is destroyed at once, whoever needs it.
`),
		keyVerb("retire", "End the grace period of retired versions of a key, or destroy a compromised one.", map[string]*framework.FieldSchema{
			"version": {Type: framework.TypeInt,
				Description:  "Number of the version. Default: all retired versions.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Version"}},
			forceField: verbForce(),
			"destroy_now": {Type: framework.TypeBool,
				Description:  "With version: it is compromised, so destroy it in whatever state, even if it is in use. Default: false.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Destroy now"}},
		}, b.keyRetire, `
Ends the grace period of the retired versions, or of the one that is named. Each is
destroyed once Redox was asked about every client ID that uses the key, disabled
ones included, and each took the version that it signs with afterwards: now, if that
can be seen within the request's time, else in the background. next_step names who
still needs a version. With force=true they are destroyed at once, whoever needs
them.

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

// verbForce is for verbs that wait for proof.
func verbForce() *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeBool,
		Description:  "Destroy at once, without asking Redox who needs the version. Default: false.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Force"}}
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
	clients, err := b.maintainer.directory.of(ctx, name) // to answer with, read while nothing is changed yet
	if err != nil {
		return nil, err
	}
	next, err := b.generateVersion(data, k.newest().Algorithm, k.generatedBits())
	if err != nil {
		return nil, err
	}
	after, err := b.keys.edit(ctx, name, func(_ *writing, k *signingKey) (*edit, error) {
		if len(k.Versions) == 0 {
			return nil, noSuchKey("name", name)
		}
		return &edit{version: next, cause: "rotated by an operator"}, nil
	})
	if err != nil {
		return nil, err
	}
	return b.showKeyOf(after, clients)
}

func (b *backend) keyActivate(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	if force, _ := data.Get(forceField).(bool); force {
		after, err := b.keys.apply(ctx, name, rotation.Force{})
		response, err := b.showChanged(ctx, after, err)
		if err != nil {
			return nil, err
		}
		response.AddWarning("This version was promoted without a proof that Redox knows it. Where Redox says that it does not, " +
			"the retired version goes on minting tokens until it is destroyed: read keys/" + name + "/clients.")
		return response, nil
	}
	before, after, err := b.maintainer.activate(ctx, name)
	if err != nil {
		return nil, err
	}
	response, err := b.showChanged(ctx, after, nil)
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
	force, _ := data.Get(forceField).(bool)
	return b.letGo(ctx, pathName(data, "name"), rotation.Abandon{Force: force}, force)
}

func (b *backend) keyRetire(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	number, _ := data.Get("version").(int)
	compromised, _ := data.Get("destroy_now").(bool)
	force, _ := data.Get(forceField).(bool)
	named := isGiven(data, "version")
	switch {
	case named && number < 1:
		return nil, fieldError("version", "give the number of a version, as keys/"+name+"/versions lists them", "the value is out of range")
	case compromised && !named:
		return nil, fieldError("version", "name the version that is compromised", "destroy_now needs it")
	case compromised:
		return b.destroyCompromised(ctx, name, number)
	}
	return b.letGo(ctx, name, rotation.Retire{Version: number, Force: force}, force)
}

// destroyCompromised destroys a version at once. That alone stops no thief, so the answer says what does.
func (b *backend) destroyCompromised(ctx context.Context, name string, number int) (*logical.Response, error) {
	after, err := b.keys.apply(ctx, name, rotation.Compromise{Version: number})
	response, err := b.showChanged(ctx, after, err)
	if err != nil {
		return nil, err
	}
	if after.Registration == registrationPlatform {
		b.maintainer.worker.wakeUp() // to take it away there
		return response, nil
	}
	response.AddWarning("Whoever has a copy of the key can use it until Redox no longer knows its kid: take " + after.version(number).KID +
		" away in the Redox dashboard, at the OAuth API key of each client ID, or see that the JWKS URL serves it no more.")
	return response, nil
}

// letGo answers a request to be rid of versions: at once, or as soon as nobody needs them.
func (b *backend) letGo(ctx context.Context, name string, event rotation.Event, atOnce bool) (*logical.Response, error) {
	if atOnce {
		after, err := b.keys.apply(ctx, name, event)
		return b.showChanged(ctx, after, err)
	}
	after, err := b.maintainer.letGo(ctx, name, event)
	response, err := b.showChanged(ctx, after, err)
	if err != nil {
		return nil, err
	}
	if after.rotation().Unsettled(b.now().Wall) && after.in(rotation.Pending) == nil {
		if step, _ := response.Data["next_step"].(string); step != "" {
			response.AddWarning(step)
		}
	}
	return response, nil
}

func (b *backend) keyRegister(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	after, err := b.maintainer.registerAgain(ctx, pathName(data, "name"))
	return b.showChanged(ctx, after, err)
}
