"""Two operators and one Lease: the one that works is killed, or stopped for too long, at each stage of a job's life."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.cluster.fault_proxy import STAGES, FaultProxy, Lane
from support.cluster.kube import Kube, wait_until
from support.cluster.operator_process import Operator
from support.lives.fault_lanes import Life, check, live, undisturbed
from support.lives.lives import Seen

pytestmark = [pytest.mark.apiserver, pytest.mark.long]
SYSTEM = "hone-two"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/hone"


class Pair(Operator):
    """Two replicas; each that ends is started again, as a Deployment does."""

    replicas: dict[str, Operator]

    def start(self) -> Pair:
        self.replicas = {name: self._replica(name).start() for name in ("first", "second")}
        return self

    def _replica(self, name: str) -> Operator:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        election = {"ENABLED": "true", "LEASE": "hone", "IDENTITY": name}
        env = {"HONE_NAMESPACE": SYSTEM, **{f"HONE_LEADER_ELECTION__{key}": value for key, value in election.items()}}
        return Operator(self.kubeconfig, folder, self.env | env, forked=True)

    def ready(self) -> bool:
        return all(each.ready() for each in self.replicas.values())

    def alive(self) -> bool:
        return any(each.alive() for each in self.replicas.values())

    def restore(self) -> None:
        """Start what has ended again, also one that lost the Lease because the machine was busy."""
        for each in self.replicas.values():
            if not each.alive():
                each.start()

    def kill(self) -> None:
        for each in self.replicas.values():
            if each.alive():
                each.kill()

    def log(self) -> str:
        return "\n".join(each.log() for each in self.replicas.values())


@dataclass
class Failover:
    """The one that works is disturbed at each stage of the first life but the first, and the other takes over."""

    kube: Kube
    stops: bool
    stages: list[str] = field(default_factory=list)

    def __call__(self, pair: Operator, lives: Sequence[Life], world: Mapping[str, Seen]) -> None:
        assert isinstance(pair, Pair)
        pair.restore()
        stage = lives[0].lane.now
        if stage not in STAGES[1:] or stage in self.stages:
            return
        leader = wait_until(self._holder, "one holds the Lease")
        old = pair.replicas[leader]
        assert old.process
        os.kill(old.process.pid, signal.SIGSTOP if self.stops else signal.SIGKILL)
        if self.stops and self._holder() != leader:  # it was not the one that works any more
            os.kill(old.process.pid, signal.SIGCONT)
            return
        self.stages.append(stage)
        wait_until(lambda: self._holder() not in ("", leader), "the other has taken over")
        if self.stops:
            os.kill(old.process.pid, signal.SIGCONT)
        wait_until(lambda: not old.alive(), "the one that was disturbed has ended")
        pair.restore()
        wait_until(pair.ready, "both are there again")

    def _holder(self) -> str:
        return str(self.kube.call("GET", LEASE)["spec"].get("holderIdentity") or "")


@pytest.fixture(scope="module")
def proxy(kube: Kube) -> Iterator[FaultProxy]:
    kube.call("POST", "/api/v1/namespaces", {"metadata": {"name": SYSTEM}})
    proxy = FaultProxy.of(kube)
    yield proxy
    proxy.stop()


@pytest.fixture(scope="module")
def reference(kube: Kube, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> list[Life]:
    return undisturbed(kube, proxy, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.faults("O12")
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_other_goes_on(
    kube: Kube, proxy: FaultProxy, reference: list[Life], tmp_path: Path, record_property: Any, how: str
) -> None:
    failover = Failover(kube, stops=how == "stopped")
    (life,), log = live(kube, proxy, tmp_path, [Lane()], failover, Pair)
    wrong = check(life, reference)
    cases = [["O12", f"the one that works is {how} at {stage}", not wrong] for stage in failover.stages]
    record_property("faults", cases)
    assert wrong == [], log[-4000:]
    assert failover.stages == list(STAGES[1:])
