"""`hone logs`: what the pods of a run log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

import typer

from hone_cli.errors import CommandError, printable
from hone_cli.reach import connecting
from hone_cli.reach.kube import Kube, asked
from hone_cli.reach.objects import Objects
from hone_cli.reach.options import ContextOption, JobArgument, NamespaceOption
from hone_cli.runs.view import view

RANK = "batch.kubernetes.io/job-completion-index"
ATTEMPT = "hone.dev/attempt"
CONTAINER = "trainer"
_NO_LOG = ("unable to retrieve container logs for ", "failed to try resolving symlinks in path ")
"""How the kubelet answers, with status 200, once the node has removed a container, or its log."""


def logs(
    job: JobArgument,
    rank: Annotated[int, typer.Option(min=0, help="The pod, counted from 0; each has one node's ranks.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the pod ends.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="Lines from the end; 0: all.")] = 100,
    previous: Annotated[bool, typer.Option("--previous", help="Of the attempt before the newest.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Print what a run logs.

    It is the log of the newest attempt, of the pod with rank 0, unless options say otherwise.

    \b
    hone logs support-1 -f
    hone logs support-1 --rank 3 --tail 0
    """
    try:
        for piece in log(Objects(Kube.load(context, namespace)), job, rank, tail, follow=follow, previous=previous):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        return


def log(
    objects: Objects, job: str, rank: int = 0, tail: int = 100, *, follow: bool = False, previous: bool = False
) -> Iterator[bytes]:
    """What a pod of the run logs, in pieces.

    Args:
        tail: lines from the end; 0: all.

    Raises:
        CommandError: the run, its pod of that rank, or the log of that pod does not exist.
    """
    body = objects.get("FineTuneJob", job)
    pod = _pod(body, _pods(objects, job), rank, back=1 if previous else 0)
    name = pod["metadata"]["name"]
    options = {"container": _container(pod), "follow": follow, "_preload_content": False}
    options |= {"tail_lines": tail} if tail else {}
    options |= {"_request_timeout": (connecting.SECONDS[0], None)} if follow else {}  # a pod may be silent for hours
    stream = asked(lambda: objects.kube.core.read_namespaced_pod_log(name, objects.kube.namespace, **options))
    pieces = stream.stream(2**16)
    first = next(pieces, b"")
    if first.decode(errors="replace").startswith(_NO_LOG):
        raise CommandError(_without_log(pod))
    yield first
    yield from pieces


def tail_of(objects: Objects, job: dict[str, Any], lines: int) -> list[str]:
    """The newest lines that rank 0 logged. Empty if it has no log, or the user may not read it."""
    try:
        pod = _pod(job, _pods(objects, job["metadata"]["name"]), 0, back=0)
        read = partial(
            objects.kube.core.read_namespaced_pod_log,
            pod["metadata"]["name"],
            objects.kube.namespace,
            container=_container(pod),
            tail_lines=lines,
        )
        text = str(asked(read))
    except CommandError:
        return []
    return [_without_log(pod)] if text.startswith(_NO_LOG) else text.splitlines()[-lines:]


def _pods(objects: Objects, job: str) -> list[dict[str, Any]]:
    """The pods that train or trained, the oldest first."""
    found = objects.list("Pod", f"hone.dev/finetunejob={job},hone.dev/component=training")
    return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


def _without_log(pod: dict[str, Any]) -> str:
    """Why a pod has no log, in the words of its status if it has any."""
    status = pod.get("status") or {}
    words = ": ".join(filter(None, [status.get("reason"), status.get("message")])).rstrip(". ")
    name = pod["metadata"]["name"]
    if words:
        return f"pod {name} has ended ({words}), and its node has removed the log"
    return f"the node of pod {name} has removed its log"


def _pod(job: dict[str, Any], pods: list[dict[str, Any]], rank: int, *, back: int) -> dict[str, Any]:
    """The newest pod of a rank in an attempt.

    Raises:
        CommandError: it has none.
    """
    name = job["metadata"]["name"]
    attempts = sorted({int(pod["metadata"]["labels"].get(ATTEMPT, 0)) for pod in pods})
    if len(attempts) <= back:
        raise CommandError(f"no pod of {name} trains or trained here: {printable(view(job).line())}")
    chosen = [pod for pod in pods if int(pod["metadata"]["labels"].get(ATTEMPT, 0)) == attempts[-1 - back]]
    ranks = {int(pod["metadata"]["labels"].get(RANK, 0)): pod for pod in chosen}
    if rank not in ranks:
        there = ", ".join(map(str, sorted(ranks)))
        raise CommandError(f"attempt {attempts[-1 - back]} of {name} has no pod {rank}: it has {there}")
    return ranks[rank]


def _container(pod: dict[str, Any]) -> str:
    """Name of the container that trains: a service mesh may have put others before it."""
    names = [str(each["name"]) for each in pod["spec"]["containers"]]
    return CONTAINER if CONTAINER in names else names[0]
