// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package protocol shows the plugin's process at work with a server that speaks the plugin protocol and no more: one that
// lacks what Vault has added to it over the years.
package protocol
