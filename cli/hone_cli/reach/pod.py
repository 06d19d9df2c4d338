"""The pods that people start next to the store, from a fixed template.

They are started with the person's own rights. So no part of them may come from an object that a tenant can write: image
and registry secrets come from a status, which only the operator writes; so does a review's claim. A download's claim is
in the immutable record of the model. The rest is constant here.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hone_api.base.pod_image import DownloadPod, PodImage
from hone_api.dataset.synthesis import REVIEW, ReviewPod
from hone_cli.errors import CommandError
from hone_cli.reach.restricted import container_security, pod_security

if TYPE_CHECKING:
    from hone_api.kinds.modelversion import Artifact  # what it imports is most of the time in which a review starts
    from hone_cli.reach.incoming import Incoming

DIGEST_ENV, REVIEWER_ENV = "HONE_REVIEW_TOKEN_SHA256", "HONE_REVIEWER"
PORT = 8080
LISTENING = "The pod listens."
"""The line in the pod's log once it serves."""
BATCH, FILES, BASE, ROWS = "/batch", "/files", "/base", "/rows"
ROWS_FOLDER, REPORT_FOLDER = "rows", "report"
STORE, SCRATCH = "store", "tmp"
_SECONDS = 12 * 3600
"""Time limit of a pod that the person's machine could not delete."""


@dataclass(frozen=True)
class Room:
    """What a pod that loads a model needs."""

    gpus: int
    memory: str
    """A Kubernetes quantity."""


@dataclass(frozen=True)
class _Purpose:
    """What a pod next to the store is for."""

    component: str
    """Name of its container, part of its name, and value of its label."""
    command: tuple[str, ...]
    mounts: tuple[tuple[str, Mapping[str, Any]], ...]
    """Claim, and where the store or a part of it appears."""
    env: Mapping[str, str]
    room: Room | None = None


def review_pod(dataset: Mapping[str, Any], token_digest: str, reviewer: str) -> dict[str, Any]:
    """A pod that serves one batch on its own loopback: only a port-forward reaches it. It mounts nothing else of the
    store.

    Args:
        token_digest: from `guard.digest`. Whoever may read pods can read it, but cannot derive the token from it.
        reviewer: the signature of the decisions.

    Raises:
        CommandError: no rows are generated yet, or the status does not say what to start.
    """
    folder, platform = _batch_folder(dataset), _platform(dataset)
    purpose = _Purpose(
        component="review",
        command=("dataset", "serve-review", BATCH),
        mounts=((platform.claim, {"mountPath": BATCH, "subPath": folder}),),
        env={DIGEST_ENV: token_digest, REVIEWER_ENV: reviewer},
    )
    return _pod(dataset, "Dataset", purpose, platform)


def rows_pod(dataset: Mapping[str, Any], token_digest: str) -> dict[str, Any]:
    """A pod that serves the rows of a Dataset and its report on its own loopback. It mounts those folders alone,
    read-only: ROWS_FOLDER and REPORT_FOLDER below what it serves.

    Args:
        dataset: a Dataset whose rows were read, also if they were refused.
        token_digest: see `review_pod`.

    Raises:
        CommandError: nothing was read yet, or the status does not say what to start.
    """
    name, status, platform = dataset["metadata"]["name"], dataset.get("status") or {}, _platform(dataset)
    places = {ROWS_FOLDER: status.get("uri"), REPORT_FOLDER: (status.get("report") or "").rpartition("/")[0]}
    form = rf"pvc://{re.escape(platform.claim)}/((datasets/[0-9a-f]{{64}})|(reports/{re.escape(name)}))"
    mounts = []
    for folder, place in places.items():
        if place and not (found := re.fullmatch(form, place)):
            raise CommandError(f"Dataset {name}: {place!r} is not a folder of its rows: no pod was started")
        if place and found:
            mounts.append((platform.claim, {"mountPath": f"{FILES}/{folder}", "subPath": found[1], "readOnly": True}))
    if not mounts:
        raise CommandError(f"Dataset {name} has no rows (yet): kubectl describe dataset {name}")
    env = {DIGEST_ENV: token_digest}
    return _pod(dataset, "Dataset", _Purpose("rows", ("serve-files", FILES), tuple(mounts), env), platform)


def download_pod(version: Mapping[str, Any], artifact: Artifact, token_digest: str) -> dict[str, Any]:
    """A pod that serves the files of one artifact on its own loopback. It mounts that folder alone, read-only.

    Args:
        version: a ModelVersion that is Ready.
        token_digest: see `review_pod`.

    Raises:
        CommandError: the status does not say what to start, or the artifact is not on a volume.
    """
    purpose = _Purpose(
        component="download",
        command=("serve-files", FILES),
        mounts=(_read_only(artifact.uri, FILES),),
        env={DIGEST_ENV: token_digest},
    )
    return _pod(version, "ModelVersion", purpose, image_of(version))


def upload_pod(
    dataset: Mapping[str, Any], platform: ReviewPod, claim: str, incoming: Incoming, token_digest: str, *, replace: bool
) -> dict[str, Any]:
    """A pod that takes one file into a claim, on its own loopback. It mounts that claim alone.

    Args:
        dataset: the suspended Dataset that owns the pod.
        platform: its status.uploadPod.
        token_digest: see `review_pod`.
    """
    purpose = _Purpose(
        component="upload",
        command=(
            *("serve-upload", str(incoming.folder), incoming.name, str(incoming.size), incoming.digest),
            *(["--replace"] if replace else []),
        ),
        mounts=((claim, {"mountPath": ROWS}),),
        env={DIGEST_ENV: token_digest},
    )
    return _pod(dataset, "Dataset", purpose, platform)


def chat_pod(version: Mapping[str, Any], artifact: Artifact, token_digest: str, room: Room) -> dict[str, Any]:
    """A pod that loads one artifact, and its base where the record says where that is, and answers on its own loopback.

    It mounts those folders alone, read-only.

    Args:
        version: a ModelVersion that is Ready.
        token_digest: see `review_pod`.

    Raises:
        CommandError: the status does not say what to start, a folder is not on a volume, or the artifact is an adapter
            without its base, or a file of GGUF.
    """
    name, base = version["metadata"]["name"], version["spec"]["lineage"]["baseModel"]
    if artifact.format == "GGUF":
        raise CommandError(f"ModelVersion {name}: choose another form than GGUF, or `hone serve {name} --to ollama`")
    location = base.get("location")
    if artifact.format == "Adapter" and (base.get("modelVersion") or not location):
        raise CommandError(f"ModelVersion {name}: its adapter has no base on a volume; choose --form Merged")
    mounts = [_read_only(artifact.uri, FILES), *([_read_only(location, BASE)] if location else [])]
    purpose = _Purpose(
        component="chat",
        command=("serve-chat", FILES, *([BASE] if location else [])),
        mounts=tuple(mounts),
        env={DIGEST_ENV: token_digest},
        room=room,
    )
    return _pod(version, "ModelVersion", purpose, image_of(version))


def _read_only(uri: str, path: str) -> tuple[str, dict[str, Any]]:
    scheme, _, rest = uri.partition("://")
    claim, _, folder = rest.partition("/")
    if scheme != "pvc" or not folder or ".." in folder.split("/"):
        raise CommandError(f"{uri}: only a folder of a volume (pvc://claim/folder) can be read")
    return claim, {"mountPath": path, "subPath": folder, "readOnly": True}


def own_token_digest() -> str:
    """In the pod: the digest of the token that its server asks for.

    Raises:
        CommandError: the environment does not say.
    """
    try:
        return os.environ[DIGEST_ENV]
    except KeyError as error:
        raise CommandError(f"{error} is not set: the hone that started this pod is older than the image") from None


def _pod(owner: Mapping[str, Any], kind: str, purpose: _Purpose, image: PodImage) -> dict[str, Any]:
    """Restricted by every rule of Pod Security, and without a token of the API server."""
    meta = owner["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name'][:45].rstrip('-')}-{purpose.component}-{secrets.token_hex(4)}",
            "namespace": meta["namespace"],
            "labels": {"app.kubernetes.io/managed-by": "hone", "hone.dev/component": purpose.component},
            "ownerReferences": [
                {"apiVersion": owner["apiVersion"], "kind": kind, "name": meta["name"], "uid": meta["uid"]}
            ],
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _SECONDS,
            "terminationGracePeriodSeconds": 5,
            "securityContext": pod_security(),
            "containers": [_container(purpose, image)],
            "volumes": [
                *({"name": name, "persistentVolumeClaim": {"claimName": claim}} for claim, name in _volumes(purpose)),
                {"name": SCRATCH, "emptyDir": {"sizeLimit": "64Mi"}},
            ],
            "imagePullSecrets": [{"name": name} for name in image.image_pull_secrets],
        },
    }


def _container(purpose: _Purpose, image: PodImage) -> dict[str, Any]:
    env = {**purpose.env, "HOME": "/tmp", "PYTHONUNBUFFERED": "1"}
    return {
        "name": purpose.component,
        "image": image.image,
        "imagePullPolicy": image.image_pull_policy,
        "command": ["python", "-m", "hone_cli", *purpose.command],
        # The kubelet would expand $(VAR).
        "env": [{"name": name, "value": value.replace("$", "$$")} for name, value in env.items()],
        "resources": _resources(purpose.room),
        "securityContext": container_security(),
        "volumeMounts": [
            *({"name": dict(_volumes(purpose))[claim], **mount} for claim, mount in purpose.mounts),
            {"name": SCRATCH, "mountPath": "/tmp"},
        ],
    }


def _volumes(purpose: _Purpose) -> list[tuple[str, str]]:
    """Claim and volume of each claim that is mounted."""
    claims = dict.fromkeys(claim for claim, _ in purpose.mounts)
    return [(claim, STORE if i == 0 else f"{STORE}-{i}") for i, claim in enumerate(claims)]


def _resources(room: Room | None) -> dict[str, Any]:
    if room is None:
        return {
            "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
            "limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "256Mi"},
        }
    gpus = {"nvidia.com/gpu": str(room.gpus)} if room.gpus else {}
    limits = {"memory": room.memory, "ephemeral-storage": "256Mi", **gpus}
    return {"requests": {"cpu": "250m", "memory": room.memory, "ephemeral-storage": "64Mi"}, "limits": limits}


def _batch_folder(dataset: Mapping[str, Any]) -> str:
    """The batch's folder in the store. A pod reported it, so check that it is a batch of this Dataset."""
    name = dataset["metadata"]["name"]
    folder = ((dataset.get("status") or {}).get("synthetic") or {}).get("folder")
    if not folder:
        raise CommandError(f"Dataset {name} has no generated rows (yet): kubectl describe dataset {name}")
    if not re.fullmatch(rf"synthesis/{re.escape(name)}/[A-Za-z0-9_-]{{1,64}}", folder):
        raise CommandError(
            f"status.synthetic.folder of Dataset {name} is {folder!r}, not a folder below synthesis/{name}/: no pod "
            "was started. A pod of the namespace reported it; look at who can make pods there."
        )
    return str(folder)


def _platform(dataset: Mapping[str, Any]) -> ReviewPod:
    meta = dataset["metadata"]
    reported = (dataset.get("status") or {}).get("reviewPod")
    if not reported:
        raise CommandError(
            f"status.reviewPod of Dataset {meta['name']} is empty: its operator is older than this command (upgrade "
            f"the chart), or its rows are older than the operator: kubectl annotate dataset {meta['name']} --namespace "
            f"{meta['namespace']} --overwrite {REVIEW}=again"
        )
    try:
        return ReviewPod.model_validate(reported)
    except ValidationError as error:
        raise CommandError(
            f"status.reviewPod of Dataset {meta['name']} is not what this version of hone knows: install the version "
            f"of hone that the cluster runs ({error.error_count()} fields differ)"
        ) from None


def image_of(version: Mapping[str, Any]) -> DownloadPod:
    """The trainer's image, as the platform wrote it into the version's status.

    Raises:
        CommandError: it is not there, or not known.
    """
    meta = version["metadata"]
    reported = (version.get("status") or {}).get("downloadPod")
    if not reported:
        raise CommandError(
            f"status.downloadPod of ModelVersion {meta['name']} is empty: its operator is older than this command; "
            "upgrade the chart"
        )
    try:
        return DownloadPod.model_validate(reported)
    except ValidationError as error:
        raise CommandError(
            f"status.downloadPod of ModelVersion {meta['name']} is not what this version of hone knows: install the "
            f"version of hone that the cluster runs ({error.error_count()} fields differ)"
        ) from None
