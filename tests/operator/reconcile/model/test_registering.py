"""Versions and aliases in a model registry outside the cluster, decided from what is observed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cluster.platforms import changed
from support.lives.decided import Decided

from hone_api.blocks.tracking import RegisteredAlias, RegisteredVersion
from hone_api.contract.report import MAX_AT_ONCE, RegisterResult
from hone_api.contract.termination import TerminationMessage
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.model.model import ObservedForModel, reconcile
from hone_operator.reconcile.model.registering import ObservedForRegistry

pytestmark = pytest.mark.pure
SERVER = "https://mlflow.example.org"
RUN = {"uri": SERVER, "experiment": "faq", "runId": "0123abcd"}
IMAGE = "oci://registry.example.org/team/tutor@sha256:" + "1" * 64


def version(number: int, **status: Any) -> dict[str, Any]:
    """A ModelVersion of tutor that is Ready."""
    meta = {"name": f"tutor-v{number}", "uid": f"uid-{number}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    artifact = {"format": "Adapter", "uri": f"pvc://hone-store/models/job-{number}/adapter"}
    lineage = {
        "baseModel": {"uri": "hf://org/base@main", "commit": "0abc"},
        "datasets": [{"name": "faq", "split": "train", "digest": "sha256:" + "2" * 64}],
        "job": {"name": "run", "uid": f"job-{number}"},
        "tracking": RUN,
    }
    spec = {"modelName": "tutor", "version": number, "artifacts": [artifact], "lineage": lineage}
    conditions = [{"type": "Ready", "status": "True", "reason": "Verified", "message": ""}]
    return {"kind": "ModelVersion", "metadata": meta, "spec": spec, "status": {"conditions": conditions, **status}}


class Life(Decided):
    """A Model with a registry that is reconciled again and again."""

    def __init__(self, world: Any) -> None:
        spec = {"registry": {"mlflow": {"uri": SERVER, "secretName": "hone-mlflow"}}}
        super().__init__(world, "Model", "tutor", spec)
        self.platform = world.platform
        self.versions = [version(1)]

    def tick(self, seconds: float = 0, refusals: tuple[Refusal, ...] = ()) -> Outcome:
        seen = ObservedForModel(self.versions, registry=ObservedForRegistry(self.platform, self.children, refusals))
        return self.carry_out(reconcile(self.body, seen, self.world.time(seconds)))

    def plan(self, outcome: Outcome) -> dict[str, Any]:
        (config,) = [body for body in outcome.create if body["kind"] == "ConfigMap"]
        plan: dict[str, Any] = json.loads(config["data"]["plan.json"])
        self.last = plan
        return plan

    def registers(self) -> None:
        """The Job does what its plan says."""
        result = {
            "kind": "Register",
            "versions": [
                {"version": v["version"], "registered": str(10 + v["version"])} for v in self.last["versions"]
            ],
            "aliases": self.last["aliases"],
            "removed": self.last["remove"],
        }
        self.ends("Complete", self.world.dead(0, outcome={"result": result}))

    def pin(self, **aliases: int) -> None:
        self.body["spec"]["aliases"] = [{"name": name, "version": number} for name, number in aliases.items()]

    @property
    def registry(self) -> dict[str, Any]:
        registry: dict[str, Any] = self.body["status"]["registry"]
        return registry


@pytest.fixture
def life(world: Any) -> Life:
    return Life(world)


def test_a_ready_version_is_registered_with_its_run_and_its_alias(life: Life, conditions: Any) -> None:
    life.pin(champion=1)
    outcome = life.tick()
    plan = life.plan(outcome)
    assert (plan["uri"], plan["name"], plan["namespace"], plan["secretPath"]) == (
        SERVER,
        "tutor",
        "team",
        "/secrets/source",
    )
    (entry,) = plan["versions"]
    assert (entry["version"], entry["uid"], entry["runId"]) == (1, "uid-1", "0123abcd")
    assert entry["source"] == "pvc://hone-store/models/job-1/adapter"
    assert entry["tags"]["hone.base"] == "hf://org/base@0abc"
    assert entry["tags"]["hone.dataset.faq"] == "sha256:" + "2" * 64
    assert [(alias["name"], alias["version"]) for alias in plan["aliases"]] == [("champion", 1)]
    assert conditions(life.body["status"])["Registered"] == "False/Registering"
    assert life.tick(10).create == (), "one Job at a time"
    life.registers()
    life.tick(60)
    assert conditions(life.body["status"])["Registered"] == "True/Registered"
    assert life.registry["versions"] == [{"version": 1, "registered": "11"}]
    assert [(a["name"], a["version"]) for a in life.registry["aliases"]] == [("champion", 1)]
    assert life.children == []
    assert life.tick(1000) == Outcome()


def test_a_promotion_moves_the_alias_there_and_a_rollback_moves_it_back(life: Life) -> None:
    life.versions = [version(1), version(2)]
    seconds = 0
    for number in (1, 2, 1):
        life.pin(champion=number)
        seconds += 100
        plan = life.plan(life.tick(seconds))
        assert [(alias["name"], alias["version"]) for alias in plan["aliases"]] == [("champion", number)]
        life.registers()
        life.tick(seconds + 50)
        assert [(a["name"], a["version"]) for a in life.registry["aliases"]] == [("champion", number)]


def test_an_alias_that_moves_while_a_job_runs_waits_for_its_end(life: Life) -> None:
    life.versions = [version(1), version(2)]
    life.pin(champion=1)
    life.plan(life.tick())
    life.pin(champion=2)
    assert life.tick(10).create == ()
    assert len(life.children) == 1, "nor is the Job deleted, whose pod could still write"
    life.registers()
    plan = life.plan(life.tick(60))
    assert [(alias["name"], alias["version"]) for alias in plan["aliases"]] == [("champion", 2)]


def test_an_alias_that_is_gone_is_removed(life: Life) -> None:
    life.pin(champion=1)
    life.plan(life.tick())
    life.registers()
    life.tick(60)
    life.pin()
    assert life.plan(life.tick(70))["remove"] == ["champion"]
    life.registers()
    life.tick(90)
    assert "aliases" not in life.registry or life.registry["aliases"] == []


def test_the_source_is_where_the_version_was_delivered(life: Life, conditions: Any) -> None:
    life.body["spec"]["deliveries"] = [{"uri": "oci://registry.example.org/team/tutor"}]
    life.pin(champion=1)
    assert life.tick().create == ()
    assert conditions(life.body["status"])["Registered"] == "False/Waiting"
    life.versions = [version(1, deliveries=[{"state": "Delivered", "location": IMAGE}])]
    assert [entry["source"] for entry in life.plan(life.tick(10))["versions"]] == [IMAGE]


@pytest.mark.parametrize("change", [{"uri": "https://other.example.org"}, {"name": "another"}])
def test_a_job_for_one_registry_says_nothing_of_another(life: Life, conditions: Any, change: dict[str, str]) -> None:
    life.pin(champion=1)
    life.plan(life.tick())
    life.body["spec"]["registry"]["mlflow"] |= change
    life.registers()
    outcome = life.tick(60)
    assert life.registry.get("versions", []) == []
    assert conditions(life.body["status"])["Registered"] == "False/Registering"
    assert [v["version"] for v in life.plan(outcome)["versions"]] == [1]
    assert len(life.children) == 1, "the Job for the old one is deleted"
    life.registers()
    life.tick(120)
    assert [v["version"] for v in life.registry["versions"]] == [1]


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(
    "uri", ["https://[mlflow", "https://mlflow.example.org]:5000", "https://mlflow\u2100.example.org"]
)
def test_an_address_that_cannot_be_parsed_stops_nothing_else(life: Life, uri: str) -> None:
    life.body["spec"]["registry"]["mlflow"]["uri"] = uri
    life.pin(champion=1)
    life.tick()
    assert [entry["name"] for entry in life.body["status"]["aliases"]] == ["champion"]


def test_a_run_of_another_server_is_only_a_tag(life: Life) -> None:
    life.body["spec"]["registry"]["mlflow"]["uri"] = "https://registry.example.org"
    (entry,) = life.plan(life.tick())["versions"]
    assert "runId" not in entry
    assert entry["tags"]["hone.run_id"] == "0123abcd"


def test_an_unreachable_server_is_tried_again(life: Life, conditions: Any) -> None:
    life.tick()
    life.ends("Failed", life.world.dead(74, outcome=life.world.failure("DestinationUnreachable", "no route")))
    outcome = life.tick(60)
    assert outcome.create == ()
    assert outcome.check_again_in
    assert conditions(life.body["status"])["Registered"] == "False/DestinationUnreachable"
    assert len([b for b in life.tick(1000).create if b["kind"] == "Job"]) == 1


def test_a_refusal_is_final_until_the_registry_changes(life: Life, conditions: Any) -> None:
    life.tick()
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("DestinationRefused", "not MLflow")))
    life.tick(60)
    assert conditions(life.body["status"])["Registered"] == "False/DestinationRefused"
    assert life.tick(10_000) == Outcome()
    life.children[-1] = life.world.without_pods(life.children[-1])
    assert life.tick(10_000) == Outcome(), "nor when the pod that said so is gone with its node"
    life.body["spec"]["registry"]["mlflow"]["uri"] = "https://other.example.org"
    assert life.plan(life.tick(10_001))["uri"] == "https://other.example.org"


def test_a_secret_outside_the_prefix_is_not_mounted(life: Life, conditions: Any) -> None:
    life.platform = changed(life.platform, tenants__secret_prefix="hone-")
    life.body["spec"]["registry"]["mlflow"]["secretName"] = "database-password"
    assert life.tick().create == ()
    assert conditions(life.body["status"])["Registered"] == "False/NotAllowed"


def test_a_pod_that_cannot_start_is_replaced_without_being_asked_for(life: Life) -> None:
    life.tick()
    life.children[-1] = life.world.child(life.children[-1].body, life.world.waiting("ImagePullBackOff", "no image"))
    life.tick(10)
    assert [body["kind"] for body in life.tick(1000).delete] == ["Job"]
    (registered,) = [c for c in life.body["status"]["conditions"] if c["type"] == "Registered"]
    assert registered["reason"] == "ImagePullFailed"
    assert "To try again" not in registered["message"]
    assert [body["kind"] for body in life.tick(1001).create] == ["ConfigMap", "Job"]


def test_a_quota_is_waited_for(life: Life, conditions: Any) -> None:
    (name,) = [b["metadata"]["name"] for b in life.tick().create if b["kind"] == "Job"]
    life.children.clear()
    assert life.tick(1, (Refusal("Job", name, "QuotaExceeded", "count/jobs", False),)).check_again_in == 15
    assert conditions(life.body["status"])["Registered"] == "False/QuotaExceeded"


def test_without_a_registry_nothing_is_left_of_it(life: Life) -> None:
    life.tick()
    (job,) = life.children
    del life.body["spec"]["registry"]
    assert life.tick(10).delete == (job.body,)
    assert "registry" not in life.body["status"]
    assert "Registered" not in {c["type"] for c in life.body["status"]["conditions"]}


def test_a_rejected_version_is_not_registered(life: Life) -> None:
    life.versions[0]["spec"]["approval"] = {"state": "Rejected"}
    assert life.tick().create == ()


def test_many_versions_go_in_parts_whose_results_fit(life: Life) -> None:
    life.versions = [version(number) for number in range(1, 2 * MAX_AT_ONCE)]
    seen: list[int] = []
    for seconds in (0, 100):
        seen += [entry["version"] for entry in life.plan(life.tick(seconds))["versions"]]
        life.registers()
    life.tick(200)
    assert seen == list(range(1, 2 * MAX_AT_ONCE))
    assert len(life.registry["versions"]) == len(seen)


def test_the_largest_result_fits_in_a_termination_message() -> None:
    result = RegisterResult(
        versions=[RegisteredVersion(version=1_000_000, registered="1000000")] * 2 * MAX_AT_ONCE,
        aliases=[RegisteredAlias(name="a" * 32, version=1_000_000, since="2026-01-02T03:04:05Z")] * MAX_AT_ONCE,
        removed=["a" * 32] * MAX_AT_ONCE,
    )
    text = TerminationMessage(result=result).to_termination_message()
    assert len(TerminationMessage.model_validate_json(text).result.versions) == 2 * MAX_AT_ONCE


def test_a_person_asks_for_another_attempt(life: Life, conditions: Any) -> None:
    (first,) = [b["metadata"]["name"] for b in life.tick().create if b["kind"] == "Job"]
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("DestinationRefused", "not MLflow")))
    life.tick(60)
    (registered,) = [c for c in life.body["status"]["conditions"] if c["type"] == "Registered"]
    command = 'kubectl annotate models.hone.dev tutor hone.dev/retry="$(date +%s)" --overwrite'
    assert registered["message"] == f"not MLflow. To try again: {command}"
    life.body["metadata"]["annotations"] = {"hone.dev/retry": "1"}
    (second,) = [b["metadata"]["name"] for b in life.tick(61).create if b["kind"] == "Job"]
    assert second != first
    assert (conditions(life.body["status"])["Registered"], life.body["status"]["retried"]) == ("False/Registering", "1")
