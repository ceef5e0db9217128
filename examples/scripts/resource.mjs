#!/usr/bin/env node
// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0
//
// Reads something from Redox, such as a patient: resource.mjs TOKEN_PATH URL
// TOKEN_PATH is where Vault has the token, such as redox/token/team-a.

import { execFile } from "node:child_process";
import { promisify } from "node:util";

// vault gives the access token that a vault command prints.
async function vault(...command) {
  try {
    const { stdout } = await promisify(execFile)("vault", command);
    return stdout.trim();
  } catch (error) {
    throw new Error(`no token from Vault: ${error.stderr || error.message}`);
  }
}

function fetchWith(token, url) {
  return fetch(url, {
    headers: { Accept: "application/fhir+json", Authorization: `Bearer ${token}` },
    redirect: "manual", // keeps the token from being taken to another server
    signal: AbortSignal.timeout(30_000),
  });
}

// readResource fetches from Redox with the token that all share and, if Redox rejects that, once more with a fresh one.
async function readResource(tokenPath, url) {
  let response = await fetchWith(await vault("read", "-field=access_token", tokenPath), url);
  if (response.status === 401) {
    response = await fetchWith(await vault("write", "-f", "-field=access_token", tokenPath), url);
    if (response.status === 401) throw new Error("no resource: Redox answered 401 to a fresh token, too");
  }
  if (!response.ok) throw new Error(`no resource: Redox answered ${response.status}`);
  return response.text();
}

try {
  if (process.argv.length !== 4) throw new Error("usage: resource.mjs TOKEN_PATH URL");
  process.stdout.write(await readResource(...process.argv.slice(2)));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
