"""The image below a modelcar: layers with a shell, which KServe runs. It is in the same registry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery.package import Blob, digest_of
from hone_trainer.artifacts.delivery.registry import ImageRepository
from hone_trainer.errors import TrainerError

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
_TYPES = {
    LAYER_TYPE: LAYER_TYPE,
    f"{LAYER_TYPE}+gzip": f"{LAYER_TYPE}+gzip",
    f"{LAYER_TYPE}+zstd": f"{LAYER_TYPE}+zstd",
    _DOCKER: LAYER_TYPE,
    f"{_DOCKER}.gzip": f"{LAYER_TYPE}+gzip",
}
"""Of layers, and as a manifest of OCI has them."""
_KEPT = ("Env", "User", "WorkingDir")
"""Settings that stay. KServe gives arguments alone, so an entrypoint would get them in place of the shell."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_OF_A_CONFIG = 4 * 2**20


@dataclass(frozen=True)
class BaseImage:
    """Layers for linux/amd64, their diff ids, and settings of the container."""

    layers: Sequence[Blob] = ()
    diff_ids: Sequence[str] = ()
    settings: Mapping[str, object] | None = None

    @classmethod
    def read(cls, repository: ImageRepository, digest: str) -> BaseImage:
        """The image of this digest.

        Raises:
            TrainerError: Destination…, DeliveryDamaged; DestinationRefused, also if it is not an image.
        """
        body = _manifest(repository, digest)
        with _understood(repository, digest):
            if "manifests" in body:
                images = [entry for entry in body["manifests"] if _is_amd64(entry.get("platform") or {})]
                body = _manifest(repository, str(images[0]["digest"]))
            size = body["config"]["size"]
            if not 0 < size <= _MOST_OF_A_CONFIG:
                raise ValueError(size)
            config = json.loads(b"".join(repository.download(_checked(body["config"]["digest"]), size)))
            layers = [_layer(repository, layer) for layer in body["layers"]]
            diff_ids = [_checked(diff_id) for diff_id in config["rootfs"]["diff_ids"]]
            if len(diff_ids) != len(layers) or not _is_amd64(config):
                raise ValueError(config)
            own = config.get("config") or {}
            return cls(layers, diff_ids, {name: own[name] for name in _KEPT if own.get(name)})


def _manifest(repository: ImageRepository, digest: str) -> Any:
    answer = repository.manifest(digest)
    if answer is None:
        raise _refused(repository, digest, "the repository has no such image")
    with _understood(repository, digest):
        if digest_of(answer[1]) != digest:
            raise ValueError(answer[0])
        return json.loads(answer[1])


def _layer(repository: ImageRepository, layer: Mapping[str, Any]) -> Blob:
    digest, size = _checked(layer["digest"]), int(layer["size"])
    descriptor = {"mediaType": _TYPES[layer["mediaType"]], "digest": digest, "size": size}
    return Blob(descriptor, partial(repository.download, digest, size))


def _checked(digest: Any) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(digest)
    return str(digest)


def _is_amd64(platform: Mapping[str, Any]) -> bool:
    return (platform.get("os"), platform.get("architecture")) == ("linux", "amd64")


@contextmanager
def _understood(repository: ImageRepository, digest: str) -> Iterator[None]:
    """Raises TrainerError DestinationRefused where an answer is not that of an image."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise _refused(repository, digest, "it is not an image for linux/amd64, of plain or compressed tars") from None


def _refused(repository: ImageRepository, digest: str, why: str) -> TrainerError:
    return TrainerError(FailureCode.DESTINATION_REFUSED, f"baseImage {repository}@{digest}: {why}")
