"""HTTP to a server of ours on loopback."""

from __future__ import annotations

import requests


def http_session(token: str) -> requests.Session:
    """A session that sends the token and uses no proxy, since the server is on loopback."""
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {token}"
    return session
