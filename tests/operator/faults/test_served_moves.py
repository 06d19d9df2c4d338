"""A version whose approval is withdrawn while it is served: the operator is killed around each write that follows.

Servers read the ConfigMap whenever their kubelet brings it, so nothing that was ever written may lack an adapter
while an approved version is there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from support.cluster.fault_proxy import Fault, FaultProxy, Lane
from support.cluster.hand import Namespace
from support.cluster.kube import wait_until
from support.lives.fault_lanes import new_space
from support.lives.killing import POINTS, Processes, wait_for_a_write
from support.lives.versions import adapter_version

from hone_api.contract.served import CONFIG_MAP

pytestmark = pytest.mark.apiserver
FIRST, SECOND = ("sha256:" + digit * 64 for digit in "12")
WRITES = 4
"""How many follow a withdrawal, e.g. the statuses of the Model and its versions, and the ConfigMap."""


@dataclass
class Heard(Lane):
    """Keeps what servers may load."""

    published: list[str | None] = field(default_factory=list)
    """Digest of the adapter of tutor@champion, at each write; None: there is none."""

    def note(self, method: str, resource: str, body: bytes, is_status: bool) -> None:
        """See `Lane`."""
        super().note(method, resource, body, is_status)
        if resource == "configmaps" and json.loads(body)["metadata"]["name"] == CONFIG_MAP:
            aliases = json.loads(json.loads(body)["data"].get("tutor.json", '{"aliases": []}'))["aliases"]
            self.published.append(next((alias["adapter"]["digest"] for alias in aliases if "adapter" in alias), None))


class Served:
    """A namespace whose two approved versions are adapters, and an operator that starts again when it was killed."""

    def __init__(self, space: Namespace, processes: Processes, ports: list[int]) -> None:
        self.space, self._processes = space, processes
        self.lane = Heard()
        self.killed = threading.Event()
        self._env = {
            "HONE_NAMESPACE": "hone-system",
            "HONE_TRAINER__IMAGE": "trainer",
            "HONE_WATCH_NAMESPACES": json.dumps([space.name]),
            "HONE_PORTS__PROBES": str(ports[0]),
            "HONE_PORTS__METRICS": str(ports[1]),
        }
        processes.start(self._env)
        for number in (1, 2):
            space.create("ModelVersion", f"tutor-v{number}", adapter_version(number))
            self._verify(number)
            self.decide(number, "Approved")
        space.create("Model", "tutor", {"promotion": {"policy": "Automatic", "aliases": ["champion"]}})
        self.until_served(SECOND)

    def _verify(self, number: int) -> None:
        prefix = f"tutor-v{number}-verify"
        (job,) = self.space.until(lambda: [n for n in self.space.names("Job") if n.startswith(prefix)], "a verify Job")
        self.space.succeed(job, {"kind": "Verify", "files": 3, "sizeBytes": 7})
        self.space.until(
            lambda: self.space.condition("ModelVersion", f"tutor-v{number}", "Ready").get("status") == "True", "Ready"
        )

    def decide(self, number: int, state: str) -> None:
        decision = {"state": state, "by": "ada"} if state == "Approved" else {"state": state}
        self.space.patch("ModelVersion", f"tutor-v{number}", {"spec": {"approval": decision}})

    def kill(self) -> None:
        """What the proxy does."""
        self._processes.kill()
        self.killed.set()

    def until_served(self, digest: str | None) -> None:
        """Until servers may load this, and the Model and its versions have said their last."""

        def is_served() -> bool:
            if self.killed.is_set():
                self.killed.clear()
                self._processes.start(self._env)
            before = len(self.lane.writes)
            return self.now() == digest and wait_for_a_write(self.lane, before) == before and not self.killed.is_set()

        wait_until(is_served, f"{digest} is served: {self.lane.published} {self._processes.log()}")

    def now(self) -> str | None:
        """What servers may load now."""
        if CONFIG_MAP not in self.space.names("ConfigMap"):
            return None
        text = self.space.get("ConfigMap", CONFIG_MAP).get("data", {}).get("tutor.json", '{"aliases": []}')
        return next((a["adapter"]["digest"] for a in json.loads(text)["aliases"] if "adapter" in a), None)

    def arm(self, fault: Fault | None, write: int = 0) -> None:
        """What happens at a later write."""
        self.lane.published.clear()
        self.lane.injected = 0
        self.lane.write = len(self.lane.writes) + write
        self.lane.fault = fault


@pytest.fixture
def served(kube: Any, tmp_path: Any, free_ports: Any) -> Iterator[Served]:
    proxy = FaultProxy.of(kube)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(proxy.kubeconfig()))
    processes = Processes(str(tmp_path / "operator.log"), str(kubeconfig))
    life = Served(new_space(kube, "served"), processes, free_ports(2))
    proxy.lanes, proxy.kill = {life.space.name: life.lane}, life.kill
    yield life
    processes.close()
    proxy.stop()


def test_a_killed_operator_publishes_the_next_version_in_one_step(served: Served) -> None:
    killed = 0
    for write, point in [(0, POINTS[0]), *((w, point) for w in range(1, WRITES + 1) for point in POINTS)]:
        served.arm(Fault(f"kill {point}") if write else None, write)
        served.decide(2, "Candidate")
        served.until_served(FIRST)
        assert set(served.lane.published) <= {FIRST, SECOND}, f"{point} write {write}: {served.lane.published}"
        killed += served.lane.injected
        served.arm(None)
        served.decide(2, "Approved")
        served.until_served(SECOND)
    assert killed >= 2 * len(POINTS), "the alias and the ConfigMap, at least"


def test_what_is_withdrawn_leaves_while_the_status_of_the_model_is_refused(served: Served) -> None:
    served.arm(Fault("answer", 503, only="models", times=1000))
    served.lane.injected = 1  # it has begun
    served.decide(2, "Candidate")
    wait_until(lambda: served.now() is None, "nothing is served")
    served.arm(None)
    served.until_served(FIRST)
