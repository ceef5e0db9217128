#!/usr/bin/env bash
# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0
#
# Reads something from Redox, such as a patient: resource TOKEN_PATH URL
# TOKEN_PATH is where Vault has the token, such as redox/token/team-a. Needs VAULT_ADDR, and the Vault token in VAULT_TOKEN
# or where "vault login" leaves it.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: resource TOKEN_PATH URL" >&2 && exit 2; }
token_path=$1 url=$2
: "${VAULT_ADDR:?}" "${VAULT_TOKEN:=$(cat ~/.vault-token)}"

# send is curl with a secret header. The header goes through standard input: all users of a machine can see command lines.
send() {
  printf 'header = "%s"\n' "$1" | curl --config - --silent --show-error --max-time 30 "${@:2}"
}

# access_token asks Vault with GET for the token that all share, with POST for a fresh one.
access_token() {
  local answer
  answer=$(send "X-Vault-Token: $VAULT_TOKEN" --fail-with-body --request "$1" "$VAULT_ADDR/v1/$token_path") ||
    { echo "no token from Vault: $answer" >&2 && exit 1; }
  # A bearer token (RFC 6750) has no character that JSON escapes.
  sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' <<<"$answer"
}

# fetch leaves Redox's answer in $body and $status.
fetch() {
  body=$(send "Authorization: Bearer $1" --header 'Accept: application/fhir+json' --write-out '\n%{http_code}' "$url")
  status=${body##*$'\n'} body=${body%$'\n'*}
}

token=$(access_token GET)
fetch "$token"
if [ "$status" = 401 ]; then
  token=$(access_token POST)
  fetch "$token"
  [ "$status" != 401 ] || { echo "no resource: Redox answered 401 to a fresh token, too" >&2 && exit 1; }
fi
[ "$status" = 200 ] || { echo "no resource: Redox answered $status" >&2 && exit 1; }
printf '%s' "$body"
