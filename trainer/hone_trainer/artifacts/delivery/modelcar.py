"""An image with the files under /models, as KServe's modelcars have them.

A layer is a plain tar without times and owners, so equal files are equal layers: each file of weights is one, those of
the tokenizer are one, and the rest is one. A second version uploads only the layers that differ.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from hone_api.contract.manifest import MANIFEST, Entry
from hone_api.plan import DeliverPlan
from hone_trainer.artifacts.delivery import at_once
from hone_trainer.artifacts.delivery.base_image import LAYER_TYPE, BaseImage
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.artifacts.delivery.package import Blob, Descriptor, Package

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
BASE_NAME, BASE_DIGEST = "org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"
FOLDER = "models"
WEIGHTS = (".safetensors", ".gguf")
_TOKENIZER = ("token", "vocab", "merges", "special_tokens", "added_tokens", "chat_template")
_BLOCK = tarfile.BLOCKSIZE
EMPTY = BaseImage()


def package(plan: DeliverPlan, original: Original, base: BaseImage = EMPTY) -> Package:
    """The image. Reads every file, and compares it with the original's manifest.

    Args:
        base: whose layers are below those of the model.

    Raises:
        StoreError: ManifestMismatch, of the original.
    """
    # The registry compares the digest, which was made from checked bytes.
    own = at_once.each(_blob, layers(original))
    diff_ids = [*base.diff_ids, *(blob.descriptor["digest"] for blob in own)]  # ours are not compressed
    config: dict[str, object] = {"architecture": "amd64", "os": "linux", "config": base.settings or {}}
    config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    created = {"created": plan.created} if plan.created else {}
    named = {BASE_NAME: name, BASE_DIGEST: name.partition("@")[2]} if (name := plan.target.base_image) else {}
    return Package.of([*base.layers, *own], {**config, **created}, CONFIG_TYPE, plan.labels | named)


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

    def descriptor(self, check: at_once.Check) -> Descriptor:
        """Type, digest and size; reads every file, and compares it with the original's manifest."""
        hasher, size = hashlib.sha256(), 0
        for piece in self.bytes():
            check()
            hasher.update(piece)
            size += len(piece)
        return {"mediaType": LAYER_TYPE, "digest": f"sha256:{hasher.hexdigest()}", "size": size}


def layers(original: Original) -> list[Layer]:
    """The files in layers, those that change least first."""
    weights = [entry for entry in original.files if entry.path.endswith(WEIGHTS)]
    rest = [entry for entry in original.files if entry not in weights]
    tokenizer = tuple(entry for entry in rest if entry.path.startswith(_TOKENIZER))
    others = (*(entry for entry in rest if entry not in tokenizer), original.manifest_entry)
    groups = [tokenizer, *((entry,) for entry in weights), others]
    return [Layer(original, group) for group in groups if group]


def _blob(layer: Layer, check: at_once.Check) -> Blob:
    return Blob(layer.descriptor(check), partial(layer.bytes, checked=False))


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name.rstrip("/"))
    info.size, info.type, info.mode = size, kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: i + 1]) for i in range(len(parts)))
