// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/pem"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/jwk"
	"vault-plugin-secrets-redox/internal/privatekey"
)

// wrappingKeyBits is the size that tools made for Vault's transit engine count on: what they send begins with 512 bytes
// that this key encrypted.
const wrappingKeyBits = 4096

// wrappingKey is the key pair under which private keys are wrapped for import.
type wrappingKey struct {
	header

	PrivateKey privatekey.Sealed `json:"private_key"`
}

func (b *backend) pathWrappingKey() *framework.Path {
	return &framework.Path{
		Pattern:      "wrapping_key",
		Fields:       map[string]*framework.FieldSchema{forceField: deletionForce()},
		DisplayAttrs: display("wrapping-key"),
		Operations: map[logical.Operation]framework.OperationHandler{
			// The first read writes.
			logical.ReadOperation: changing(b.wrappingKeyRead, "Read the public key to wrap private keys with.",
				ok("The wrapping key.", map[string]*framework.FieldSchema{
					"public_key": answerField(framework.TypeString, "Public half of the RSA-4096 wrapping key, as PEM."),
				})),
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

The wrapping key can be deleted: then the next read makes another one, and what
was wrapped under the old one can't be imported any more. One whose stored entry
can't be read is deleted with force=true.
`,
	}
}

func (b *backend) wrappingKeyRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	key, err := b.store.wrappingKey(ctx)
	if err == nil && key == nil {
		key, err = b.makeWrappingKey(ctx)
	}
	if err != nil {
		return nil, err
	}
	public, err := jwk.MarshalPKIX(key.Public())
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		"public_key": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
	}}, nil
}

// makeWrappingKey generates, stores and returns a wrapping key. If another request has stored one meanwhile, it returns
// that one.
func (b *backend) makeWrappingKey(ctx context.Context) (*privatekey.Key, error) {
	// Before the write: this takes seconds, and nobody need wait for it.
	key, err := privatekey.Generate(privatekey.RS384, wrappingKeyBits)
	if err != nil {
		return nil, err
	}
	sealed, err := key.Seal()
	if err != nil {
		return nil, err
	}
	err = b.store.write(ctx, func(w *writing) error {
		stored, err := w.wrappingKey(ctx)
		if err != nil {
			return err
		}
		if stored != nil {
			key = stored
			return nil
		}
		return w.put(ctx, wrappingKeyStorage, &wrappingKey{PrivateKey: sealed})
	})
	if err != nil {
		return nil, err
	}
	return key, nil
}

func (b *backend) wrappingKeyDelete(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	return nil, b.store.write(ctx, func(w *writing) error {
		key, err := w.wrappingKey(ctx)
		if err == nil && key == nil {
			return nil
		}
		if err := forced(err, data); err != nil {
			return err
		}
		return w.delete(ctx, wrappingKeyStorage)
	})
}
