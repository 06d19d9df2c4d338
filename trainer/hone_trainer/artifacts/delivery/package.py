"""What an oci:// delivery writes: blobs, a config and a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hone_trainer.artifacts.delivery.registry import MANIFEST_TYPE

Descriptor = Mapping[str, object]


@dataclass(frozen=True)
class Blob:
    """One layer: its descriptor, and its bytes, which are the same at every call."""

    descriptor: Descriptor
    content: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Package:
    """Everything that is uploaded, the manifest last. Equal originals and plans make equal packages."""

    layers: Sequence[Blob]
    config: bytes
    config_type: str
    manifest: bytes

    @classmethod
    def of(
        cls,
        layers: Sequence[Blob],
        config: Mapping[str, object],
        config_type: str,
        annotations: Mapping[str, str],
    ) -> Package:
        """The package with the manifest that lists config and layers."""
        text = encoded(config)
        body = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": described(config_type, text),
            "layers": [layer.descriptor for layer in layers],
        }
        return cls(layers, text, config_type, encoded({**body, "annotations": annotations} if annotations else body))


def described(media_type: str, content: bytes) -> Descriptor:
    """Type, digest and size of a blob or manifest."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def digest_of(content: bytes) -> str:
    """'sha256:' and the SHA-256."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def encoded(body: Mapping[str, object]) -> bytes:
    """JSON whose bytes depend only on what it says."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
