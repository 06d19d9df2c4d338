"""kill -9 at writes of two imports: whatever the moment, there are two versions, once each, and no Job is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from support.cluster.fault_proxy import FaultProxy
from support.cluster.hand import Namespace
from support.lives.fault_lanes import new_space
from support.lives.killing import POINTS, Processes, Sweep, conditions_of

pytestmark = pytest.mark.apiserver
IMPORTS = [{"uri": "hf://acme/one"}, {"uri": "hf://acme/two"}]
DIGEST = "sha256:" + "1" * 64


@dataclass
class ImportLife:
    """A Model whose two imports end at the same time."""

    space: Namespace

    def begin(self) -> None:
        self.space.create("Model", "tutor", {"imports": IMPORTS})

    def step(self) -> bool:
        """True when both versions are Ready, and every Job has gone."""
        jobs = self.space.list("Job")
        for job in jobs:
            self._play(job)
        versions = self.space.list("ModelVersion")
        ready = [v for v in versions if conditions_of(v).get("Ready") == "True/Verified"]
        return len(ready) == 2 and not jobs and conditions_of(self._model()).get("Imported") == "True/Imported"

    def _model(self) -> dict[str, Any]:
        return dict(self.space.get("Model", "tutor"))

    def _play(self, job: dict[str, Any]) -> None:
        if any(c["type"] in ("Complete", "Failed") for c in job["status"].get("conditions") or ()):
            return
        name = job["metadata"]["name"]
        if job["metadata"]["labels"]["hone.dev/component"] == "verify":
            self.space.succeed(name, {"kind": "Verify", "files": 1, "sizeBytes": 1})
        else:
            artifact = {"format": "Full", "uri": "full", "digest": DIGEST, "sizeBytes": 1}
            self.space.succeed(name, {"kind": "Import", "artifact": artifact, "digest": DIGEST})

    def state(self) -> dict[str, Any]:
        """What must not depend on when the operator was killed; which of the two comes first may."""
        versions = self.space.list("ModelVersion")
        entries = self._model()["status"]["imports"]
        return {
            "versions": sorted(v["metadata"]["name"] for v in versions),
            "sources": sorted(v["spec"]["lineage"]["imported"]["uri"] for v in versions),
            "named": sorted(entry["modelVersion"] for entry in entries),
            "states": [(entry["uri"], entry["state"]) for entry in entries],
            "jobs": self.space.names("Job"),
        }


@pytest.fixture
def sweep(kube, tmp_path, free_ports):
    proxy = FaultProxy.of(kube)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(proxy.kubeconfig()))
    processes = Processes(str(tmp_path / "operator.log"), str(kubeconfig))
    yield Sweep(proxy, processes, lambda: new_space(kube, "kill"), ImportLife, free_ports(2), {})
    processes.close()
    proxy.stop()


def test_killed_at_a_write_of_two_imports_the_end_is_the_same(sweep: Sweep) -> None:
    undisturbed, writes = sweep.life(None)
    assert undisturbed["versions"] == undisturbed["named"] == ["tutor-v1", "tutor-v2"]
    assert undisturbed["sources"] == [entry["uri"] for entry in IMPORTS]
    assert len(writes) > 10
    for place, number in enumerate(range(2, len(writes), 3)):
        point = POINTS[place % len(POINTS)]
        state, done = sweep.life((number, point))
        assert state == undisturbed, f"killed at write {number} ({point}): {done[number - 1 : number]}"
