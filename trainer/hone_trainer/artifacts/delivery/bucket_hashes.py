"""What an S3 server says of the bytes that it stored, and what it should say.

SHA-256 is asked for: the server compares what it received with the hash that is sent, refuses what differs (BadDigest),
keeps the hash and returns it. Servers that know no such checksums compare an MD5, and their ETag is one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHECKSUM = "ChecksumSHA256"


@dataclass(frozen=True)
class BodyHash:
    """One kind of hash, as requests and answers of S3 have it."""

    name: str
    new: Callable[[bytes], Any]
    header: str
    """The parameter that sends it."""
    answer: str
    """The field of an answer that has it."""
    written: Callable[[bytes], str]
    """A digest as that field has it."""
    begun_with: Mapping[str, str]
    """Parameters with which an upload in parts begins."""

    def of(self, content: bytes) -> bytes:
        """The digest of some bytes."""
        digest: bytes = self.new(content).digest()
        return digest

    def sent(self, digest: bytes) -> dict[str, str]:
        """Parameters of a request whose body has this digest."""
        return {self.header: base64.b64encode(digest).decode()}

    def stored_in(self, answer: Mapping[str, Any]) -> str:
        """What the server says; empty: nothing."""
        return str(answer.get(self.answer) or "").strip('"')

    def of_parts(self, digests: Sequence[bytes]) -> str:
        """What the server says of an object that was uploaded in parts of these digests."""
        return f"{self.written(self.of(b''.join(digests)))}-{len(digests)}"

    def of_part(self, number: int, etag: str, digest: bytes) -> dict[str, Any]:
        """A part in the list that completes an upload."""
        return {"PartNumber": number, "ETag": etag, **(self.sent(digest) if self.begun_with else {})}


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


SHA256 = BodyHash("SHA-256", hashlib.sha256, CHECKSUM, CHECKSUM, _base64, {"ChecksumAlgorithm": "SHA256"})
MD5 = BodyHash("MD5", lambda content: hashlib.md5(content, usedforsecurity=False), "ContentMD5", "ETag", bytes.hex, {})


def sign_hash_only(request: Any, **_: Any) -> None:
    """Handler of botocore's event before-sign: a body whose SHA-256 is among the signed headers is not hashed again."""
    from botocore.config import Config

    if "x-amz-checksum-sha256" in request.headers:
        request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
