"""The demo, from top to bottom."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hone_dev.demo import runs, summary, usage
from hone_dev.demo.follow import follow
from hone_dev.demo.targets import TARGETS, Target
from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError, note, step

EXAMPLE = paths.SOURCE / "examples" / "01-first-model"
SYSTEM, TENANT, RELEASE = "hone-system", "demo", "hone"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
ENABLED = {"hone.dev/enabled": "true"}


def demo(cluster: str) -> None:
    """Bring up what is needed, run example 01 and show what came out.

    Can be interrupted and started again at any time: an unfinished run is followed, a finished one stays as history
    and a new one gets the next number.
    """
    started = time.monotonic()
    target = target_of(cluster)
    reached = time.monotonic()
    install(target)
    run = start(target)
    installed = time.monotonic()
    try:
        job = follow(target, TENANT, run.name)
    except KeyboardInterrupt:
        raise HoneDevError(
            f"interrupted; the run {run.name} continues in the cluster",
            f"`make demo` follows it again; kubectl -n {TENANT} delete ftj {run.name} ends it",
        ) from None
    name = job["status"]["modelVersionName"]
    with step(f"every file of {name} against its manifest"):
        target.kubectl("--namespace", TENANT, "wait", "--for=condition=Ready", f"mv/{name}", "--timeout=600s")
    version = target.get("--namespace", TENANT, "mv", name)
    summary.show(job, version, reached - started, installed - reached)
    for line in usage.lines(target, cluster, TENANT, version):
        note(line)


def target_of(cluster: str) -> Target:
    """The cluster of this name, brought up if that is ours to do."""
    if cluster not in TARGETS:
        raise HoneDevError(f"there is no cluster {cluster}", f"choose one of: {', '.join(TARGETS)}")
    return TARGETS[cluster]()


def install(target: Target) -> None:
    """Install or upgrade the chart; return when its pods are ready."""
    with step("installing the chart into " + SYSTEM):
        _apply(target, _namespace(SYSTEM))
        # An interrupted helm leaves a lock that it never takes away by itself.
        for status in ("pending-install", "pending-upgrade", "pending-rollback"):
            selector = f"owner=helm,name={RELEASE},status={status}"
            target.kubectl("--namespace", SYSTEM, "delete", "secret", "--selector", selector)
        chart, values = paths.SOURCE / "charts" / "hone", json.dumps(target.values)
        options = ("--install", "--namespace", SYSTEM, "--values", "-", "--wait", "--timeout", "10m")
        try:
            target.helm("upgrade", RELEASE, chart, *options, stdin=values)
        except HoneDevError as error:
            error.hint = error.hint or f"{usage.kubectl_of(target)} -n {SYSTEM} describe pods"
            raise


def start(target: Target) -> runs.Run:
    """Apply the example into its own namespace, as a new run unless one is under way."""
    objects = runs.manifests(EXAMPLE)
    base = runs.job_of(objects)["metadata"]["name"]
    _apply(target, _namespace(TENANT, ENABLED))
    run = runs.choose(base, target.get("--namespace", TENANT, "ftj")["items"])
    with step(f"applying {EXAMPLE.relative_to(paths.SOURCE)} as {run.name}" if run.new else f"following {run.name}"):
        _apply(target, *runs.to_apply(objects, run), namespace=TENANT)
    return run


def _namespace(name: str, labels: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**RESTRICTED, **labels}}}


def _apply(target: Target, *objects: dict[str, Any], namespace: str = "default") -> None:
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    target.kubectl(
        *("--namespace", namespace, "apply", "--server-side", "--field-manager=hone-demo", "--filename=-"),
        stdin=document,
    )
