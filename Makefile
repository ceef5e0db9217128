# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0
#
# An index of scripts/: each target is one script.

.DEFAULT_GOAL := help
.PHONY: help build demo test verify examples check ci compat fuzz drills soak mutation world acceptance-race bench release test-release vault clean
export KEEP

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

build: ## build the plugin into .build/
	@scripts/build

demo: ## see it work in a real Vault with a local Redox (KEEP=1 leaves it running)
	@scripts/demo

test: ## show that it works: unit and property tests, and the core in a real Vault (ARGS='-race' go to go test)
	@scripts/test $(ARGS)

verify: ## everything, some 35 minutes: all tests, drills, a release made twice, ...
	@scripts/verify

examples: ## try all examples and guides, in a real Vault
	@scripts/examples

check: ## formatting, vet, staticcheck, modules, scripts, known vulnerabilities
	@scripts/check

ci: ## what must hold before a merge: check, test -race, demo
	@.ci/run

compat: ## the tests in a real Vault, on each version of Vault that is pinned (ARGS='/path/to/bao' for another binary)
	@scripts/compat $(ARGS)

fuzz: ## run every fuzz target for a while (DURATION=5m for each; default 30s)
	@scripts/fuzz $(DURATION)

drills: ## break what the engine depends on, and see what readers see
	@scripts/drills $(ARGS)

soak: ## wear it down with readers, faults and rotations, then judge: make soak DURATION=30m
	@scripts/soak $(DURATION) $(ARGS)

mutation: ## break the core's code, and see which breaks no test notices (ARGS='-run redox')
	@scripts/mutation $(ARGS)

world: ## explores what may happen around a rotation; TIME=1m for longer in each scenario
	@scripts/world $(TIME)

acceptance-race: ## look for data races in the plugin's own process, in a real Vault
	@scripts/acceptance-race

bench: ## compare speed and size with other engines of one Vault
	@scripts/bench

release: ## make the files of a release: make release VERSION=v1.2.3
	@scripts/release $(VERSION)

test-release: ## show that a release is reproducible
	@scripts/test-release

vault: ## find or build the Vault used by demo and test, and print its path
	@scripts/build-vault

clean: ## remove .build/
	rm -rf .build
