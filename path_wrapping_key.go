// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/pem"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/jwk"
)

// wrappingKeyBits is the size that tools made for Vault's transit engine count on: what they send begins with 512 bytes
// that this key encrypted.
const wrappingKeyBits = 4096

// wrappingKeyFields is what a wrapping key is shown with.
var wrappingKeyFields = map[string]*framework.FieldSchema{
	"public_key": answerField(framework.TypeString, "Public half of the RSA-4096 wrapping key, as PEM."),
	"former_expire_time": {Type: framework.TypeTime,
		Description: "Until when keys that were wrapped under the former wrapping key can be imported, when it was replaced within the hour."},
}

func (b *backend) pathWrappingKey() []*framework.Path {
	return []*framework.Path{b.pathWrappingKeyItself(), {
		Pattern:      "wrapping_key/rotate",
		DisplayAttrs: display("wrapping-key"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: rotating(b.wrappingKeyRotate, ok("The new wrapping key.", wrappingKeyFields)),
		},
		HelpSynopsis: "Replace the wrapping key.",
		HelpDescription: `
Makes another wrapping key, which takes some seconds, and answers with its public
half. What was wrapped under the former one can be imported for another hour;
then that one is deleted:

    vault write -f redox/wrapping_key/rotate

Only the newest former one is kept: two rotations within an hour end the first.
Where there is no wrapping key yet, one is made.
`,
	}}
}

func rotating(handler framework.OperationFunc, responses map[int][]framework.Response) *framework.PathOperation {
	o := changing(handler, "Replace the wrapping key.", responses)
	o.DisplayAttrs = &framework.DisplayAttributes{OperationVerb: "rotate"}
	return o
}

func (b *backend) pathWrappingKeyItself() *framework.Path {
	return &framework.Path{
		Pattern:      "wrapping_key",
		Fields:       map[string]*framework.FieldSchema{forceField: deletionForce()},
		DisplayAttrs: display("wrapping-key"),
		Operations: map[logical.Operation]framework.OperationHandler{
			// The first read writes.
			logical.ReadOperation: changing(b.wrappingKeyRead, "Read the public key to wrap private keys with.",
				ok("The wrapping key.", wrappingKeyFields)),
			logical.DeleteOperation: changing(b.wrappingKeyDelete, "Delete the wrapping key.", noContent),
		},
		HelpSynopsis: "The public key to wrap private keys with, before they are imported.",
		HelpDescription: `
A private key that is imported with keys/NAME/import travels to Vault in the
request. Wrapped, it is encrypted before it leaves the machine it is on, and
only this mount can open it: no proxy, log or audit device on the way sees it.

The wrapping key is an RSA key of 4096 bits. The first read makes it, which takes
some seconds; its private half never leaves Vault. Read it over a connection
that you trust: who can exchange it on the way can open what you wrap with it.

If the private key is in key.pem, the vault command does the wrapping:

    openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER | openssl base64 -A -out key.b64
    vault transit import redox/keys/NAME @key.b64
    rm key.b64

Despite its name that command works here, too: the wrapped form is the one of
Vault's transit engine, so tools made for that do. To wrap it yourself:

    vault read -field=public_key redox/wrapping_key > wrapping-key.pem

 1. Make a random AES key of 256 bits.
 2. Encrypt it with the wrapping key: RSA-OAEP with SHA-256, which gives 512
    bytes.
 3. Wrap the private key, as PKCS#8 DER, with the AES key: AES-KWP (RFC 5649).
 4. Join the two, encode them as base64, and give that as ciphertext:
      vault write redox/keys/NAME/import ciphertext=@ciphertext.b64

docs/import.md in the plugin's repository has the openssl commands for that.

The wrapping key can be replaced: see wrapping_key/rotate. It can be deleted, with
the former one: then the next read makes another one, and what was wrapped under
them can't be imported any more. One whose stored entry can't be read is deleted
with force=true.
`,
	}
}

func (b *backend) wrappingKeyRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	keys, err := b.store.wrappingKeys(ctx)
	if err == nil && keys == nil {
		keys, err = b.makeWrappingKey(ctx, false)
	}
	if err != nil {
		return nil, err
	}
	return b.showWrappingKey(keys)
}

func (b *backend) wrappingKeyRotate(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	keys, err := b.makeWrappingKey(ctx, true)
	if err != nil {
		return nil, err
	}
	b.telemetry.logger.Info("the wrapping key was replaced")
	return b.showWrappingKey(keys)
}

func (b *backend) showWrappingKey(keys *wrappingKeys) (*logical.Response, error) {
	public, err := jwk.MarshalPKIX(keys.present.Public())
	if err != nil {
		return nil, err
	}
	data := map[string]any{"public_key": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))}
	if keys.formerAt(b.now().Wall) != nil {
		data["former_expire_time"] = formatTime(keys.replaced.Add(formerWraps))
	}
	return &logical.Response{Data: data}, nil
}

// makeWrappingKey generates, stores and returns a wrapping key. If there is one already, it returns that, or with replace
// makes it the former one.
func (b *backend) makeWrappingKey(ctx context.Context, replace bool) (keys *wrappingKeys, err error) {
	// Before the write: this takes seconds, and nobody need wait for it.
	key, err := b.newWrappingKey()
	if err != nil {
		return nil, err
	}
	err = b.store.write(ctx, func(w *writing) error {
		if keys, err = w.wrappingKeys(ctx); err != nil {
			return err
		}
		switch {
		case keys == nil:
			keys = &wrappingKeys{present: key}
		case !replace:
			return nil
		default:
			keys = &wrappingKeys{present: key, former: keys.present, replaced: b.now().Wall.UTC()}
		}
		return w.putWrappingKeys(ctx, keys)
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

func (b *backend) wrappingKeyDelete(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	return nil, b.store.write(ctx, func(w *writing) error {
		keys, err := w.wrappingKeys(ctx)
		if err == nil && keys == nil {
			return nil
		}
		if err := forced(err, data); err != nil {
			return err
		}
		return w.delete(ctx, wrappingKeyStorage)
	})
}
