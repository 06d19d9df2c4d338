"""Clients of S3: AWS, or any service that speaks its API.

boto3 finds the address, signs and reads the answers; `http.connect` carries every request: the address is checked and
pinned, no proxy is used and no redirect to another host followed. The credentials are the secret's, or none: an
instance's own role is never asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from hone_api.dataset.source import S3
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.endpoints.http import Resolver, checked, connect, resolve, send_to
from hone_trainer.secrets import read_key, remember
from hone_trainer.store import hub

if TYPE_CHECKING:
    import urllib3

KEY, SECRET, SESSION = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
DENIED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
ABSENT = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
ELSEWHERE = {"301", "307", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}


@dataclass
class Carrier:
    """Sends boto3's requests: one pinned address a host."""

    network: AllowedNetwork
    until: float = math.inf
    resolver: Resolver = resolve
    at_once: int = 1
    """Requests at a time whose connections are used again."""
    _pools: dict[tuple[int, str, str], urllib3.HTTPConnectionPool] = field(default_factory=dict)
    """By process and host: a fork must not use the connections of its parent."""

    def __call__(self, request: Any, **_: Any) -> Any:
        """Handler of botocore's event before-send: the answer, so that botocore sends nothing itself."""
        from botocore.awsrequest import AWSResponse
        from botocore.exceptions import EndpointConnectionError

        url = checked(request.url, plain=self.network.plain(request.url))
        place = (os.getpid(), url.scheme, url.netloc)
        if place not in self._pools:
            self._pools[place] = connect(url, self.network, self.until, self.resolver, kept=self.at_once)
        headers = {k: v.decode() if isinstance(v, bytes) else v for k, v in request.headers.items()}
        try:
            response = send_to(self._pools[place], url, request.method, headers, request.body)
        except (HTTPError, OSError) as error:
            self._pools.clear()  # the host may have another address now
            raise EndpointConnectionError(endpoint_url=f"{url.scheme}://{url.netloc}", error=error) from None
        return AWSResponse(request.url, response.status, response.headers, response)


def client(place: S3 | None, keys: Mapping[str, str], carrier: Carrier) -> Any:
    """A client of boto3 whose requests the carrier sends.

    Args:
        place: endpoint and region; None: AWS.
        keys: see `credentials`; empty: anonymous.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        signature_version=None if keys else UNSIGNED,
        s3={"addressing_style": "path" if place and place.endpoint else "auto"},
        retries={"mode": "standard", "total_max_attempts": 4},
        ignore_configured_endpoint_urls=True,
        # Services other than AWS know no checksums of their own.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session_client = boto3.session.Session().client(
        "s3",
        region_name=place.region if place else "us-east-1",
        endpoint_url=place.endpoint if place else None,
        aws_access_key_id=keys.get(KEY),
        aws_secret_access_key=keys.get(SECRET),
        aws_session_token=keys.get(SESSION),
        config=config,
    )
    session_client.meta.events.register("before-send.s3", carrier)
    return session_client


def credentials(secret_path: str | None) -> dict[str, str]:
    """The keys of the mounted secret, else those of the environment (a person's laptop); empty: anonymous.

    Raises:
        SourceError: SecretNotFound or SecretKeyNotFound.
    """
    if secret_path is None:
        values = {name: os.environ.get(name, "") for name in (KEY, SECRET, SESSION)}
        values = values if values[KEY] and values[SECRET] else {}
    else:
        values = {name: hub.secret_key(secret_path, name) for name in (KEY, SECRET)}
        values[SESSION] = read_key(secret_path, SESSION) or ""
    for name in (SECRET, SESSION):
        if values.get(name):
            remember(values[name])
    return {name: value for name, value in values.items() if value}
