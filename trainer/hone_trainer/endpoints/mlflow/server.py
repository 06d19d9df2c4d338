"""MLflow's REST API 2.0 under limits: https://mlflow.org/docs/latest/rest-api.html.

Its own client would follow redirects, use proxies, and connect to any address. Here every request goes through
`endpoints.http`: addresses are checked and pinned, and the credentials go to the host that the spec names, to nobody
else.
"""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from urllib3.exceptions import HTTPError

from hone_api.blocks.tracking import PASSWORD_KEY, SECRET_KEYS, TOKEN_KEY, USER_KEY
from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.addresses import AllowedNetwork, Resolution
from hone_trainer.endpoints.http import Resolver, checked, connect, name_of, resolve, send_to
from hone_trainer.errors import SourceError, TrainerError
from hone_trainer.secrets import read_key, remember, secret_name

SECONDS = 30.0
"""For one answer."""
_MAX_ANSWER = 4 * 2**20
_MAX_WORDS = 300
_UNKNOWN_HOST = b"Invalid Host header"
"""How MLflow's answer begins, since 3.5, where it does not know the name by which it is asked."""
_ERROR_CODE = re.compile(r"[A-Z_]{1,64}")
MISSING, EXISTS = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
OF_DESTINATION = {
    FailureCode.SOURCE_UNREACHABLE: FailureCode.DESTINATION_UNREACHABLE,
    FailureCode.SOURCE_REFUSED: FailureCode.DESTINATION_REFUSED,
}
"""The same rules of addresses, applied to where numbers go."""


class MlflowError(TrainerError):
    """The server refuses a request; error_code is MLflow's own name of the reason, e.g. RESOURCE_DOES_NOT_EXIST."""

    def __init__(self, code: FailureCode, message: str, error_code: str) -> None:
        super().__init__(code, message)
        self.error_code = error_code


@dataclass
class MlflowServer:
    """A tracking server or registry.

    Args:
        uri: its address, e.g. https://mlflow.example.org/team.
        secret_path: folder of the mounted Secret, which is read for each request, so that a new password counts at
            once; None: no credentials.
        seconds: for one answer.
    """

    uri: str
    network: AllowedNetwork
    secret_path: str | None = None
    resolver: Resolver = resolve
    seconds: float = SECONDS
    _may_quote: bool = False

    @property
    def host(self) -> str:
        """The host, for messages."""
        return str(urlsplit(self.uri).hostname)

    def call(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        """One request below api/2.0/mlflow/, and its answer.

        Raises:
            MlflowError: the server refuses it.
            TrainerError: DestinationUnreachable, DestinationRefused, SecretNotFound or SecretKeyNotFound.
        """
        query = f"?{urlencode(fields)}" if method == "GET" and fields else ""
        body = None if method == "GET" else json.dumps(fields).encode()
        try:
            status, answer = self._send(method, f"{self.uri.rstrip('/')}/api/2.0/mlflow/{path}{query}", body)
        except SourceError as error:
            raise TrainerError(OF_DESTINATION.get(error.code, error.code), error.message) from None
        except (HTTPError, OSError) as error:
            raise TrainerError(FailureCode.DESTINATION_UNREACHABLE, f"{self.host}: {error}"[:500]) from None
        return self._read(status, answer)

    def _send(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        parts = checked(url, plain=self.network.plain(url))
        headers = {"User-Agent": "hone", **authorization(self.secret_path)}
        if body is not None:
            headers["Content-Type"] = "application/json"
        pool = connect(parts, self.network, time.monotonic() + self.seconds, self._resolve)
        try:
            response = send_to(pool, parts, method, headers, body)
            return response.status, response.read(_MAX_ANSWER)
        finally:
            pool.close()

    def _resolve(self, host: str, port: int) -> Resolution:
        resolution = self.resolver(host, port)
        self._may_quote = self.network.shows_words(self.uri, resolution)
        return resolution

    def _read(self, status: int, answer: bytes) -> dict[str, Any]:
        try:
            fields = json.loads(answer or b"{}")
        except ValueError:
            fields = None
        if status == 200 and isinstance(fields, dict):
            return fields
        error = fields if isinstance(fields, dict) else {}
        name = str(error.get("error_code", ""))
        name = name if _ERROR_CODE.fullmatch(name) else ""
        words = f": {str(error['message'])[:_MAX_WORDS]}" if self._may_quote and name and "message" in error else ""
        text = f"{self.host} answers {status} {name}".strip() + words
        if answer.startswith(_UNKNOWN_HOST):
            how = f"start the server with --allowed-hosts {name_of(urlsplit(self.uri))}, and its other names"
            raise MlflowError(FailureCode.DESTINATION_DENIED, f"{text}: MLflow does not know this name: {how}", name)
        if status in (401, 403):
            who = f"the {SECRET_KEYS} of the Secret may not do that" if self.secret_path else "it wants a secretName"
            raise MlflowError(FailureCode.DESTINATION_DENIED, f"{text}: {who}", name)
        if status in (408, 429) or status >= 500:
            raise MlflowError(FailureCode.DESTINATION_UNREACHABLE, text, name)
        if not name:
            text += ": it is not an MLflow server, or its path is missing in uri"
        raise MlflowError(FailureCode.DESTINATION_REFUSED, text, name)


def authorization(secret_path: str | None) -> dict[str, str]:
    """The header with the credentials of a mounted Secret; none without a Secret.

    Raises:
        SourceError: SecretNotFound or SecretKeyNotFound.
    """
    if secret_path is None:
        return {}
    named = f"Secret {secret_name(secret_path) or 'named in secretName'}"
    try:
        token, user, password = (read_key(secret_path, key) for key in (TOKEN_KEY, USER_KEY, PASSWORD_KEY))
    except FileNotFoundError:
        message = f"{named} does not exist in this namespace: create it with {SECRET_KEYS}"
        raise SourceError(FailureCode.SECRET_NOT_FOUND, message) from None
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user is None or password is None:
        raise SourceError(FailureCode.SECRET_KEY_NOT_FOUND, f"{named} needs {SECRET_KEYS}")
    header = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    remember(header)
    return {"Authorization": header}
