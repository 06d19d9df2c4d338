"""The life of one job next to a real Job controller and garbage collector: a hand plays scheduler and kubelet alone."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from support.cluster.hand import Namespace, container_status, now, training_result
from support.cluster.kube import PLURAL, Kube, NotFoundError

Body = dict[str, Any]
KINDS = ("FineTuneJob", "Dataset", "ModelVersion", "Model", "Job", "Pod", "ConfigMap", "Service")
COMPONENT = "hone.dev/component"
LOOK_EVERY = 0.5
"""Seconds from one look at all namespaces to the next: each costs the API server and its reader 0.1 s and more."""
DIGEST = "sha256:" + "0" * 64
SPLITS = [{"name": "train", "rows": 9}, {"name": "validation", "rows": 1}]
RESULTS: dict[str, Body] = {
    "materialize": {
        "kind": "Materialize",
        "digest": DIGEST,
        "path": f"datasets/{DIGEST.removeprefix('sha256:')}",
        "rows": 10,
        "splits": SPLITS,
    },
    "fetch": {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "abc"},
    "training": training_result(),
    "verify": {"kind": "Verify", "files": 3, "sizeBytes": 7},
}
"""What the pods of each kind of work leave."""


@dataclass
class Seen:
    """What one namespace holds at one moment."""

    objects: Mapping[str, list[Body]]

    def __getitem__(self, kind: str) -> list[Body]:
        return self.objects.get(kind, [])

    def names(self, kind: str, *components: str) -> list[str]:
        """Names of a kind; of these kinds of work only, if any are given."""
        return [o["metadata"]["name"] for o in self[kind] if not components or component(o) in components]

    def pods(self, of: str) -> list[Body]:
        return [p for p in self["Pod"] if component(p) == of]

    def condition(self, kind: str, type_: str) -> tuple[str, str]:
        """(status, reason) of the only object of a kind."""
        for body in self[kind]:
            for c in (body.get("status") or {}).get("conditions", ()):
                if c["type"] == type_:
                    return c["status"], c["reason"]
        return "", ""

    def attempts(self) -> list[tuple[str, str | None]]:
        """(outcome, reason) of each attempt."""
        return [(a["outcome"], a.get("reason")) for j in self["FineTuneJob"] for a in j["status"].get("attempts", ())]

    def succeeded(self) -> bool:
        """The job has ended well and its one ModelVersion is verified."""
        return (
            self.condition("FineTuneJob", "Finished") == ("True", "Succeeded")
            and self.names("ModelVersion") == ["tutor-v1"]
            and self.condition("ModelVersion", "Ready") == ("True", "Verified")
        )


def component(body: Body) -> str:
    return body["metadata"].get("labels", {}).get(COMPONENT, "")


def look(kube: Kube) -> dict[str, Seen]:
    """All namespaces that exist, by name."""
    objects: dict[str, dict[str, list[Body]]] = defaultdict(lambda: defaultdict(list))
    for kind in KINDS:
        prefix, plural = PLURAL[kind]
        for body in kube.call("GET", f"{prefix}/{plural}")["items"]:
            objects[body["metadata"]["namespace"]][kind].append(body)
    spaces = kube.call("GET", "/api/v1/namespaces")["items"]
    return {s["metadata"]["name"]: Seen(objects[s["metadata"]["name"]]) for s in spaces}


@dataclass
class Hand:
    """Scheduler and kubelet of one namespace."""

    space: Namespace
    told: set[str] = field(default_factory=set)
    """Pods whose mount failed and was told."""

    def play(self, seen: Seen, may_start: set[str], may_end: set[str]) -> None:
        """Every pod goes one step on, where its kind of work may."""
        for pod in seen["Pod"]:
            of, phase = component(pod), pod["status"]["phase"]
            if pod["metadata"].get("deletionTimestamp"):
                continue
            with contextlib.suppress(NotFoundError):  # it went meanwhile
                if phase == "Pending" and of in may_start:
                    self._start(pod, seen)
                elif phase == "Running" and of in may_end:
                    self.end(pod)

    def _start(self, pod: Body, seen: Seen) -> None:
        name = pod["metadata"]["name"]
        if missing := [c for c in _config_maps(pod) if c not in seen.names("ConfigMap")]:
            if name not in self.told:
                self.told.add(name)
                self._cannot_mount(pod, missing[0])
            return
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
        states = [container_status({"running": {"startedAt": now()}})]
        status = {"phase": "Running", "conditions": [scheduled], "containerStatuses": states}
        self.space.patch("Pod", name, {"status": status}, "status")

    def _cannot_mount(self, pod: Body, config_map: str) -> None:
        """As a kubelet that has tried for a minute."""
        meta = pod["metadata"]
        involved = {"kind": "Pod", "namespace": self.space.name, "name": meta["name"], "uid": meta["uid"]}
        self.space.create(
            "Event",
            f"{meta['name']}.mount",
            involvedObject=involved,
            type="Warning",
            reason="FailedMount",
            message=f'MountVolume.SetUp failed for volume "plan" : configmap "{config_map}" not found',
            lastTimestamp=now(),
        )
        since = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": since}],
            "containerStatuses": [container_status({"waiting": {"reason": "ContainerCreating"}})],
        }
        self.space.patch("Pod", meta["name"], {"status": status}, "status")

    def end(self, pod: Body) -> None:
        """The container ends well; rank 0 leaves the result."""
        rank = pod["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index", "0")
        outcome = {"result": RESULTS[component(pod)]} if rank == "0" else None
        self.space.end_pod(pod["metadata"]["name"], 0, outcome)


def _config_maps(pod: Body) -> Iterator[str]:
    for volume in pod["spec"]["volumes"]:
        source = volume.get("configMap")
        if source and not source.get("optional"):
            yield source["name"]
