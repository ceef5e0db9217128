# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0
#
# An index of scripts/: each target is one script.

.DEFAULT_GOAL := help
.PHONY: help build demo test check ci vault clean
export KEEP

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

build: ## build the plugin into .build/
	@scripts/build

demo: ## see it work in a real Vault with a local Redox (KEEP=1 leaves it running)
	@scripts/demo

test: ## run all tests, also in a real Vault (ARGS='-race -run TestX' go to go test)
	@scripts/test $(ARGS)

check: ## formatting, vet, staticcheck, modules, scripts, known vulnerabilities
	@scripts/check

ci: ## all that must hold before a merge: check, test -race, demo
	@.ci/run

vault: ## find or build the Vault used by demo and test, and print its path
	@scripts/build-vault

clean: ## remove .build/
	rm -rf .build
