"""The container that compares every file of what a pod mounts with its record, before vLLM reads any of it.

A ModelVersion is immutable and has the digest of each folder's manifest, which the platform's signature covers as well:
files that match the digest are the ones that were evaluated, approved and signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hone_api.base.pod_image import PodImage
from hone_cli.reach.restricted import container_security


def verifier(image: PodImage, mounts: Iterable[tuple[Mapping[str, Any], str | None]]) -> list[dict[str, Any]]:
    """The init container; none if no record has the digest of a mounted folder.

    Args:
        mounts: mounts of vLLM, and the digest of manifest.json of each; None: its record has none.
    """
    recorded = [(mount, digest) for mount, digest in mounts if digest]
    if not recorded:
        return []
    folders = [word for mount, digest in recorded for word in ("--folder", f"{mount['mountPath']}={digest}")]
    return [container("verify", image, ["verify", *folders], [mount for mount, _ in recorded])]


def container(
    name: str, image: PodImage, command: Sequence[str], mounts: Sequence[Mapping[str, Any]], **fields: Any
) -> dict[str, Any]:
    """A container of the trainer's image next to vLLM, which needs no GPU and no rights."""
    return {
        "name": name,
        "image": image.image,
        "imagePullPolicy": image.image_pull_policy,
        "command": ["python", "-m", "hone_trainer", *command],
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "PYTHONUNBUFFERED", "value": "1"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": container_security(),
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
        **fields,
    }


def pull_secrets(image: PodImage) -> list[dict[str, str]]:
    """`imagePullSecrets` of a pod with such a container."""
    return [{"name": name} for name in image.image_pull_secrets]
