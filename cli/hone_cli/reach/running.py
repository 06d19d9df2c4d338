"""A pod that mounts the store, for as long as a command needs it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from hone_cli.errors import CommandError
from hone_cli.reach import pod, rights
from hone_cli.reach.kube import Kube, asked
from hone_cli.reach.tunnel import Tunnel

_START_SECONDS = 300.0
"""Longest wait for the pod; an image that is not yet on the node is large."""


def create(kube: Kube, body: Mapping[str, Any]) -> str:
    """Create a pod of `pod` and return its name.

    Raises:
        CommandError: the API server refuses, or would refuse what comes after.
    """
    rights.require(kube, *rights.OF_PODS)
    name = str(body["metadata"]["name"])
    asked(lambda: kube.core.create_namespaced_pod(kube.namespace, body))
    typer.echo(f"Starting pod {name} from image {body['spec']['containers'][0]['image']} …", err=True)
    return name


@contextlib.contextmanager
def reached(kube: Kube, name: str, port: int = 0, seconds: float = 0.0) -> Iterator[Tunnel]:
    """The tunnel into a pod that was created, once it listens; the pod is deleted at the end.

    Args:
        port: of the tunnel on loopback; 0: a free one.
        seconds: longest time from the start of its container until it listens.

    Raises:
        CommandError: the pod cannot run.
    """
    try:
        _wait(kube, name, seconds)
        tunnel = Tunnel(lambda: kube.stream(name), port)
        try:
            yield tunnel
        finally:
            tunnel.close()
    finally:
        with contextlib.suppress(CommandError):
            asked(lambda: kube.core.delete_namespaced_pod(name, kube.namespace))


def _wait(kube: Kube, name: str, seconds: float) -> None:
    """Wait until the pod serves. A pod whose container does not start is given up earlier."""
    begun = time.monotonic()
    while True:
        pod = asked(lambda: kube.core.read_namespaced_pod(name, kube.namespace))
        statuses = pod.status.container_statuses or []
        if pod.status.phase in ("Failed", "Succeeded"):
            raise CommandError(f"pod {name} ended: {log_tail(kube, name)}")
        is_started = bool(statuses and statuses[0].ready)
        if is_started and _listens(kube, name):
            return
        if time.monotonic() > begun + _START_SECONDS + (seconds if is_started else 0):
            raise CommandError(f"pod {name} does not start: {_obstacle(pod) or pod.status.phase}")
        time.sleep(1)


def log_tail(kube: Kube, name: str) -> str:
    """The last lines that the pod logged."""
    return str(asked(lambda: kube.core.read_namespaced_pod_log(name, kube.namespace, tail_lines=5)))


def _listens(kube: Kube, name: str) -> bool:
    return pod.LISTENING in log_tail(kube, name)


def _obstacle(pod: Any) -> str | None:
    for status in pod.status.container_statuses or []:
        if status.state.waiting:
            return f"{status.state.waiting.reason}: {status.state.waiting.message or ''}"
    for condition in pod.status.conditions or []:
        if condition.status == "False" and condition.message:
            return str(condition.message)
    return None
