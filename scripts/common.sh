# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
#
# Sourced by the other scripts, after "set -euo pipefail": the repository's
# root, words for people, and how tools are called. Runs with bash 3.2 (macOS).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What is built here depends on this repository alone: no go.work above it, and
# no command may change a go.mod, whatever GOFLAGS says.
export GOWORK=off
export GOFLAGS="${GOFLAGS:-} -mod=readonly"

# say prints its words on stderr, so that stdout stays a script's result.
say() {
	printf '%s\n' "$*" >&2
}

# die says what is wrong and what to do next, and ends the script.
die() {
	say "error: $*"
	exit 1
}

# run shows a command as a person would type it, then runs it.
run() {
	say "+ $*"
	"$@"
}

# stage runs one of a list of commands, and shows which and when it begins, in
# seconds since the script's start.
stage() {
	printf '\n== %s (at %s s)\n' "$*" "$SECONDS"
	"$@"
}

# need_go stops a script that has no usable Go.
need_go() {
	command -v go >/dev/null || die "go is not on PATH; install Go 1.26 or newer"
}

# sha256 gives the SHA-256 of stdin in hex. Linux has sha256sum, macOS shasum.
sha256() {
	if command -v sha256sum >/dev/null; then
		sha256sum | cut -d ' ' -f 1
	else
		shasum -a 256 | cut -d ' ' -f 1
	fi
}

# tool is how a tool pinned in tools/lint is called, from the root.
# shellcheck disable=SC2034
tool=(go tool -modfile=tools/lint/go.mod)
