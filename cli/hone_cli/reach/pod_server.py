"""The client of a server of ours on loopback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from hone_cli.errors import CommandError

CONNECT_SECONDS = 30


class UnreachableError(CommandError):
    """The pod does not answer."""


class PodServer:
    """Sends the token with each request, and uses no proxy."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {token}"

    def post(self, path: str, body: Mapping[str, Any], seconds: float) -> tuple[int, Any]:
        """Status and JSON of the answer.

        Raises:
            UnreachableError: there is none.
        """
        try:
            response = self.session.post(f"{self.url}{path}", json=body, timeout=(CONNECT_SECONDS, seconds))
            return response.status_code, response.json()
        except (requests.RequestException, ValueError) as error:
            raise UnreachableError(f"the pod does not answer: {type(error).__name__}") from None


def error_of(reply: Any) -> str:
    """Why a server of ours refused."""
    return str(reply.get("error", "") if isinstance(reply, dict) else reply)
