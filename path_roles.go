// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// role is what one team or one Redox API key has of its own. Zero values are inherited from the configuration.
type role struct {
	header

	ClientID string        `json:"client_id"`
	Key      string        `json:"key"`
	Scope    string        `json:"scope"`
	JKU      string        `json:"jku"`
	MinTTL   time.Duration `json:"min_ttl"`
	Leased   bool          `json:"leased"`
	Disabled bool          `json:"disabled"`
}

var roleRows = []row[role]{
	{"client_id", framework.TypeString, "Client ID",
		"Client ID of the Redox OAuth API key this role acts for. Unset: the configuration's.",
		func(r *role) any { return &r.ClientID }},
	{"key", framework.TypeString, "Signing key",
		"Name of the signing key that signs for the client ID. Unset: the configuration's.",
		func(r *role) any { return &r.Key }},
	{"scope", framework.TypeString, "Scope",
		"Scope to ask for with each token, space separated. Unset: the configuration's.",
		func(r *role) any { return &r.Scope }},
	{"jku", framework.TypeString, "JWKS URL",
		"JWKS URL to name in the assertion's jku header. Unset: the configuration's.",
		func(r *role) any { return &r.JKU }},
	{"min_ttl", framework.TypeDurationSecond, "Least TTL",
		"A token with less life left than this is replaced before it is given out, from 1s to 1h. 0: the configuration's.",
		func(r *role) any { return &r.MinTTL }},
	{"leased", framework.TypeBool, "Leased",
		"Give each read a lease, to count and list reads. It costs a storage write per read, and adds no way to revoke a token. Default: false.",
		func(r *role) any { return &r.Leased }},
	{"disabled", framework.TypeBool, "Disabled",
		"Stop the role at once: no token and no assertion is given out until it is false again. Default: false.",
		func(r *role) any { return &r.Disabled }},
}

// overlay returns the configuration as it is for the role.
func (r *role) overlay(c *config) roleConfig {
	own := roleConfig{config: *c, leased: r.Leased, disabled: r.Disabled}
	inherit := func(value string, field *string) {
		if value != "" {
			*field = value
		}
	}
	inherit(r.ClientID, &own.ClientID)
	inherit(r.Key, &own.Key)
	inherit(r.Scope, &own.Scope)
	inherit(r.JKU, &own.JKU)
	if r.MinTTL != 0 {
		own.MinTTL = r.MinTTL
	}
	return own
}

func (r *role) validate() error {
	if err := firstError(
		checkClientID(r.ClientID),
		checkReference("key", r.Key),
		checkScope("scope", r.Scope),
		checkURL("jku", r.JKU, queryAllowed),
	); err != nil {
		return err
	}
	if r.MinTTL == 0 {
		return nil
	}
	return checkRange("min_ttl", r.MinTTL, leastMinTTL, mostMinTTL)
}

func (b *backend) pathRoles() []*framework.Path {
	const writing = "Create a role, or change the fields that are named."
	fields := rowSchemas(roleRows, &role{})
	shown := responseFields(fields)
	fields["name"] = nameField("Name of the role.")
	fields[forceField] = deletionForce()
	return []*framework.Path{
		{
			Pattern:      "roles/?$",
			DisplayAttrs: display("roles"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: reading(b.rolesList, "List the roles.", listing("The names of the roles.", "")),
			},
			HelpSynopsis:    "List the roles.",
			HelpDescription: "Lists the names of all roles. What a role consists of is read at roles/NAME.",
		},
		{
			Pattern:        "roles/" + framework.GenericNameRegex("name"),
			Fields:         fields,
			ExistenceCheck: b.roleExists,
			DisplayAttrs:   display("role"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.CreateOperation: changing(b.roleWrite, writing, noContent),
				logical.UpdateOperation: changing(b.roleWrite, writing, noContent),
				logical.ReadOperation:   reading(b.roleRead, "Read a role.", ok("The role's own settings.", shown)),
				logical.DeleteOperation: changing(b.roleDelete, "Delete a role.", noContent),
			},
			HelpSynopsis: "A team's or an API key's own settings.",
			HelpDescription: `
A role stands for one Redox OAuth API key, or for one team that uses it. Its
tokens are read at token/NAME, and Vault policies on that path decide who gets
them. What a role leaves unset it inherits from the configuration:

    vault write redox/roles/NAME client_id=CLIENT_ID key=KEY
    vault read redox/token/NAME

An update changes only the fields it names; an empty value brings back what is
inherited.

Roles that share a client ID are kept apart by Vault only: to Redox they are the
same API key.

A role that is the platform_role of a key is not deleted. One whose stored entry
can't be read is deleted with force=true.
`,
		},
	}
}

func (b *backend) rolesList(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := b.store.roleNames(ctx)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(names), nil
}

func (b *backend) roleExists(ctx context.Context, _ *logical.Request, data *framework.FieldData) (bool, error) {
	r, err := b.store.role(ctx, pathName(data, "name"))
	return r != nil, err
}

func (b *backend) roleRead(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	r, err := b.store.role(ctx, pathName(data, "name"))
	if err != nil || r == nil {
		return nil, err
	}
	return &logical.Response{Data: showRows(roleRows, r)}, nil
}

func (b *backend) roleWrite(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	err := b.store.write(ctx, func(w *writing) error {
		before, err := w.role(ctx, name)
		if err != nil {
			return err
		}
		r := &role{}
		if before != nil {
			*r = *before
		}
		if err := applyRows(roleRows, data, r, &role{}); err != nil {
			return err
		}
		if err := r.validate(); err != nil {
			return err
		}
		if err := w.requireKey(ctx, r.Key); err != nil {
			return err
		}
		defer b.minter.tokens.Doubt(name) // also after a failed Put: it may have been carried out
		if err := w.roleChanges(ctx, before, r, b.now().Wall); err != nil {
			return err
		}
		return w.put(ctx, rolesStoragePrefix+name, r)
	})
	if err != nil {
		return nil, err
	}
	b.telemetry.changed(eventRoleWrite, req.Path, req.Operation, "role", name)
	return nil, nil
}

func (b *backend) roleDelete(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	deleted := false
	err := b.store.write(ctx, func(w *writing) error {
		r, err := w.role(ctx, name)
		switch {
		case err != nil:
			if err = forced(err, data); err == nil {
				err = w.clientLeaves(ctx, b.now().Wall) // whichever it was
			}
		case r == nil:
			return nil
		default:
			err = requireNoKeys(ctx, w.store, name)
		}
		if err != nil {
			return err
		}
		deleted = true
		defer b.minter.tokens.Doubt(name)
		if err := w.roleChanges(ctx, r, nil, b.now().Wall); err != nil {
			return err
		}
		return w.delete(ctx, rolesStoragePrefix+name)
	})
	if err != nil || !deleted {
		return nil, err
	}
	b.telemetry.trouble.change(name, false) // it can't recover any more
	b.telemetry.changed(eventRoleDelete, req.Path, req.Operation, "role", name)
	return nil, nil
}

// requireNoKeys refuses to delete a role whose tokens a key is registered with, or may be.
func requireNoKeys(ctx context.Context, s *store, role string) error {
	managed, unusable, err := s.keysRegisteredBy(ctx, role)
	if err != nil {
		return err
	}
	if len(managed) > 0 {
		return fieldError("name", "name another role there first", "role %q is the platform_role of %s", role, someOf(managed))
	}
	return mayBeUsedBy(fmt.Sprintf("role %q", role), unusable)
}
