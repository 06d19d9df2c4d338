"""s3:// targets: one object for each file, manifest.json last.

Each part is sent with its MD5, which the server compares, and the server's own hash of what it stored (the ETag) is
compared again. A server whose ETags are not MD5 hashes (e.g. with encryption by KMS) is read back instead.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from urllib3.exceptions import HTTPError

from hone_api.failures import FailureCode
from hone_api.manifest import MANIFEST, MAX_BYTES, Entry, manifest_digest
from hone_api.plan import DeliverPlan
from hone_api.report import DeliverResult
from hone_trainer.artifacts.delivery.original import CHUNK, Original
from hone_trainer.endpoints import s3
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.http import Resolver
from hone_trainer.errors import TrainerError

PART = 32 * 2**20
"""Bytes of a part, some of which are in memory. A file of more than `_MAX_PARTS` of them gets larger ones."""
_MAX_PARTS = 10_000
_AT_ONCE = 4
_FULL = {"507", "QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "EntityTooLarge"}
_DAMAGED = {"BadDigest", "InvalidDigest", "InvalidPart"}


@dataclass
class Prefix:
    """A folder in a bucket; sent counts the bytes of files that were uploaded."""

    client: Any
    bucket: str
    path: str
    progress: Callable[[int], None]
    sent: int = 0

    def key(self, path: str) -> str:
        """The key of a file."""
        return f"{self.path}/{path}"

    def present(self) -> dict[str, int]:
        """Sizes of the objects below the prefix, by path."""
        sizes: dict[str, int] = {}
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.path}/")
        for page in pages:
            sizes |= {o["Key"].removeprefix(f"{self.path}/"): o["Size"] for o in page.get("Contents", ())}
        return {path: size for path, size in sizes.items() if path}

    def etag(self, path: str) -> str:
        """The server's hash of an object."""
        return str(self.client.head_object(Bucket=self.bucket, Key=self.key(path)).get("ETag", "")).strip('"')


def deliver(
    plan: DeliverPlan, original: Original, progress: Callable[[int], None], until: float, resolver: Resolver
) -> DeliverResult:
    """Upload the folder to s3://bucket/path/<name>. Objects and parts of a killed upload are used again.

    Raises:
        TrainerError: Destination…, DeliveryDamaged, SecretNotFound, SecretKeyNotFound.
        StoreError: ManifestMismatch, of the original.
    """
    carrier = s3.Carrier(network_of(plan), until, resolver)
    client = s3.client(plan.target.s3, s3.credentials(plan.secret_path), carrier)
    bucket, _, path = plan.target.uri.removeprefix("s3://").partition("/")
    prefix = Prefix(client, bucket, f"{path.strip('/')}/{plan.name}".lstrip("/"), progress)
    location = f"s3://{bucket}/{prefix.path}"
    with _translated(location):
        _upload(prefix, original, location)
    return DeliverResult(
        location=location, digest=original.digest, size_bytes=original.size_bytes, uploaded_bytes=prefix.sent
    )


def _upload(prefix: Prefix, original: Original, location: str) -> None:
    present = prefix.present()
    if MANIFEST in present:
        body = prefix.client.get_object(Bucket=prefix.bucket, Key=prefix.key(MANIFEST))["Body"]
        if manifest_digest(body.read(MAX_BYTES)) != original.digest:
            raise TrainerError(FailureCode.DESTINATION_OCCUPIED, f"{location} has another {MANIFEST}: another model")
    if foreign := sorted(set(present) - {entry.path for entry in original.files} - {MANIFEST}):
        message = f"{location} has {len(foreign)} objects that the model does not have, e.g. {foreign[0]}"
        raise TrainerError(FailureCode.DESTINATION_OCCUPIED, message)
    for entry in original.files:
        if present.get(entry.path) != entry.size or not _is_there(prefix, original, entry):
            _put(prefix, original, entry)
    if MANIFEST not in present:
        text = original.manifest_bytes
        etag = _put_object(prefix, MANIFEST, text)
        _check(prefix, Entry(path=MANIFEST, size=len(text), sha256=original.digest.removeprefix("sha256:")), etag)


def _put(prefix: Prefix, original: Original, entry: Entry) -> None:
    if entry.size <= PART:
        etag = _put_object(prefix, entry.path, b"".join(original.read(entry)))
        prefix.progress(entry.size)
        prefix.sent += entry.size
    else:
        etag = _put_parts(prefix, original, entry)
    _check(prefix, entry, etag)


def _check(prefix: Prefix, entry: Entry, etag: str) -> None:
    """Compare what the server stored; what differs is removed."""
    if not _matches(prefix, entry, etag):
        prefix.client.delete_object(Bucket=prefix.bucket, Key=prefix.key(entry.path))
        raise TrainerError(FailureCode.DELIVERY_DAMAGED, f"{prefix.key(entry.path)} was stored with other content")


def _matches(prefix: Prefix, entry: Entry, etag: str) -> bool:
    """Whether the server's own hash of the object is this one; if not, whether its content read back is the file's."""
    if prefix.etag(entry.path) == etag:
        return True
    hasher = hashlib.sha256()
    for piece in prefix.client.get_object(Bucket=prefix.bucket, Key=prefix.key(entry.path))["Body"].iter_chunks(CHUNK):
        hasher.update(piece)
    return hasher.hexdigest() == entry.sha256


def _is_there(prefix: Prefix, original: Original, entry: Entry) -> bool:
    """Whether the object has the file's content."""
    if entry.size <= PART:
        return _matches(prefix, entry, _md5(b"".join(original.read(entry))).hexdigest())
    return _matches(prefix, entry, _of_parts([_md5(part).digest() for part in original.read(entry, _size(entry))]))


def _put_object(prefix: Prefix, path: str, content: bytes) -> str:
    """Returns the ETag that the object should have."""
    digest = _md5(content)
    prefix.client.put_object(
        Bucket=prefix.bucket, Key=prefix.key(path), Body=content, ContentMD5=base64.b64encode(digest.digest()).decode()
    )
    return str(digest.hexdigest())


def _put_parts(prefix: Prefix, original: Original, entry: Entry) -> str:
    """Upload a large file in parts; those that an earlier attempt sent are used. Returns the ETag of the whole."""
    place = {"Bucket": prefix.bucket, "Key": prefix.key(entry.path)}
    upload, stored = _begun(prefix, entry)
    sending: list[Future[_Part]] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for number, content in enumerate(original.read(entry, _size(entry)), start=1):
            if number > _AT_ONCE:
                sending[number - 1 - _AT_ONCE].result()  # so many parts are in memory at most
            target = {**place, "UploadId": upload, "PartNumber": number}
            sending.append(pool.submit(_put_part, prefix, target, content, stored.get(number)))
            prefix.progress(len(content))
    parts = [part.result() for part in sending]
    prefix.sent += sum(part.sent for part in parts)
    listed = [{"PartNumber": number, "ETag": part.etag} for number, part in enumerate(parts, start=1)]
    prefix.client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": listed})
    return _of_parts([part.digest for part in parts])


@dataclass(frozen=True)
class _Part:
    """A part that the server has: its MD5, its ETag, and the bytes that were sent."""

    digest: bytes
    etag: str
    sent: int


def _put_part(prefix: Prefix, place: dict[str, Any], content: bytes, known: str | None) -> _Part:
    """Upload a part, unless `known`, the MD5 of what the server has, is its own. Threads hash at the same time."""
    digest: bytes = _md5(content).digest()
    if known == digest.hex():
        return _Part(digest, f'"{known}"', 0)
    answer = prefix.client.upload_part(**place, Body=content, ContentMD5=base64.b64encode(digest).decode())
    return _Part(digest, str(answer["ETag"]), len(content))


def _begun(prefix: Prefix, entry: Entry) -> tuple[str, dict[int, str]]:
    """The upload that an earlier attempt began, with the MD5 of its parts by number; else a new one."""
    place = {"Bucket": prefix.bucket, "Key": prefix.key(entry.path)}
    listed = prefix.client.list_multipart_uploads(Bucket=prefix.bucket, Prefix=place["Key"]).get("Uploads", ())
    for upload in (u["UploadId"] for u in listed if u["Key"] == place["Key"]):
        pages = prefix.client.get_paginator("list_parts").paginate(**place, UploadId=upload)
        parts = {p["PartNumber"]: p["ETag"].strip('"') for page in pages for p in page.get("Parts", ())}
        return upload, parts
    return str(prefix.client.create_multipart_upload(**place)["UploadId"]), {}


def _size(entry: Entry) -> int:
    return max(PART, -(-entry.size // _MAX_PARTS))


def _md5(content: bytes) -> Any:
    return hashlib.md5(content, usedforsecurity=False)


def _of_parts(digests: Sequence[bytes]) -> str:
    """The ETag of an object that was uploaded in parts of these MD5 digests."""
    return f"{_md5(b''.join(digests)).hexdigest()}-{len(digests)}"


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Errors of boto3 as ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code, words = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        text = f"{what}: {code} {words}".strip()[:400]
        raise TrainerError(_code(code, status), text) from None
    except (BotoCoreError, HTTPError) as error:
        raise TrainerError(FailureCode.DESTINATION_UNREACHABLE, f"{what}: {error}"[:500]) from None


def _code(code: str, status: str) -> FailureCode:
    if code in s3.DENIED or status in ("401", "403"):
        return FailureCode.DESTINATION_DENIED
    if code in _FULL or status == "507":
        return FailureCode.DESTINATION_FULL
    if code in _DAMAGED:
        return FailureCode.DELIVERY_DAMAGED
    if code in s3.ELSEWHERE | s3.ABSENT or status.startswith("4"):
        return FailureCode.DESTINATION_REFUSED
    return FailureCode.DESTINATION_UNREACHABLE
