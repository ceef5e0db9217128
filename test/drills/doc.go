// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package drills breaks what the engine depends on, one thing after the other, and reports what readers saw: Redox, the network,
// the clock, Vault itself, the plugin's process. Everything is real but Redox, which is the sandbox, and all of it is on the
// loopback interface. The drills have the build tag "drills"; scripts/drills runs them.
package drills
