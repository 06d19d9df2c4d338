"""Interrupts a run on the embedded cluster as the hardware would."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hone_dev.demo.targets import Target
from hone_dev.ettr import mix
from hone_dev.tools.console import HoneDevError

Pod = Mapping[str, Any]


def _ranks(pod: Pod) -> list[int]:
    """The processes of a pod's trainer, the launcher first."""
    uid, found = pod["metadata"]["uid"], []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                group, program = (folder / "cgroup").read_text(), (folder / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            if (uid in group or uid.replace("-", "_") in group) and b"hone_trainer" in program:
                found.append(int(folder.name))
    if not found:
        raise HoneDevError(f"pod {pod['metadata']['name']} runs no trainer on this machine")
    return sorted(found)


def _kill(target: Target, pod: Pod) -> None:
    os.kill(_ranks(pod)[-1], signal.SIGKILL)


def _stop(target: Target, pod: Pod) -> None:
    os.kill(_ranks(pod)[-1], signal.SIGSTOP)


def _lose(target: Target, pod: Pod) -> None:
    """All at once, and the API server no longer knows the pod: as the node controller does with a lost node."""
    for rank in _ranks(pod):
        os.kill(rank, signal.SIGKILL)
    _kubectl(target, pod, "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")


def _evict(target: Target, pod: Pod) -> None:
    """As `kubectl drain` does."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    target.kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(eviction))


def _kubectl(target: Target, pod: Pod, *argv: str) -> None:
    target.kubectl("--namespace", pod["metadata"]["namespace"], *argv)


INTERRUPT: Mapping[str, Callable[[Target, Pod], None]] = {
    mix.KILLED: _kill,
    mix.NODE: _lose,
    mix.EVICTED: _evict,
    mix.HUNG: _stop,
}
"""By kind of `mix.KINDS`; the pod is one of the attempt that runs."""
