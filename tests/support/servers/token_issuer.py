"""An issuer of tokens as a cluster's API server is one: a key, and the two documents by which others verify tokens."""

from __future__ import annotations

import base64
import http.server
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from support.servers import loopback

AUDIENCE = "sigstore"


class TokenIssuer:
    """Tokens of ServiceAccounts, verifiable at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._key = rsa.generate_private_key(65537, 2048)

    def token(self, account: str, namespace: str = "team", *, audience: str = AUDIENCE, seconds: int = 600) -> str:
        """A projected token, which expires after so many seconds."""
        now = int(time.time())
        pod = {
            "namespace": namespace,
            "serviceaccount": {"name": account, "uid": "u"},
            "pod": {"name": "p", "uid": "v"},
        }
        claims = {
            **{"iss": self.url, "sub": f"system:serviceaccount:{namespace}:{account}", "aud": [audience]},
            **{"iat": now - 1200, "nbf": now - 1200, "exp": now + seconds, "kubernetes.io": pod},
        }
        return jwt.encode(claims, self._key, "RS256", headers={"kid": "1"})

    @property
    def documents(self) -> dict[str, dict[str, Any]]:
        """By path."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": _base64(numbers.n), "e": _base64(numbers.e)}
        discovery = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        return {"/.well-known/openid-configuration": discovery, "/openid/v1/jwks": {"keys": [key]}}


def _base64(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@contextmanager
def serve() -> Iterator[TokenIssuer]:
    """The issuer on a free port of loopback, until the block ends."""
    documents: dict[str, dict[str, Any]] = {}

    class Handler(loopback.Handler, http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(documents.get(self.path, {})).encode()
            self.answer(200 if self.path in documents else 404, "application/json", body)

    with loopback.serve(Handler) as address:
        issuer = TokenIssuer(address)
        documents.update(issuer.documents)
        yield issuer
