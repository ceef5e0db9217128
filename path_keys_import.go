// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"hash"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
)

const (
	privateKeyField     = "private_key"
	ciphertextField     = "ciphertext"
	hashFunctionField   = "hash_function"
	defaultHashFunction = "SHA256"
)

// hashFunctions are those that Vault's transit engine takes, too. SHA-1 is no weakness here: OAEP needs no hash that
// resists collisions.
var (
	hashFunctionNames = []any{"SHA1", "SHA224", "SHA256", "SHA384", "SHA512"}
	hashFunctions     = map[string]func() hash.Hash{
		"SHA1": sha1.New, "SHA224": sha256.New224, "SHA256": sha256.New, "SHA384": sha512.New384, "SHA512": sha512.New,
	}
)

func (b *backend) pathKeysImport() *framework.Path {
	return &framework.Path{
		Pattern: "keys/" + framework.GenericNameRegex("name") + "/import",
		Fields: map[string]*framework.FieldSchema{
			"name": nameField("Name of the key."),
			privateKeyField: {Type: framework.TypeString,
				Description: "The private key in clear: PEM (PKCS#8, PKCS#1, SEC 1), JWK or JWK Set, as a string; a JWK may also be given as a JSON " +
					"object. RSA of at least 2048 bits signs RS384, P-384 signs ES384.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Private key", Sensitive: true, EditType: "textarea"}},
			ciphertextField: {Type: framework.TypeString,
				Description: "Instead of private_key: the private key wrapped under wrapping_key, in base64. First 512 bytes, an " +
					"AES-256 key encrypted with RSA-OAEP; the rest, the private key as PKCS#8 DER wrapped with the AES key " +
					"(AES-KWP, RFC 5649).",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Ciphertext", EditType: "textarea"}},
			hashFunctionField: {Type: framework.TypeString, Default: defaultHashFunction, AllowedValues: hashFunctionNames,
				Description: "With ciphertext: the hash of the RSA-OAEP encryption and of its mask generation function. " +
					"SHA1, SHA224, SHA256 (default), SHA384 or SHA512.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Hash function"}},
			"kid": {Type: framework.TypeString,
				Description: "Key ID under which Redox knows the public key. Of a JWK Set with several private keys it chooses one. " +
					"Default: that of a JWK in private_key, else the RFC 7638 thumbprint.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Key ID"}},
			"deletion_allowed": {Type: framework.TypeBool,
				Description:  "Whether the key may be deleted. Default: false.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Deletion allowed"}},
		},
		// No ExistenceCheck: it would run, and its errors be logged, before the input has been looked at here.
		DisplayAttrs: display("key"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: importing(b.keyImport, ok("The key's public half.", keyShownFields())),
		},
		HelpSynopsis: "Bring a private key that was made elsewhere.",
		HelpDescription: `
Creates a signing key from a private key that exists already, such as the one the
Redox dashboard generates for download; or, where there is a key of that name,
adds it as the pending version, as keys/NAME/rotate does with a generated one:

    vault write redox/keys/NAME/import private_key=@key.json

Give kid=… where the key's file does not say it. To keep the key out of sight of
whatever is between you and Vault, wrap it first. If it is in key.pem:

    openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER | openssl base64 -A -out key.b64
    vault transit import redox/keys/NAME @key.b64 kid=KID
    rm key.b64

This encrypts it under the key that wrapping_key gives, and writes the result to
keys/NAME/import as ciphertext. See wrapping_key for how to wrap it yourself.

The kid must be the one under which Redox knows the key. A key that has lived
outside Vault may have been copied there, so plan to replace it with one that is
generated here.
`,
	}
}

func importing(handler framework.OperationFunc, responses map[int][]framework.Response) *framework.PathOperation {
	o := changing(handler, "Import a private key.", responses)
	o.DisplayAttrs = &framework.DisplayAttributes{OperationVerb: "import"}
	return o
}

// flattenJWK lets private_key be a JSON object: its JSON text takes its place, in a copy of the data. The framework
// must not see the object, since it would quote it in an error. Other types are left for checkInput to refuse.
func flattenJWK(data map[string]any) map[string]any {
	object, isObject := data[privateKeyField].(map[string]any)
	if !isObject {
		return data
	}
	text, err := json.Marshal(object)
	if err != nil {
		return data // came from JSON, so it can't fail; and checkInput refuses what is left
	}
	flat := maps.Clone(data)
	flat[privateKeyField] = string(text)
	return flat
}

// importedKey returns the key that the request brings, in clear or wrapped, and the kid that came with it, which may be
// empty. What is wrong with the request is a userError for one of its fields.
func importedKey(ctx context.Context, s *store, data *framework.FieldData, now time.Time) (key *privatekey.Key, kid string, err error) {
	inClear, _ := data.Get(privateKeyField).(string)
	ciphertext, _ := data.Get(ciphertextField).(string)
	hashName, _ := data.Get(hashFunctionField).(string)
	switch {
	case inClear == "" && ciphertext == "":
		return nil, "", fieldError(privateKeyField,
			privatekey.AcceptedForms+", or wrapped, as the help of wrapping_key says, as "+ciphertextField,
			"it is missing or empty, and so is %s", ciphertextField)
	case inClear != "" && ciphertext != "":
		return nil, "", fieldError(ciphertextField, "give only one of them", "it is given together with %s", privateKeyField)
	case ciphertext != "":
		key, err = unwrapKey(ctx, s, ciphertext, cmp.Or(hashName, defaultHashFunction), now)
		return key, "", err
	case isGiven(data, hashFunctionField):
		return nil, "", fieldError(hashFunctionField, "leave it out", "it is for %s only", ciphertextField)
	default:
		named, _ := data.Get("kid").(string)
		key, kid, err = privatekey.Parse(inClear, named)
		return key, kid, inputError(privateKeyField, err)
	}
}

// inputError turns a refusal by internal/privatekey into a userError for the field that brought the key. Other errors,
// and none, are returned as they are.
func inputError(field string, err error) error {
	if refused := (*privatekey.InputError)(nil); errors.As(err, &refused) {
		return &userError{field: field, problem: refused.Problem, wayOut: refused.WayOut}
	}
	return err
}

// unwrapKey returns the private key that ciphertext, base64, holds wrapped under this mount's wrapping key (see
// privatekey.Key.Unwrap). hashName names the hash of RSA-OAEP; its case, and a hyphen after SHA, don't matter.
func unwrapKey(ctx context.Context, s *store, ciphertext, hashName string, now time.Time) (*privatekey.Key, error) {
	// SHA-256 is what the standard calls it.
	newHash := hashFunctions[strings.Replace(strings.ToUpper(hashName), "SHA-", "SHA", 1)]
	if newHash == nil {
		return nil, fieldError(hashFunctionField, "give SHA1, SHA224, SHA256, SHA384 or SHA512",
			"the value is not a hash function that is known here")
	}
	if len(ciphertext) > privatekey.MaxInputBytes {
		return nil, fieldError(ciphertextField, "give one wrapped private key alone",
			"it is longer than %d bytes", privatekey.MaxInputBytes)
	}
	wrapped, err := base64.StdEncoding.DecodeString(strings.TrimSpace(ciphertext))
	if err != nil {
		return nil, fieldError(ciphertextField, "encode it, for example with: openssl base64 -A", "it is not base64")
	}
	wrapping, err := s.wrappingKeys(ctx)
	if err != nil {
		return nil, err
	}
	if wrapping == nil {
		return nil, fieldError(ciphertextField, "read wrapping_key, which makes one, and wrap the key under that",
			"it can't be unwrapped, since this mount has no wrapping key yet")
	}
	key, err := wrapping.unwrap(wrapped, newHash, now)
	return key, inputError(ciphertextField, err)
}

func (b *backend) keyImport(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	key, kid, err := importedKey(ctx, b.store, data, b.now().Wall)
	if err != nil {
		return nil, err
	}
	if named, _ := data.Get("kid").(string); named != "" {
		kid = named
	}
	unnamed := kid == ""
	if err := checkText("kid", kid); err != nil {
		if refused := (*userError)(nil); errors.As(err, &refused) && !isGiven(data, "kid") {
			refused.wayOut += "; or name the version with kid=KID, as the Redox dashboard has it"
		}
		return nil, err
	}
	version, err := newKeyVersion(key, kid, true, b.now().Wall)
	if err != nil {
		return nil, err
	}

	clients, err := b.maintainer.directory.of(ctx, name) // to answer with, read while nothing is changed yet
	if err != nil {
		return nil, err
	}
	k, err := b.keys.edit(ctx, name, func(_ *writing, k *signingKey) (*edit, error) {
		if isGiven(data, "deletion_allowed") {
			k.DeletionAllowed, _ = data.Get("deletion_allowed").(bool)
		}
		return &edit{version: version, cause: "imported by an operator"}, nil
	})
	if err != nil {
		return nil, err
	}
	response, err := b.showKeyOf(k, clients)
	if err != nil {
		return nil, err
	}
	response.AddWarning("This private key has lived outside Vault, where copies of it may remain: " +
		"destroy them, and plan to replace it with a key that is generated in Vault.")
	if unnamed {
		response.AddWarning("It came without a kid, so it has one that the engine made up, its RFC 7638 thumbprint: " + version.KID +
			". Compare it with the kid in the Redox dashboard; if that is another one, import the key again under another name, with kid=KID.")
	}
	return response, nil
}
