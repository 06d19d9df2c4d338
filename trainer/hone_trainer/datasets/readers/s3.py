"""s3:// sources: AWS, or any service that speaks its API; see `endpoints.s3`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from urllib3.exceptions import HTTPError

from hone_api.plan import Limits, MaterializePlan
from hone_api.words.failures import FailureCode
from hone_trainer.endpoints import s3
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.http import DISK_ERRORS, Resolver, resolve
from hone_trainer.endpoints.s3 import ABSENT, DENIED, ELSEWHERE, Carrier, credentials
from hone_trainer.errors import SourceError
from hone_trainer.store.ranged import BUSY, BrokenOffError, RangedFile, changed, check_range

_MAX_OBJECTS = 2_000_000
_CHUNK = 2**20


class Object(NamedTuple):
    """One object: its key, size in bytes, and ETag by which a change is seen."""

    key: str
    size: int
    etag: str


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
        carrier = Carrier(network_of(plan), resolver=resolver)
        client = s3.client(plan.source.s3, credentials(plan.secret_path), carrier)
        return cls(client, plan.source.uri.removeprefix("s3://").partition("/")[0], plan.limits)

    def list(self, path: str) -> dict[str, Object]:
        """The object of this key by its last name, or all below it by their names relative to it.

        Raises:
            SourceError: SourceNotFound, SourceUnreachable, SourceRefused, SourceTooLarge.
        """
        objects: dict[str, Object] = {}
        until = time.monotonic() + self.limits.timeout_seconds
        with _translated(f"s3://{self.name}/{path}"):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=path):
                for entry in page.get("Contents", ()):
                    one = Object(entry["Key"], entry["Size"], entry.get("ETag", ""))
                    if one.key == path and not path.endswith("/"):
                        return {path.rpartition("/")[2]: one}
                    name = one.key.removeprefix(path if not path or path.endswith("/") else f"{path}/")
                    if (name and name != one.key) or not path:
                        objects[name] = one
                if time.monotonic() > until:
                    why = f"its listing took longer than {self.limits.timeout_seconds} s"
                    raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"s3://{self.name}/{path}: {why}")
                if len(objects) > _MAX_OBJECTS:
                    raise SourceError(
                        FailureCode.SOURCE_TOO_LARGE, f"s3://{self.name}/{path} has over {_MAX_OBJECTS} objects"
                    )
        if not objects:
            raise SourceError(
                FailureCode.SOURCE_NOT_FOUND, f"s3://{self.name}/{path}: there is no such object or folder"
            )
        return {name: one for name, one in objects.items() if not name.endswith("/")}

    def read(self, one: Object, begin: int, end: int, seconds: float) -> Iterator[bytes]:
        """The bytes [begin, end) of the object as it was listed, as they come.

        Raises:
            BrokenOffError: another try may get the rest.
            SourceError: as `list`; SourceUnreachable when it has changed since.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        what, until = f"s3://{self.name}/{one.key}", time.monotonic() + seconds
        with _translated(what):
            try:
                bounds = f"bytes={begin}-{end - 1}"
                same = {"IfMatch": one.etag} if one.etag else {}
                answer = self.client.get_object(Bucket=self.name, Key=one.key, Range=bounds, **same)
                if answer.get("ETag", "") != one.etag:
                    raise changed(what)
                check_range(what, {"Content-Range": answer.get("ContentRange", "")}, begin, one.size)
                for chunk in answer["Body"].iter_chunks(_CHUNK):
                    yield chunk
                    if time.monotonic() > until:
                        raise BrokenOffError(f"it took longer than {seconds:.0f} s")
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status in (412, 416):
                    raise changed(what) from None
                if status not in BUSY:
                    raise
                headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
                raise BrokenOffError(error, headers.get("retry-after")) from None
            except (BotoCoreError, HTTPError, OSError) as error:
                raise BrokenOffError(error) from None

    def download(self, one: Object, target: Path, deadline: float, progress: Callable[[int], None]) -> None:
        """The object as it was listed, to a file.

        Raises:
            SourceError: as `list`; SourceUnreachable when it has changed since.
        """
        what = f"s3://{self.name}/{one.key}"
        seconds = deadline - time.monotonic()
        source = RangedFile(what, one.size, partial(self.read, one), seconds)
        with open(target, "wb") as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)
                progress(len(chunk))


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Errors of boto3 as ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code, words = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        text = f"{what}: {code} {words}".strip()[:400]
        if code in ABSENT:
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, text) from None
        if code in DENIED:
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{text}: the credentials do not open it") from None
        if code in ELSEWHERE:
            raise SourceError(
                FailureCode.SOURCE_NOT_FOUND, f"{text}: name the bucket's region in source.s3.region"
            ) from None
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, text) from None
    except (BotoCoreError, HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{what}: {error}"[:500]) from None
