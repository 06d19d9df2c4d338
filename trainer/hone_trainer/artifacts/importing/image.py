"""oci:// sources: the files below /models of an image (KServe's modelcar), as deliveries and others write it.

What is in a layer is known when it was read. So opening an image unpacks it, next to where its files will be needed.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from hone_api.plan import ImportPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery.login import login_of
from hone_trainer.artifacts.delivery.modelcar import FOLDER
from hone_trainer.artifacts.delivery.registry import ImageRepository
from hone_trainer.artifacts.importing.incoming import incoming_of
from hone_trainer.artifacts.importing.zstd_layer import ZstdFile, is_zstd
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.http import Resolver
from hone_trainer.errors import SourceError, TrainerError
from hone_trainer.store.ranged import SLOWEST

_REFERENCE = re.compile(r"oci://(?P<host>[^/]+)/(?P<name>[^:@]+)(:(?P<tag>[^@]+))?(@(?P<digest>sha256:[0-9a-f]{64}))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UNPACKED = "image"
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LARGEST_HEADER = 2**20
_OF_THE_NAME = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST)
_BUFFER = 2**20
_AROUND = 2**24
"""Bytes of a tar besides the content of its files."""
_OF_SOURCE = {
    FailureCode.DESTINATION_UNREACHABLE: FailureCode.SOURCE_UNREACHABLE,
    FailureCode.DELIVERY_DAMAGED: FailureCode.SOURCE_UNREACHABLE,
    FailureCode.DESTINATION_DENIED: FailureCode.SOURCE_NOT_FOUND,
    FailureCode.DESTINATION_REFUSED: FailureCode.SOURCE_REFUSED,
}
"""The same failures of a registry that is read from."""


@dataclass(frozen=True)
class ImageOrigin:
    """The unpacked files of an image."""

    folder: Path
    digest: str

    @classmethod
    def open(cls, plan: ImportPlan, resolver: Resolver) -> ImageOrigin:
        """Raises SourceError: SourceUnreachable, SourceNotFound, SourceRefused, SourceTooLarge, UnsupportedModel,
        SecretNotFound, SecretKeyNotFound."""
        match = _REFERENCE.fullmatch(plan.source.uri)
        if match is None:
            raise SourceError(FailureCode.SOURCE_REFUSED, f"{plan.source.uri} is not oci://registry/repository[:tag]")
        host, limits = match["host"], plan.limits
        until = time.monotonic() + max(limits.timeout_seconds, limits.max_source_bytes / SLOWEST)
        login = login_of(plan.secret_path, host)
        repository = ImageRepository(host, match["name"], network_of(plan), login, until, resolver)
        with _translated():
            digest, layers = _layers(repository, match["digest"] or match["tag"] or "latest", plan.source.uri)
            _check_size(sum(int(layer["size"]) for layer in layers), plan)
            folder = incoming_of(plan, [digest]) / _UNPACKED
            folder.mkdir(parents=True, exist_ok=True)
            for layer in layers:
                _unpack(repository, layer, folder, plan)
        return cls(folder / FOLDER, digest)

    @property
    def sizes(self) -> Mapping[str, int]:
        return {p.relative_to(self.folder).as_posix(): p.stat().st_size for p in self.folder.rglob("*") if p.is_file()}

    @property
    def mark(self) -> Sequence[object]:
        return [self.digest]

    @property
    def commit(self) -> str | None:
        return self.digest

    def fetch(self, names: Sequence[str], folder: Path, progress: Callable[[int], None]) -> None:
        for name in names:
            if not (folder / name).is_file():
                try:
                    os.link(self.folder / name, folder / name)  # the next attempt looks for it in both places
                except OSError:
                    shutil.copyfile(self.folder / name, folder / name)
                progress((folder / name).stat().st_size)


def _layers(
    repository: ImageRepository, reference: str, uri: str, within: str = ""
) -> tuple[str, list[Mapping[str, Any]]]:
    """Digest and layers of an image; of an index, of its only image or that for linux/amd64.

    Args:
        within: the index that names it, if any.
    """
    answer = repository.manifest(reference)
    if answer is None:
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{uri}: the repository has no {reference}")
    digest = f"sha256:{hashlib.sha256(answer[1]).hexdigest()}"
    if reference.startswith("sha256:") and digest != reference:
        words = f"the registry answers {reference} with a manifest whose digest is {digest}"
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{uri}: {words}")
    try:
        body = json.loads(answer[1])
        if "manifests" not in body:
            layers = list(body["layers"])
            for layer in layers:
                if not _DIGEST.fullmatch(layer["digest"]) or type(layer["size"]) is not int or layer["size"] < 0:
                    raise ValueError(layer)
            return digest, layers
        images = list(body["manifests"])
        amd64 = [i for i in images if (i.get("platform") or {}).get("architecture") == "amd64"]
        chosen = [str(image["digest"]) for image in (amd64 if len(images) > 1 else images)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        words = f"{reference} is not a manifest of an image, nor an index of images"
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{uri}: {words}") from None
    if within or len(chosen) != 1:
        words = f"{reference} is an index of {len(images)} images: name one of them by @sha256:…"
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{uri}: {words}")
    return _layers(repository, chosen[0], uri, within=reference)


def _unpack(repository: ImageRepository, layer: Mapping[str, Any], folder: Path, plan: ImportPlan) -> None:
    """The files of a layer, unless an earlier attempt has unpacked it: it counts once its digest was right."""
    digest = str(layer["digest"])
    mark = folder / f".{digest.removeprefix('sha256:')}"
    if mark.is_file():
        return
    _unpack_tar(repository.download(digest, int(layer["size"])), layer, folder, plan)
    mark.touch()


@contextmanager
def _placed(name: str, plan: ImportPlan) -> Iterator[None]:
    """Raises SourceError SourceRefused if a file cannot have this name."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_NAME:
            raise
        words = f"{name[:200]} cannot be a file next to the others: {error.strerror}"
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{plan.source.uri}: {words}") from None


def _unpack_tar(pieces: Iterator[bytes], layer: Mapping[str, Any], folder: Path, plan: ImportPlan) -> None:
    media_type = str(layer.get("mediaType"))
    unpacked = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    packed = io.BufferedReader(_LayerFile(pieces), _BUFFER)
    stream: io.BufferedReader[Any] = packed
    if is_zstd(packed):
        most = plan.limits.max_source_bytes + _AROUND
        stream = io.BufferedReader(ZstdFile(packed, most, f"{plan.source.uri}: layer {layer['digest']}"), _BUFFER)
    try:
        with tarfile.open(fileobj=stream, mode="r|*", bufsize=_BUFFER, tarinfo=_Member) as tar:
            for member in tar:
                if path := _place(member, plan):
                    unpacked += member.size
                    _check_size(unpacked, plan)
                    with _placed(member.name, plan):
                        _write(tar, member, folder / path)
    except tarfile.TarError as error:
        words = f"layer {layer['digest']} of type {media_type} is not a tar, plain or packed by gzip or zstd: {error}"
        raise SourceError(FailureCode.UNSUPPORTED_MODEL, f"{plan.source.uri}: {words}") from None
    while packed.read(_BUFFER):
        pass  # to the end, where the digest is compared


def _place(member: tarfile.TarInfo, plan: ImportPlan) -> PurePosixPath | None:
    """The path of a file below /models; None: it is not a part of the model."""
    path = PurePosixPath(member.name.removeprefix("./").lstrip("/"))
    deletes = path.name.startswith(".wh.") and (len(path.parts) == 1 or path.parts[0] == FOLDER)
    if not deletes and (not path.parts or path.parts[0] != FOLDER or member.isdir()):
        return None
    if deletes or not member.isfile() or member.issparse() or member.size < 0 or ".." in path.parts:
        words = f"{member.name[:200]} is not a plain file below /{FOLDER}: pack files, without links and deletions"
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{plan.source.uri}: {words}")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None
    with open(target, "wb") as file:
        shutil.copyfileobj(content, file, _BUFFER)


def _check_size(size: int, plan: ImportPlan) -> None:
    if size > plan.limits.max_source_bytes:
        message = f"{plan.source.uri}: {size} bytes, limit {plan.limits.max_source_bytes}"
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, message)


class _Member(tarfile.TarInfo):
    """An entry of a layer. The headers with long names and further fields are read whole, so they must be small."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADERS and not 0 <= member.size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member


@contextmanager
def _translated() -> Iterator[None]:
    """Failures of a registry as those of a source."""
    try:
        yield
    except SourceError:
        raise
    except TrainerError as error:
        code = _OF_SOURCE.get(error.code)
        if code is None:
            raise
        raise SourceError(code, error.message) from None


class _LayerFile(io.RawIOBase):
    """A file of pieces of bytes, for tarfile."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
