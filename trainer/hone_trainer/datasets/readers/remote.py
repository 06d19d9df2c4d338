"""Files of a source that are read where they are: an S3 bucket, a hub, a web server. Each is opened as a seekable file.

An origin can be pickled: it holds the plan, and reads credentials where a file is opened.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.readers import s3
from hone_trainer.endpoints import http
from hone_trainer.store import hub
from hone_trainer.store.ranged import RangedFile

_BUFFER = 64 * 2**10


class OriginFiles:
    """Where the files of a plan's source are.

    Args:
        what: the source, for messages.
    """

    def __init__(self, plan: MaterializePlan, what: str) -> None:
        self._plan, self._what = plan, what

    def __getstate__(self) -> dict[str, Any]:
        return {"_plan": self._plan, "_what": self._what}  # a client stays in its process

    def open(self, name: str, key: Any, end: int | None = None) -> io.BufferedReader[Any]:
        """The bytes of a file; those from `end` on are not read ahead.

        Args:
            key: what the origin needs to know of it, with its size.

        Raises:
            SourceError: while reading: SourceUnreachable when the server does not answer, or the file has changed.
        """
        seconds, what = self._plan.limits.timeout_seconds, f"{self._what}: {name}"
        return io.BufferedReader(RangedFile(what, key.size, partial(self.get, key), seconds, end), _BUFFER)

    def get(self, key: Any, begin: int, end: int, seconds: float) -> Iterator[bytes]:
        """Bytes of a file, as `ranged.Get`."""
        raise NotImplementedError


class WebFile(OriginFiles):
    """One file; its key is what the server said of it."""

    @cached_property
    def client(self) -> http.Client:
        """Raises SourceError: SecretNotFound, SecretKeyNotFound."""
        secret = self._plan.secret_path
        return http.Client(self._plan.limits, hub.secret_key(secret, "AUTHORIZATION") if secret else None)

    def get(self, key: http.Ranged, begin: int, end: int, seconds: float) -> Iterator[bytes]:
        return self.client.read(self._plan.source.uri, key, begin, end, seconds)


class BucketFiles(OriginFiles):
    """Objects; a key is what was listed of one."""

    @cached_property
    def bucket(self) -> s3.Bucket:
        """Raises SourceError: SecretNotFound, SecretKeyNotFound."""
        return s3.Bucket.of(self._plan)

    def get(self, key: s3.Object, begin: int, end: int, seconds: float) -> Iterator[bytes]:
        return self.bucket.read(key, begin, end, seconds)


class HubFiles(OriginFiles):
    """Files of a commit; a key is what the hub listed of one."""

    @cached_property
    def repository(self) -> hub.Repository:
        """Raises SourceError: SecretNotFound, SecretKeyNotFound."""
        return hub.Repository.parse(self._plan.source.uri, "dataset", hub.token_of(self._plan.secret_path))

    def get(self, key: hub.ListedFile, begin: int, end: int, seconds: float) -> Iterator[bytes]:
        return hub.read(self.repository, key, begin, end, seconds)
