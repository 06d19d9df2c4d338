"""s3:// sources: AWS, or any service that speaks its API.

boto3 finds the address, signs, pages and reads the answers; `http.connect` carries every request: the address is
checked and pinned, no proxy is used and no redirect to another host followed. The credentials are the secret's, or
none: an instance's own role is never asked for.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from hone_api.failures import FailureCode
from hone_api.plan import Limits, MaterializePlan
from hone_trainer.endpoints.addresses import AllowedNetwork, network_of
from hone_trainer.endpoints.http import DISK_ERRORS, Resolver, checked, connect, resolve, send_to
from hone_trainer.errors import SourceError
from hone_trainer.secrets import read_key, remember
from hone_trainer.store import hub

if TYPE_CHECKING:
    import urllib3

KEY, SECRET, SESSION = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
_MAX_OBJECTS = 100_000
_CHUNK = 2**20
_DENIED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_ABSENT = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
_ELSEWHERE = {"301", "307", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}


@dataclass(frozen=True)
class Object:
    """One object: its key, size in bytes, and ETag by which a change is seen."""

    key: str
    size: int
    etag: str


@dataclass
class Carrier:
    """Sends boto3's requests: one pinned address a host."""

    network: AllowedNetwork
    until: float = math.inf
    resolver: Resolver = resolve
    _pools: dict[tuple[str, str], urllib3.HTTPConnectionPool] = field(default_factory=dict)

    def __call__(self, request: Any, **_: Any) -> Any:
        """Handler of botocore's event before-send: the answer, so that botocore sends nothing itself."""
        from botocore.awsrequest import AWSResponse
        from botocore.exceptions import EndpointConnectionError

        url = checked(request.url, plain=self.network.plain(request.url))
        place = (url.scheme, url.netloc)
        if place not in self._pools:
            self._pools[place] = connect(url, self.network, self.until, self.resolver)
        headers = {k: v.decode() if isinstance(v, bytes) else v for k, v in request.headers.items()}
        try:
            response = send_to(self._pools[place], url, request.method, headers, request.body)
        except (HTTPError, OSError) as error:
            raise EndpointConnectionError(endpoint_url=f"{url.scheme}://{url.netloc}", error=error) from None
        return AWSResponse(request.url, response.status, response.headers, response)


@dataclass(frozen=True)
class Bucket:
    """A bucket by its client."""

    client: Any
    name: str
    limits: Limits

    @classmethod
    def of(cls, plan: MaterializePlan, resolver: Resolver = resolve) -> Bucket:
        """The bucket of the plan's source.

        Raises:
            SourceError: SecretNotFound, SecretKeyNotFound.
        """
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        until = time.monotonic() + plan.limits.timeout_seconds
        place, keys = plan.source.s3, credentials(plan.secret_path)
        config = Config(
            signature_version=None if keys else UNSIGNED,
            s3={"addressing_style": "path" if place and place.endpoint else "auto"},
            retries={"mode": "standard", "total_max_attempts": 4},
            ignore_configured_endpoint_urls=True,
            # Services other than AWS know no checksums of their own.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = boto3.session.Session().client(
            "s3",
            region_name=place.region if place else "us-east-1",
            endpoint_url=place.endpoint if place else None,
            aws_access_key_id=keys.get(KEY),
            aws_secret_access_key=keys.get(SECRET),
            aws_session_token=keys.get(SESSION),
            config=config,
        )
        client.meta.events.register("before-send.s3", Carrier(network_of(plan), until, resolver))
        return cls(client, plan.source.uri.removeprefix("s3://").partition("/")[0], plan.limits)

    def list(self, path: str) -> dict[str, Object]:
        """The object of this key by its last name, or all below it by their names relative to it.

        Raises:
            SourceError: SourceNotFound, SourceUnreachable, SourceRefused, SourceTooLarge.
        """
        objects: dict[str, Object] = {}
        with _translated(f"s3://{self.name}/{path}"):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=path):
                for entry in page.get("Contents", ()):
                    one = Object(entry["Key"], entry["Size"], entry.get("ETag", ""))
                    if one.key == path and not path.endswith("/"):
                        return {path.rpartition("/")[2]: one}
                    name = one.key.removeprefix(path if not path or path.endswith("/") else f"{path}/")
                    if (name and name != one.key) or not path:
                        objects[name] = one
                if len(objects) > _MAX_OBJECTS:
                    raise SourceError(
                        FailureCode.SOURCE_TOO_LARGE, f"s3://{self.name}/{path} has over {_MAX_OBJECTS} objects"
                    )
        if not objects:
            raise SourceError(
                FailureCode.SOURCE_NOT_FOUND, f"s3://{self.name}/{path}: there is no such object or folder"
            )
        return {name: one for name, one in objects.items() if not name.endswith("/")}

    def download(self, one: Object, target: Path, deadline: float, progress: Callable[[int], None]) -> None:
        """The object as it was listed, to a file.

        Raises:
            SourceError: as `list`; SourceUnreachable when it has changed since.
        """
        what = f"s3://{self.name}/{one.key}"
        with _translated(what), open(target, "wb") as file:
            answer = self.client.get_object(Bucket=self.name, Key=one.key)
            if (answer["ContentLength"], answer.get("ETag", "")) != (one.size, one.etag):
                raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{what} changed while it was read")
            for chunk in answer["Body"].iter_chunks(_CHUNK):
                if time.monotonic() > deadline:
                    raise SourceError(
                        FailureCode.SOURCE_UNREACHABLE, f"{what} took longer than {self.limits.timeout_seconds} s"
                    )
                file.write(chunk)
                progress(len(chunk))


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


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Errors of boto3 as ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code, words = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        text = f"{what}: {code} {words}".strip()[:400]
        if code in _ABSENT:
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, text) from None
        if code in _DENIED:
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{text}: the credentials do not open it") from None
        if code in _ELSEWHERE:
            raise SourceError(
                FailureCode.SOURCE_NOT_FOUND, f"{text}: name the bucket's region in source.s3.region"
            ) from None
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, text) from None
    except (BotoCoreError, HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{what}: {error}"[:500]) from None
