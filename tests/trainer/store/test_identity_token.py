"""The tokens by which tests sign without a key are those of a real API server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jwt
import pytest
from sigstore.oidc import IdentityToken
from support.servers.token_issuer import TokenIssuer

from hone_api.blocks.signing import TOKEN_AUDIENCE
from hone_dev.tools import tools

pytestmark = pytest.mark.apiserver


def claims(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return decoded


def test_a_service_account_has_the_claims_that_fulcio_reads(apiserver: Path) -> None:
    def kubectl(*arguments: str) -> str:
        command = [tools.kubectl(), "--kubeconfig", apiserver, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    account = ("hone-signer", "--namespace", "default")
    if not kubectl("get", "serviceaccount", *account, "--ignore-not-found"):
        kubectl("create", "serviceaccount", *account)
    token = kubectl("create", "token", *account, "--audience", TOKEN_AUDIENCE, "--duration", "10m").strip()
    issuer = TokenIssuer(claims(token)["iss"])
    real, ours = claims(token), claims(issuer.token("hone-signer", "default"))
    assert real.keys() >= {"iss", "sub", "aud", "iat", "nbf", "exp"}
    assert [real[name] for name in ("sub", "aud")] == [ours[name] for name in ("sub", "aud")]
    names = [(each["namespace"], each["serviceaccount"]["name"]) for each in (c["kubernetes.io"] for c in (real, ours))]
    assert names == [("default", "hone-signer")] * 2
    assert IdentityToken(token, TOKEN_AUDIENCE).issuer == issuer.url, "the library takes it"
    path = "/.well-known/openid-configuration"
    discovery = json.loads(kubectl("get", "--raw", path))
    assert discovery.keys() == issuer.documents[path].keys(), "no page to log in"
