// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const privateKeyField = "private_key"

func (b *backend) pathKeysImport() *framework.Path {
	return &framework.Path{
		Pattern: "keys/" + framework.GenericNameRegex("name") + "/import",
		Fields: map[string]*framework.FieldSchema{
			"name": nameField("Name of the key."),
			privateKeyField: {Type: framework.TypeString, Required: true,
				Description: "The private key: PEM (PKCS#8, PKCS#1, SEC 1) or JWK, as a string; a JWK may also be given as a JSON object. " +
					"RSA of at least 2048 bits signs RS384, P-384 signs ES384.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Private key", Sensitive: true, EditType: "textarea"}},
			"kid": {Type: framework.TypeString,
				Description:  "Key ID under which Redox knows the public key. Default: the JWK's, else the RFC 7638 thumbprint.",
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

func (b *backend) keyImport(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	input, _ := data.Get(privateKeyField).(string)
	key, kid, err := parsePrivateKey(input)
	if err != nil {
		return nil, err
	}
	if named, _ := data.Get("kid").(string); named != "" {
		kid = named
	}
	if err := checkText("kid", kid); err != nil {
		return nil, err
	}
	version, err := newKeyVersion(key, kid, true, b.now().Wall)
	if err != nil {
		return nil, err
	}

	unlock, err := b.writes.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k, err := loadKey(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if k == nil {
		k = defaultKey()
		k.name = name
	}
	if isGiven(data, "deletion_allowed") {
		k.DeletionAllowed, _ = data.Get("deletion_allowed").(bool)
	}
	response, err := b.storeNewVersion(ctx, req.Storage, k, version, "imported by an operator")
	if err != nil {
		return nil, err
	}
	response.AddWarning("This private key has lived outside Vault, where copies of it may remain: " +
		"destroy them, and plan to replace it with a key that is generated in Vault.")
	return response, nil
}
