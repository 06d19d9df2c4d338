"""`hone upload`: rows of this machine into the cluster."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from hone_cli.errors import AGAIN, CommandError
from hone_cli.reach.incoming import PATH, PIECE, Incoming, Received, sha256_of
from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption, tell
from hone_cli.rows import place

if TYPE_CHECKING:
    import requests

    from hone_api.dataset.synthesis import ReviewPod
    from hone_cli.reach.objects import Objects

DIGEST = "hone.dev/sha256"
"""Annotation of a ConfigMap: SHA-256 of its file."""
_LABELS = {"hone.dev/component": "upload"}
_TRIES = 5
_PAUSE_SECONDS = 2.0
"""As in `reach.copying`."""
_OPERATOR_SECONDS = 60.0
"""Longest wait for the operator to say how a pod is started."""
_IDLE_SECONDS = 600.0
_TIMEOUT_SECONDS = (30, 3600)
"""To connect, and for an answer: the pod reads a large file again before it has its name."""


def upload(
    file: Annotated[Path, typer.Argument(help="A file with rows.")],
    name: Annotated[str, typer.Argument(help="Name of the ConfigMap or claim that gets it, as in the manifest.")],
    size: Annotated[str | None, typer.Option(help="Size of a new claim, e.g. 20Gi; default: by the file.")] = None,
    storage_class: Annotated[
        str | None, typer.Option(help="Storage class of a new claim; default: that of the namespace's store.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another file of the same name.")] = False,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Upload a file with rows into the cluster.

    It prints the address for spec.source.uri. Up to 1 MB the file becomes a ConfigMap. A larger file goes to a claim,
    through a temporary pod that runs with your own rights. An upload that broke goes on where it stopped, when you run
    the same command again. The file gets its name once every byte is compared, so no Dataset reads half of it.

    \b
    hone upload rows.jsonl support
    """
    from hone_cli.reach.kube import Kube
    from hone_cli.reach.objects import Objects

    chosen, small = place.checked(name), place.is_small(file)
    objects = Objects(Kube.load(context, namespace))
    if small:
        _to_config_map(objects, file, chosen, replace=replace)
    else:
        _to_claim(objects, file, chosen, sha256_of(file), replace=replace, size=size, storage_class=storage_class)
    uri = place.address(file, chosen)
    tell(output, uri, {"uri": uri, "sizeBytes": file.stat().st_size})


def _to_config_map(objects: Objects, file: Path, name: str, *, replace: bool) -> None:
    key, existing, content = place.key(file), objects.find("ConfigMap", name), file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if existing is not None:
        _require_ours("ConfigMap", existing)
        there = {**(existing.get("data") or {}), **(existing.get("binaryData") or {})}
        if key in there and (existing["metadata"].get("annotations") or {}).get(DIGEST) == digest:
            typer.echo(f"ConfigMap {name} has this file already", err=True)
            return
        if not replace:
            raise CommandError(f"ConfigMap {name} already has other rows: choose another name, or use --replace")
    try:
        data: dict[str, Any] = {"data": {key: content.decode()}}
    except UnicodeDecodeError:
        data = {"binaryData": {key: base64.b64encode(content).decode()}}
    metadata = {"name": name, "labels": _LABELS, "annotations": {DIGEST: digest}}
    objects.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **data}, force=replace)


def _require_ours(kind: str, body: Mapping[str, Any]) -> None:
    """Never write into what somebody has for another purpose.

    Raises:
        CommandError: it is not labelled as ours.
    """
    name, labels = body["metadata"]["name"], body["metadata"].get("labels") or {}
    if not _LABELS.items() <= labels.items():
        words = " ".join(f"{label}={value}" for label, value in _LABELS.items())
        raise CommandError(
            f"{kind} {name} exists, and hone upload did not create it: use another name, or, if it is meant for rows, "
            f"kubectl label {kind.lower()} {name} {words}"
        )


def _to_claim(
    objects: Objects,
    file: Path,
    name: str,
    digest: str,
    *,
    replace: bool,
    size: str | None,
    storage_class: str | None,
) -> None:
    from hone_cli.reach import pod, rights, running
    from hone_cli.reach.guard import digest as token_digest

    own = [(verb, "datasets") for verb in ("create", "get", "delete")]
    claims = [("create", "persistentvolumeclaims")] if objects.find("PersistentVolumeClaim", name) is None else []
    rights.require(objects.kube, *own, *claims, *rights.OF_PODS)
    token = secrets.token_urlsafe(32)
    with _platform(objects, name) as (dataset, platform):
        _require_claim(objects, name, platform.claim, file.stat().st_size, size, storage_class)
        incoming = Incoming(Path(pod.ROWS), place.key(file), file.stat().st_size, digest)
        body = pod.upload_pod(dataset, platform, name, incoming, token_digest(token), replace=replace)
        with running.reached(objects.kube, running.create(objects.kube, body)) as tunnel:
            send(file, incoming, tunnel.url, token)


def send(file: Path, incoming: Incoming, url: str, token: str) -> None:
    """Send what is missing of a file, over as many connections as it takes.

    Raises:
        CommandError: the connection breaks again and again, the volume is full, or the file changed meanwhile.
    """
    import requests

    from hone_cli.reach.bar import bar
    from hone_cli.reach.pod_server import PodServer

    failures, session = 0, PodServer(url, token).session
    with bar("upload") as progress, open(file, "rb") as content:
        while True:
            try:
                for there in _pieces(session, content, incoming, f"{url}{PATH}"):
                    failures = 0
                    progress(there, incoming.size)
                return
            except requests.RequestException as error:
                failures += 1
                if failures == _TRIES:
                    raise CommandError(
                        f"the connection broke {failures} times in a row ({type(error).__name__}): {AGAIN}"
                    ) from None
                time.sleep(_PAUSE_SECONDS * 2 ** (failures - 1))
            except KeyboardInterrupt:
                raise CommandError(f"interrupted: {AGAIN}") from None


def _pieces(session: requests.Session, content: BinaryIO, incoming: Incoming, url: str) -> Iterator[int]:
    """Send a file from what is there on, and give the bytes that are there after each piece."""
    received = _asked(session, "GET", url)
    yield received.size
    while received.size < incoming.size:
        there = received.size
        content.seek(there)
        if not (piece := content.read(min(PIECE, incoming.size - there))):
            raise CommandError(f"{content.name} became shorter during the upload: {AGAIN}")
        received = _asked(session, "PUT", f"{url}?offset={there}", piece)
        if received.size <= there:
            raise CommandError(f"the pod takes no more of {incoming.name}: {AGAIN}")
        yield received.size
    if not received.complete:
        _asked(session, "POST", url)


def _asked(session: requests.Session, method: str, url: str, piece: bytes | None = None) -> Received:
    response = session.request(method, url, data=piece, timeout=_TIMEOUT_SECONDS)
    if not response.ok:
        raise CommandError(response.json()["error"])
    return Received.model_validate(response.json())


def serve_upload(folder: Path, name: str, size: int, sha256: str, replace: bool = False) -> None:
    """Run in the pod of an upload; the token's digest comes from its environment."""
    from hone_cli import local
    from hone_cli.reach import pod, receiving

    incoming, token_digest = Incoming(folder, name, size, sha256), pod.own_token_digest()
    local.serve_in_pod(
        lambda asked: receiving.application(incoming, token_digest, replace=replace, on_request=asked),
        pod.PORT,
        _IDLE_SECONDS,
    )


@contextlib.contextmanager
def _platform(objects: Objects, name: str) -> Iterator[tuple[dict[str, Any], ReviewPod]]:
    """A suspended Dataset that owns the pod, and what the operator says of such pods; it is deleted at the end.

    Only the operator writes the status of a Dataset, so nobody else chooses the image that runs with a person's rights.
    """
    from hone_api import GROUP, VERSION

    metadata = {"name": f"{name}-upload-{secrets.token_hex(4)}", "labels": _LABELS}
    spec = {"suspend": True, "source": {"uri": f"pvc://{name}/rows"}}
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Dataset", "metadata": metadata, "spec": spec}
    _remove_left_behind(objects)
    dataset = objects.create(body)
    try:
        yield dataset, _settings(objects, dataset["metadata"]["name"])
    finally:
        with contextlib.suppress(CommandError):
            objects.delete("Dataset", dataset["metadata"]["name"], dataset["metadata"]["uid"])


def _remove_left_behind(objects: Objects) -> None:
    """Delete the Datasets of uploads that were killed; their pods end by themselves."""
    with contextlib.suppress(CommandError):  # a person who may not list pods leaves them there
        words = ",".join(f"{label}={value}" for label, value in _LABELS.items())
        at_work = {
            owner["uid"]
            for pod in objects.list("Pod")
            if pod["status"].get("phase") not in ("Succeeded", "Failed")
            for owner in pod["metadata"].get("ownerReferences", ())
        }
        for dataset in objects.list("Dataset", words):
            created = datetime.fromisoformat(dataset["metadata"]["creationTimestamp"])
            is_old = (datetime.now(UTC) - created).total_seconds() > _IDLE_SECONDS
            if is_old and dataset["metadata"]["uid"] not in at_work:
                objects.delete("Dataset", dataset["metadata"]["name"], dataset["metadata"]["uid"])


def _settings(objects: Objects, dataset: str) -> ReviewPod:
    """What the operator writes.

    Raises:
        CommandError: it writes nothing.
    """
    from hone_api.dataset.synthesis import ReviewPod
    from hone_api.words.states import ConditionType

    end, ready = time.monotonic() + _OPERATOR_SECONDS, None
    while time.monotonic() < end:
        status = objects.get("Dataset", dataset).get("status") or {}
        if status.get("uploadPod"):
            return ReviewPod.model_validate(status["uploadPod"])
        ready = next((c for c in status.get("conditions", ()) if c["type"] == ConditionType.READY), None)
        if ready:  # the operator has decided otherwise, or is of an earlier release
            break
        time.sleep(0.5)
    reason = f"{ready['reason']}: {ready['message']}" if ready else "the operator of Hone does not answer"
    raise CommandError(
        f"no pod can be started in namespace {objects.kube.namespace}: {reason}. Ask the platform team whether Hone "
        "runs there (label hone.dev/enabled=true), in the release of this command"
    )


def _require_claim(
    objects: Objects, name: str, store: str, needed: int, size: str | None, storage_class: str | None
) -> None:
    """Make the claim, like that of the store, unless it is there."""
    existing = objects.find("PersistentVolumeClaim", name)
    if existing is not None:
        _require_ours("PersistentVolumeClaim", existing)
        if size or storage_class:
            typer.echo(f"claim {name} exists: --size and --storage-class are for a new one", err=True)
        return
    like = (objects.find("PersistentVolumeClaim", store) or {}).get("spec") or {}
    spec: dict[str, Any] = {
        "accessModes": like.get("accessModes") or ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size or f"{-(-needed * 11 // (10 * 2**30))}Gi"}},
    }
    if named := storage_class or like.get("storageClassName"):
        spec["storageClassName"] = named
    metadata = {"name": name, "labels": _LABELS}
    objects.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
