#!/usr/bin/env python3
# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0
"""Reads something from Redox, such as a patient: resource.py TOKEN_PATH URL

TOKEN_PATH is where Vault has the token, such as redox/token/team-a.
"""

import subprocess
import sys
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener


class NoRedirect(HTTPRedirectHandler):
    """Keeps the token from being taken to another server."""

    def redirect_request(self, *_):
        return None


def vault(*command):
    """Gives the access token that a vault command prints."""
    return subprocess.run(["vault", *command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def fetch(url, token):
    request = Request(url, headers={"Accept": "application/fhir+json", "Authorization": f"Bearer {token}"})
    with build_opener(NoRedirect).open(request, timeout=30) as response:
        return response.read()


def read_resource(token_path, url):
    """Fetches from Redox with the token that all share and, if Redox rejects that, once more with a fresh one."""
    try:
        return fetch(url, vault("read", "-field=access_token", token_path))
    except HTTPError as error:
        if error.code != 401:
            raise
    return fetch(url, vault("write", "-f", "-field=access_token", token_path))


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: resource.py TOKEN_PATH URL")
    try:
        sys.stdout.buffer.write(read_resource(*sys.argv[1:]))
    except subprocess.CalledProcessError:
        sys.exit("no token from Vault, see above")
    except HTTPError as error:
        more = " to a fresh token, too" if error.code == 401 else ""
        sys.exit(f"no resource: Redox answered {error.code}{more}")
    except (URLError, OSError) as error:
        sys.exit(f"no resource: {error}")


if __name__ == "__main__":
    main()
