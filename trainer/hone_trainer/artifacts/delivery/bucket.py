"""s3:// targets: one object for each file, manifest.json last.

Each file is compared with its manifest while it is read. Each part is sent with its SHA-256, which the server compares
with what it received, and the hash that the server returns is compared again. What a server returns no hash of is read
back.

boto3's transfer manager (s3transfer 0.19) is not used: it continues no upload that another process began, so after a
kill it would send a large file whole again.

An object that is not there yet is written on the condition that it is still absent, so of two deliveries to one place
neither overwrites the other. A server that knows no such condition is asked without it.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from urllib3.exceptions import HTTPError

from hone_api.contract.manifest import MANIFEST, MAX_BYTES, Entry, manifest_digest
from hone_api.contract.report import DeliverResult
from hone_api.plan import DeliverPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery.capacity import is_full
from hone_trainer.artifacts.delivery.original import CHUNK, Original
from hone_trainer.endpoints import s3
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.http import Resolver
from hone_trainer.errors import TrainerError

log = logging.getLogger(__name__)
PART = 32 * 2**20
"""Bytes of a part; several parts are in memory at a time. A file of more than `_MAX_PARTS` of them gets larger ones."""
_MAX_PARTS = 10_000
_AT_ONCE = 4
_UNKNOWN = {"NotImplemented", "501", "InvalidRequest", "InvalidArgument"}
"""Codes of servers that do not take a condition, or a SHA-256."""
_TAKEN = {"PreconditionFailed", "412"}
_AGAIN = {"ConditionalRequestConflict", "NoSuchUpload"}
"""Codes if somebody else writes the object at the same time, or has completed the same upload."""
_HASH = "ChecksumSHA256"
"""The SHA-256 of a body in requests and answers, in base64."""
_DAMAGED = {"BadDigest", "InvalidDigest", "InvalidPart"}


@dataclass
class Prefix:
    """A folder in a bucket; sent counts the bytes of files that were uploaded."""

    client: Any
    bucket: str
    path: str
    progress: Callable[[int], None]
    sent: int = 0
    conditional: bool = True
    """Whether a new object is written only while it is absent."""

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

    def state(self, path: str) -> Mapping[str, Any]:
        """What the server says of an object, its hashes included."""
        answer: Mapping[str, Any] = self.client.head_object(
            Bucket=self.bucket, Key=self.key(path), ChecksumMode="ENABLED"
        )
        return answer

    def without_condition(self, code: str) -> None:
        """The server has shown that it does not know If-None-Match."""
        self.conditional = False
        words = "the server knows no If-None-Match (%s): a delivery to this place at the same time is not noticed"
        log.warning(f"s3://%s: {words}", self.bucket, code)


def deliver(
    plan: DeliverPlan, original: Original, progress: Callable[[int], None], until: float, resolver: Resolver
) -> DeliverResult:
    """Upload the folder to s3://bucket/path/<name>. Objects and parts of a killed upload are used again.

    Raises:
        TrainerError: Destination…, DeliveryDamaged, SecretNotFound, SecretKeyNotFound.
        StoreError: ManifestMismatch, of the original.
    """
    carrier = s3.Carrier(network_of(plan), until, resolver, at_once=_AT_ONCE)
    client = s3.client(plan.target.s3, s3.credentials(plan.secret_path), carrier)
    client.meta.events.register("before-sign.s3", _sign_hash_only)
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
    intact = {entry.path for entry in original.files if _is_intact(prefix, original, entry, present)}
    if MANIFEST not in present:
        _check_own(original, present, intact, location)
    for entry in original.files:
        if entry.path in intact:
            prefix.progress(entry.size)
        else:
            _put(prefix, original, entry, is_new=entry.path not in present)
    if MANIFEST not in present:
        text = original.manifest_bytes
        own = Entry(path=MANIFEST, size=len(text), sha256=original.digest.removeprefix("sha256:"))
        _put_object(prefix, own, text, is_new=True)


def _check_own(original: Original, present: Mapping[str, int], intact: set[str], location: str) -> None:
    """Raises TrainerError DestinationOccupied if an object without our manifest is not one of a killed upload of ours.

    Objects are atomic, so those of ours are whole. Only the model may have been signed again since: the signature is
    sent after all other files.
    """
    listed = {entry.path for entry in original.files if entry not in original.added}
    replaceable = set() if listed - intact else {entry.path for entry in original.added}
    if foreign := sorted(set(present) - intact - replaceable):
        message = f"{location} has no {MANIFEST}, and objects with other content than the model's, e.g. {foreign[0]}"
        raise TrainerError(FailureCode.DESTINATION_OCCUPIED, message)


def _put(prefix: Prefix, original: Original, entry: Entry, is_new: bool) -> None:
    if entry.size <= PART:
        _put_object(prefix, entry, b"".join(original.read(entry)), is_new)
        prefix.progress(entry.size)
        prefix.sent += entry.size
    else:
        _put_parts(prefix, original, entry, is_new)


def _is_intact(prefix: Prefix, original: Original, entry: Entry, present: Mapping[str, int]) -> bool:
    """Whether there is an object with the file's content."""
    if present.get(entry.path) != entry.size:
        return False
    stored = prefix.state(entry.path).get(_HASH)
    if stored and entry.size > PART:
        expected = _of_parts([hashlib.sha256(part).digest() for part in original.read(entry, _size(entry))])
    else:
        expected = _written(bytes.fromhex(entry.sha256))
    return stored == expected or _reads_back(prefix, entry)


def _written(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _of_parts(digests: Sequence[bytes]) -> str:
    """What a server says of an object that was uploaded in parts of these digests."""
    return f"{_written(hashlib.sha256(b''.join(digests)).digest())}-{len(digests)}"


def _check(prefix: Prefix, entry: Entry, answer: Mapping[str, Any], expected: str) -> None:
    """Compare what the server stored; what differs is removed."""
    if answer.get(_HASH) != expected and not _reads_back(prefix, entry):
        prefix.client.delete_object(Bucket=prefix.bucket, Key=prefix.key(entry.path))
        raise TrainerError(FailureCode.DELIVERY_DAMAGED, f"{prefix.key(entry.path)} was stored with other content")


def _reads_back(prefix: Prefix, entry: Entry) -> bool:
    """Whether the object's content, read from the server, is the file's."""
    hasher = hashlib.sha256()
    for piece in prefix.client.get_object(Bucket=prefix.bucket, Key=prefix.key(entry.path))["Body"].iter_chunks(CHUNK):
        hasher.update(piece)
    return hasher.hexdigest() == entry.sha256


def _put_object(prefix: Prefix, entry: Entry, content: bytes, is_new: bool) -> None:
    """Upload a file that was read and compared with the manifest, so its SHA-256 is known."""
    sha256 = _written(bytes.fromhex(entry.sha256))
    place = {"Bucket": prefix.bucket, "Key": prefix.key(entry.path)}
    answer = _if_absent(
        prefix, entry, partial(prefix.client.put_object, **place, Body=content, **{_HASH: sha256}), is_new
    )
    if answer is not None:
        _check(prefix, entry, answer, sha256)


def _if_absent(
    prefix: Prefix, entry: Entry, write: Callable[..., Mapping[str, Any]], is_new: bool
) -> Mapping[str, Any] | None:
    """The answer to a write, of a new object only while it is absent; None: it is there with the file's content, e.g.
    because an answer was lost.

    Raises:
        TrainerError: DestinationOccupied, if somebody else has written it meanwhile.
    """
    from botocore.exceptions import ClientError

    if not (is_new and prefix.conditional):
        return write()
    try:
        return write(IfNoneMatch="*")
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        if code in _UNKNOWN:
            prefix.without_condition(code)
            return write()
        if code not in _TAKEN:
            raise
    if not _reads_back(prefix, entry):
        place = f"s3://{prefix.bucket}/{prefix.key(entry.path)}"
        raise TrainerError(FailureCode.DESTINATION_OCCUPIED, f"{place} was written by somebody else at the same time")
    return None


def _put_parts(prefix: Prefix, original: Original, entry: Entry, is_new: bool) -> None:
    """Upload a large file in parts; those that an earlier attempt sent are used."""
    place = {"Bucket": prefix.bucket, "Key": prefix.key(entry.path)}
    begun = _begun(prefix, entry)
    sending: list[Future[_Part]] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for number, content in enumerate(original.read(entry, _size(entry)), start=1):
            if number > _AT_ONCE:
                sending[number - 1 - _AT_ONCE].result()  # so many parts are in memory at most
            target = {**place, "UploadId": begun.upload, "PartNumber": number}
            sending.append(pool.submit(_put_part, prefix, begun, target, content))
            prefix.progress(len(content))
    parts = [part.result() for part in sending]
    prefix.sent += sum(part.sent for part in parts)
    listed = [{"PartNumber": number, **part.stored} for number, part in enumerate(parts, start=1)]
    place["UploadId"] = begun.upload
    complete = partial(prefix.client.complete_multipart_upload, **place, MultipartUpload={"Parts": listed})
    try:
        answer = _if_absent(prefix, entry, complete, is_new)
    except TrainerError:
        _abort(prefix, place)
        raise
    if answer is None:
        _abort(prefix, place)
    else:
        _check(prefix, entry, answer, _of_parts([part.digest for part in parts]))


def _abort(prefix: Prefix, upload: Mapping[str, Any]) -> None:
    """Let the server forget the parts of an upload that is not needed; one that cannot be aborted harms nobody."""
    from botocore.exceptions import ClientError

    with suppress(ClientError):
        prefix.client.abort_multipart_upload(**upload)


@dataclass(frozen=True)
class _Begun:
    """An upload in parts; stored has what the server says of the parts that it has, by number."""

    upload: str
    stored: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class _Part:
    """A part that the server has: its digest, what the server says of it, and the bytes that were sent."""

    digest: bytes
    stored: Mapping[str, str]
    sent: int

    @classmethod
    def of(cls, digest: bytes, answer: Mapping[str, Any], sent: int) -> _Part:
        """The part that an answer is about; a server that knows no hash refuses a list that has one."""
        return cls(digest, {name: str(answer[name]) for name in ("ETag", _HASH) if answer.get(name)}, sent)


def _put_part(prefix: Prefix, begun: _Begun, place: dict[str, Any], content: bytes) -> _Part:
    """Upload a part, unless the server has it. Threads hash at the same time."""
    digest = hashlib.sha256(content).digest()
    stored = begun.stored.get(place["PartNumber"], {})
    if stored.get(_HASH) == _written(digest):
        return _Part.of(digest, stored, 0)
    answer = prefix.client.upload_part(**place, Body=content, **{_HASH: _written(digest)})
    return _Part.of(digest, answer, len(content))


def _begun(prefix: Prefix, entry: Entry) -> _Begun:
    """The upload that an earlier attempt began; else a new one. One without SHA-256 cannot be continued."""
    place = {"Bucket": prefix.bucket, "Key": prefix.key(entry.path)}
    listed = prefix.client.list_multipart_uploads(Bucket=prefix.bucket, Prefix=place["Key"]).get("Uploads", ())
    for upload in (u for u in listed if u["Key"] == place["Key"]):
        if upload.get("ChecksumAlgorithm") != "SHA256":
            _abort(prefix, {**place, "UploadId": upload["UploadId"]})
            continue
        pages = prefix.client.get_paginator("list_parts").paginate(**place, UploadId=upload["UploadId"])
        stored = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        return _Begun(upload["UploadId"], stored)
    answer = prefix.client.create_multipart_upload(**place, ChecksumAlgorithm="SHA256")
    return _Begun(str(answer["UploadId"]), {})


def _sign_hash_only(request: Any, **_: Any) -> None:
    """Handler of botocore's event before-sign: a body whose SHA-256 is among the signed headers is not hashed again."""
    from botocore.config import Config

    if "x-amz-checksum-sha256" in request.headers:
        request.context["client_config"] = Config(s3={"payload_signing_enabled": False})


def _size(entry: Entry) -> int:
    return max(PART, -(-entry.size // _MAX_PARTS))


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
        raise TrainerError(_code(code, status, words), text) from None
    except (BotoCoreError, HTTPError) as error:
        raise TrainerError(FailureCode.DESTINATION_UNREACHABLE, f"{what}: {error}"[:500]) from None


def _code(code: str, status: str, words: str) -> FailureCode:
    if is_full(int(status or 0), code, words):
        return FailureCode.DESTINATION_FULL
    if code in s3.DENIED or status in ("401", "403"):
        return FailureCode.DESTINATION_DENIED
    if code in _DAMAGED:
        return FailureCode.DELIVERY_DAMAGED
    if code not in _AGAIN and (code in s3.ELSEWHERE | s3.ABSENT | _UNKNOWN or status.startswith("4")):
        return FailureCode.DESTINATION_REFUSED
    return FailureCode.DESTINATION_UNREACHABLE
