"""kill -9 at every write of a model's life: signed, approved, delivered, promoted, and its approval withdrawn.

Whatever the moment, the end is the same; nothing unsigned is delivered, and no alias means what nobody has approved.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from support.cluster.fault_proxy import FaultProxy
from support.cluster.hand import Namespace
from support.lives.fault_lanes import new_space
from support.lives.killing import POINTS, Point, Processes, Sweep, conditions_of
from support.lives.versions import version_spec
from support.servers.signing_key import Key

from hone_operator.keys import public_key_fingerprint

pytestmark = pytest.mark.apiserver
IMAGE, BUCKET = "oci://registry.example.org/team/tutor", "s3://models/team"
MODEL = {
    "promotion": {"policy": "Automatic", "aliases": ["champion"]},
    "deliveries": [{"uri": IMAGE, "when": "Approved"}, {"uri": BUCKET, "when": "Aliased"}],
}


@dataclass
class ModelLife:
    """Two versions of a model: both approved one after the other, then the second no longer."""

    space: Namespace
    key: str
    approved: set[int] = field(default_factory=set)
    withdrawn: bool = False
    wrong: list[str] = field(default_factory=list)

    def begin(self) -> None:
        self.space.create("Model", "tutor", MODEL)
        for number in (1, 2):
            self.space.create("ModelVersion", f"tutor-v{number}", _record(number))

    def step(self) -> bool:
        """True when the alias is back, every Job has gone, and the statuses say so."""
        jobs = self.space.list("Job")
        alias = self._alias()
        versions = {v["spec"]["version"]: v for v in self.space.list("ModelVersion")}
        self._watch(alias, jobs, versions)
        for job in jobs:
            self._play(job)
        arrived = {n for n, v in versions.items() if [d["state"] for d in _deliveries(v)] == ["Delivered"] * 2}
        ready = {n for n, v in versions.items() if conditions_of(v).get("Ready", "") == "True/Verified"}
        if not self.approved and ready == {1, 2}:
            self._decide(1, "Approved")
        elif self.approved == {1} and arrived == {1} and alias == 1:
            self._decide(2, "Approved")
        elif self.approved == {1, 2} and arrived == {1, 2} and alias == 2 and not self.withdrawn:
            self.withdrawn = True
            self._decide(2, "Candidate")
        columns = [(versions[n].get("status") or {}).get("aliases") for n in (1, 2)]
        return self.withdrawn and alias == 1 and columns == ["champion", None] and not jobs

    def _decide(self, number: int, state: str) -> None:
        self.approved.add(number)
        decision = {"state": state, "by": "ada"} if state == "Approved" else {"state": state}
        self.space.patch("ModelVersion", f"tutor-v{number}", {"spec": {"approval": decision}})

    def _alias(self) -> int | None:
        entries = (self.space.get("Model", "tutor").get("status") or {}).get("aliases") or [{}]
        number: int | None = entries[0].get("version")
        return number

    def _watch(self, alias: int | None, jobs: Sequence[dict[str, Any]], versions: dict[int, dict[str, Any]]) -> None:
        """What may never be seen; a decision of this hand is noted before it is written."""
        if alias and alias not in self.approved:
            self.wrong.append(f"the alias means version {alias}, which nobody has approved")
        for job in jobs:
            number = int(job["metadata"]["ownerReferences"][0]["name"][-1])
            if _component(job) == "deliver":
                if "key" not in ((versions[number].get("status") or {}).get("signature") or {}):
                    self.wrong.append(f"version {number} is delivered before it is signed")
                if number not in self.approved:
                    self.wrong.append(f"version {number} is delivered before it is approved")

    def _play(self, job: dict[str, Any]) -> None:
        name, of = job["metadata"]["name"], _component(job)
        if any(c["type"] in ("Complete", "Failed") for c in job["status"].get("conditions") or ()):
            return
        if of == "verify":
            self.space.succeed(name, {"kind": "Verify", "files": 1, "sizeBytes": 1})
        elif of == "sign":
            self.space.succeed(name, {"kind": "Sign", "key": self.key})
        else:
            config = job["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
            plan = json.loads(self.space.get("ConfigMap", config)["data"]["plan.json"])
            place = f"{plan['target']['uri']}/{plan['name']}"
            sizes = {"sizeBytes": 1, "uploadedBytes": 1}
            self.space.succeed(name, {"kind": "Deliver", "location": place, "digest": "sha256:" + "1" * 64, **sizes})

    def state(self) -> dict[str, Any]:
        """What must not depend on when the operator was killed."""
        (alias,) = self.space.get("Model", "tutor")["status"]["aliases"]
        versions = self.space.list("ModelVersion")
        return {
            "wrong": self.wrong,
            "alias": (alias["name"], alias["version"], alias.get("approvedBy")),
            "history": [entry["version"] for entry in alias["history"]],
            "versions": {v["metadata"]["name"]: conditions_of(v) for v in versions},
            "signed by": {v["status"]["signature"]["key"] for v in versions},
            "deliveries": [(d["location"], d["state"], d["tries"]) for v in versions for d in _deliveries(v)],
            "jobs": self.space.names("Job"),
            "plans": len([n for n in self.space.names("ConfigMap") if n.startswith("tutor-")]),
        }


def _record(number: int) -> dict[str, Any]:
    job, base = f"earlier-{number}", {"uri": "hf://org/model", "commit": "abc"}
    uri = f"pvc://hone-store/models/{job}/1/merged"
    spec = version_spec("Merged", uri, str(number), number, baseModel=base, job={"name": job, "uid": job})
    return spec | {"evaluation": {"numbers": []}}


def _component(job: dict[str, Any]) -> str:
    return str(job["metadata"]["labels"]["hone.dev/component"])


def _deliveries(version: dict[str, Any]) -> list[dict[str, Any]]:
    return (version.get("status") or {}).get("deliveries") or []


@pytest.fixture
def sweep(kube, tmp_path, free_ports):
    proxy = FaultProxy.of(kube)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(proxy.kubeconfig()))
    public = Key(tmp_path / "key").public
    signing = {"secret_name": "platform-key", "public_keys": [public], "required": True}
    processes = Processes(str(tmp_path / "operator.log"), str(kubeconfig))
    fingerprint = public_key_fingerprint(public)
    yield Sweep(
        proxy,
        processes,
        lambda: new_space(kube, "kill"),
        lambda space: ModelLife(space, fingerprint),
        free_ports(2),
        {"HONE_SIGNING": json.dumps(signing)},
    )
    processes.close()
    proxy.stop()


@pytest.mark.faults("D8")
@pytest.mark.parametrize(
    ("points", "step"),
    [pytest.param(POINTS, 15, id="a sample"), *[pytest.param((p,), 1, id=p, marks=pytest.mark.long) for p in POINTS]],
)
def test_killed_at_any_write_of_a_models_life_the_end_is_the_same(
    sweep: Sweep, points: Sequence[Point], step: int, record_property: Any
) -> None:
    undisturbed, writes = sweep.life(None)
    assert undisturbed["wrong"] == []
    assert undisturbed["alias"] == ("champion", 1, "ada")
    assert undisturbed["history"] == [2, 1]
    assert [(place, tries) for place, state, tries in undisturbed["deliveries"] if state == "Delivered"] == [
        (f"{uri}/tutor-v{number}", 1) for number in (1, 2) for uri in (IMAGE, BUCKET)
    ]
    tried: list[list[Any]] = []
    for number in range(step, len(writes) + 10, step):
        point = points[len(tried) % len(points)]
        state, done = sweep.life((number, point))
        if len(done) < number:
            break  # the life has no such write: the sweep is complete
        held = state == undisturbed and len(done) <= len(writes) + 15
        tried.append(["D8", f"write {number}, {point}: {done[number - 1]}", held])
        record_property("faults", tried)
        assert state == undisturbed, f"killed at write {number} ({point}): {done[number - 1]}"
        assert len(done) <= len(writes) + 15, f"killed at write {number} ({point}): {done}"
    assert len(tried) * step > 20
