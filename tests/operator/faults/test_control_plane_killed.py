"""etcd and the API server are killed at each stage of the life of a job and start again: the same end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.cluster.fault_proxy import STAGES, FaultProxy, Lane
from support.cluster.kube import Kube, connect, wait_until
from support.cluster.operator_process import Operator, free_ports
from support.lives.fault_lanes import Life, check, live, undisturbed
from support.lives.lives import Seen, look

from hone_dev.cluster.controlplane import ControlPlane
from hone_dev.cluster.process import Component, Supervisor

pytestmark = [pytest.mark.apiserver, pytest.mark.long]
KILLED = {
    "etcd": ("etcd",),
    "API server": ("kube-apiserver",),
    "both": ("kube-apiserver", "etcd"),
}


class Plane:
    """etcd and an API server that can be killed."""

    def __init__(self, folder: Path) -> None:
        plane = ControlPlane(folder, "127.0.0.1", *free_ports(4), garbage="400")
        self.kubeconfig = plane.kubeconfig
        self._supervisor = Supervisor(folder, outlive_us=False)
        self._components: list[Component] = [plane.etcd(), plane.apiserver()]

    def start(self) -> None:
        """What does not run; returns once it serves."""
        for component in self._components:
            self._supervisor.start(component)
            self._supervisor.wait(component)

    def kill(self, names: Sequence[str]) -> None:
        """SIGKILL; returns once they are gone."""
        for name in names:
            pid = self._supervisor.pid(name)
            assert pid, f"{name} does not run"
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # somebody else has waited for it
                os.waitpid(pid, 0)
            assert not self._supervisor.pid(name)

    def stop(self) -> None:
        for component in reversed(self._components):
            self._supervisor.stop(component.name)


@dataclass
class Killing:
    """Kills at each stage of the first life but the first, which may be over before anyone looks."""

    plane: Plane
    kube: Kube
    names: Sequence[str]
    stages: list[str] = field(default_factory=list)

    def __call__(self, operator: Operator, lives: Sequence[Life], world: Mapping[str, Seen]) -> None:
        stage = lives[0].lane.now
        if stage in STAGES[1:] and stage not in self.stages:
            self.stages.append(stage)
            self.plane.kill(self.names)
            self.plane.start()
            wait_until(lambda: look(self.kube), "the API server answers lists: it is ready before")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    plane = Plane(tmp_path_factory.mktemp("plane"))
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture(scope="module")
def killable(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Kube:
    return connect(plane.kubeconfig, tmp_path_factory.mktemp("kube"))


@pytest.fixture(scope="module")
def proxy(killable: Kube) -> Iterator[FaultProxy]:
    proxy = FaultProxy.of(killable)
    yield proxy
    proxy.stop()


@pytest.fixture(scope="module")
def reference(killable: Kube, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> list[Life]:
    return undisturbed(killable, proxy, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.faults("O10")
@pytest.mark.parametrize("what", KILLED)
def test_a_life_goes_on(
    killable: Kube,
    plane: Plane,
    proxy: FaultProxy,
    reference: list[Life],
    tmp_path: Path,
    record_property: Any,
    what: str,
) -> None:
    killing = Killing(plane, killable, KILLED[what])
    (life,), log = live(killable, proxy, tmp_path, [Lane()], killing)
    wrong = check(life, reference)
    record_property("faults", [["O10", f"{what} killed at {stage}", not wrong] for stage in killing.stages])
    assert wrong == [], log[-4000:]
    assert killing.stages == list(STAGES[1:])
