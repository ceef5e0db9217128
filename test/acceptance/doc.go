// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package acceptance shows the plugin at work in a real Vault server process.
package acceptance
