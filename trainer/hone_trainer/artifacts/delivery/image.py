"""oci:// targets: an image with the files under /models (KServe's modelcar), the manifest last.

A layer is a plain tar without times and owners, so equal files are equal layers: each file of weights is one, those of
the tokenizer are one, and the rest is one. A second version uploads only the layers that differ.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from hone_api.failures import FailureCode
from hone_api.manifest import BOM, MANIFEST, PROVENANCE, Entry
from hone_api.plan import DeliverPlan
from hone_api.report import DeliverResult
from hone_trainer.artifacts import describe
from hone_trainer.artifacts.delivery import attachments
from hone_trainer.artifacts.delivery.login import login_of
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.artifacts.delivery.registry import MANIFEST_TYPE, ImageRepository
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.http import Resolver
from hone_trainer.errors import TrainerError

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
FOLDER = "models"
_WEIGHTS = (".safetensors", ".gguf")
_TOKENIZER = ("token", "vocab", "merges", "special_tokens", "added_tokens", "chat_template")
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Layer:
    """A tar of some files; its bytes are made when they are sent, and never stored."""

    original: Original
    files: tuple[Entry, ...]

    def bytes(self, checked: bool = True) -> Iterator[bytes]:
        """The tar, the same at every call.

        Args:
            checked: whether files are compared with the original's manifest.

        Raises:
            StoreError: ManifestMismatch, of the original.
        """
        yield _header(f"{FOLDER}/", 0, tarfile.DIRTYPE)
        for folder in sorted({folder for entry in self.files for folder in _parents(entry.path)}):
            yield _header(f"{FOLDER}/{folder}/", 0, tarfile.DIRTYPE)
        for entry in self.files:
            yield _header(f"{FOLDER}/{entry.path}", entry.size)
            if entry.path == MANIFEST:
                yield self.original.manifest_bytes
            else:
                yield from self.original.read(entry) if checked else self.original.unchecked(entry)
            yield bytes(-entry.size % _BLOCK)
        yield bytes(2 * _BLOCK)

    def descriptor(self) -> dict[str, object]:
        """Type, digest and size; reads every file, and compares it with the original's manifest."""
        hasher, size = hashlib.sha256(), 0
        for piece in self.bytes():
            hasher.update(piece)
            size += len(piece)
        return {"mediaType": LAYER_TYPE, "digest": f"sha256:{hasher.hexdigest()}", "size": size}


def layers(original: Original) -> list[Layer]:
    """The files in layers, those that change least first."""
    own = Entry(path=MANIFEST, size=len(original.manifest_bytes), sha256=original.digest.removeprefix("sha256:"))
    weights = [entry for entry in original.files if entry.path.endswith(_WEIGHTS)]
    rest = [entry for entry in original.files if entry not in weights]
    tokenizer = tuple(entry for entry in rest if entry.path.startswith(_TOKENIZER))
    others = (*(entry for entry in rest if entry not in tokenizer), own)
    groups = [tokenizer, *((entry,) for entry in weights), others]
    return [Layer(original, group) for group in groups if group]


def deliver(
    plan: DeliverPlan, original: Original, progress: Callable[[int], None], until: float, resolver: Resolver
) -> DeliverResult:
    """Upload the layers that the repository lacks, then config and manifest.

    Raises:
        TrainerError: Destination…, DeliveryDamaged, SecretNotFound, SecretKeyNotFound.
        StoreError: ManifestMismatch, of the original.
    """
    host, _, path = plan.target.uri.removeprefix("oci://").partition("/")
    name, _, tag = path.partition(":")
    tag = tag or f"v{plan.version}"
    repository = ImageRepository(host, name, network_of(plan), login_of(plan.secret_path, host), until, resolver)
    existing = repository.manifest(tag)  # before the layers are sent: an occupied tag is refused at once
    parts = [(layer, layer.descriptor()) for layer in layers(original)]
    config = _config(plan, [str(descriptor["digest"]) for _, descriptor in parts])
    text = _manifest(plan, _descriptor(CONFIG_TYPE, config), [descriptor for _, descriptor in parts])
    digest = _digest(text)
    _check_free(repository, tag, existing, digest)
    sent = 0
    for layer, descriptor in parts:
        sent += _upload(repository, descriptor, partial(_counted, layer, progress))
    _upload(repository, _descriptor(CONFIG_TYPE, config), lambda: iter((config,)))
    existing = existing or _own(repository, tag, digest)  # the layers may have taken hours
    attachments.attach(repository, _descriptor(MANIFEST_TYPE, text), _attached(plan, f"{host}/{name}", digest))
    if not (existing or _own(repository, tag, digest)):  # a registry with immutable tags takes it once
        repository.put_manifest(tag, text)
    stored = repository.manifest(tag)
    if stored is None or stored[1] != text:
        raise TrainerError(FailureCode.DELIVERY_DAMAGED, f"{repository}:{tag} is not the manifest that was sent")
    return DeliverResult(
        location=f"oci://{host}/{name}@{digest}", digest=digest, size_bytes=original.size_bytes, uploaded_bytes=sent
    )


def _own(repository: ImageRepository, tag: str, digest: str) -> tuple[str, bytes] | None:
    """Our manifest under the tag; None while the tag is free. Raises TrainerError DestinationOccupied."""
    existing = repository.manifest(tag)
    _check_free(repository, tag, existing, digest)
    return existing


def _check_free(repository: ImageRepository, tag: str, existing: tuple[str, bytes] | None, digest: str) -> None:
    """Raises TrainerError DestinationOccupied if the tag is that of another image."""
    if existing is not None and _digest(existing[1]) != digest:
        raise TrainerError(FailureCode.DESTINATION_OCCUPIED, f"{repository}:{tag} is another image: {existing[0]}")


def _attached(plan: DeliverPlan, name: str, digest: str) -> list[attachments.Attachment]:
    """The statement about the image, and the bill of materials of its model."""
    documents = []
    if plan.provenance is not None:
        statement = describe.statement({name: digest.removeprefix("sha256:")}, plan.provenance)
        documents.append(attachments.Attachment("application/vnd.in-toto+json", PROVENANCE, statement))
    if plan.bom is not None:
        bill = describe.bill(describe.digests(plan.artifact), plan.bom)
        documents.append(attachments.Attachment("application/vnd.cyclonedx+json", BOM, bill))
    return documents


def _upload(repository: ImageRepository, descriptor: dict[str, object], content: Callable[[], Iterator[bytes]]) -> int:
    """Upload a blob, unless it is there. Returns the bytes sent."""
    digest, size = str(descriptor["digest"]), int(str(descriptor["size"]))
    if repository.size_of(digest) == size:
        return 0
    repository.upload(digest, size, content)
    return size


def _counted(layer: Layer, progress: Callable[[int], None]) -> Iterator[bytes]:
    for piece in layer.bytes(checked=False):  # the registry compares the digest, which was made from checked bytes
        yield piece
        progress(len(piece))


def _config(plan: DeliverPlan, diff_ids: list[str]) -> bytes:
    """The image's configuration; layers are not compressed, so their digests are their diff ids."""
    body = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return _encoded({**body, **({"created": plan.created} if plan.created else {})})


def _manifest(plan: DeliverPlan, config: dict[str, object], descriptors: list[dict[str, object]]) -> bytes:
    """The image's manifest: the same for the same version, so its digest is."""
    body = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": descriptors}
    return _encoded({**body, "annotations": plan.labels} if plan.labels else body)


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _encoded(body: dict[str, object]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name.rstrip("/"))
    info.size, info.type, info.mode = size, kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: i + 1]) for i in range(len(parts)))
