"""Which registry a name means: that of an address, or a key of a Secret that pulls images."""

from __future__ import annotations

import re

DOCKER_HUB = "registry-1.docker.io"
"""The registry of docker.io, which itself has a web page only."""
_NAMES_OF_DOCKER_HUB = ("docker.io", "index.docker.io", DOCKER_HUB)
_KEY = re.compile(r"^(?:https?://)?([^/]+?)(?::443)?(?:/v[12])?/?$")


def registry_of(name: str) -> str:
    """The registry's server in lower case, without scheme, port 443 and path /v1/ or /v2/; Docker Hub has one name.

    A name with another path is a key for some repositories only, and is returned in lower case.
    """
    key = _KEY.match(name.lower())
    server = key[1] if key else name.lower()
    return DOCKER_HUB if server in _NAMES_OF_DOCKER_HUB else server
