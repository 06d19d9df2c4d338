"""A Dataset that several pods materialize: the pods that check rows exist while the leading pod needs them."""

from __future__ import annotations

from typing import Any

import pytest
from dataset_life import RESULT, Life, plan_of

from hone_operator.desired.core import names
from hone_operator.reconcile.core.outcome import Outcome

pytestmark = pytest.mark.pure
THREE = {"resources": {"pods": 3}}


def _component(body: Any) -> str:
    return str(body["metadata"]["labels"][names.COMPONENT])


def _jobs(bodies: Any) -> list[str]:
    return [_component(body) for body in bodies if body["kind"] == "Job"]


def test_the_others_are_created_before_the_pod_that_they_work_for(world: Any) -> None:
    outcome = Life(world, **THREE).tick()
    assert [b["kind"] for b in outcome.create] == ["ConfigMap", "NetworkPolicy", "Service", "Job", "Job"]
    assert _jobs(outcome.create) == ["materialize-workers", "materialize"]
    workers, lead = outcome.create[3:]
    assert (workers["spec"]["completions"], lead["spec"]["completions"]) == (2, 1)
    service = outcome.create[2]["metadata"]["name"]
    assert lead["spec"]["template"]["spec"]["subdomain"] == service
    plan = plan_of(outcome)
    assert plan.workers.pods == 3
    assert plan.workers.host == f"{lead['metadata']['name']}-0.{service}.team.svc.cluster.local"


def test_the_others_read_and_write_nothing_and_are_replaced_when_they_are_lost(world: Any) -> None:
    workers = Life(world, **THREE).tick().create[3]
    volumes = workers["spec"]["template"]["spec"]["volumes"]
    assert {kind for volume in volumes for kind in volume if kind != "name"} == {"configMap", "emptyDir"}
    assert "podFailurePolicy" not in workers["spec"]
    assert workers["spec"]["backoffLimit"] == 12


def test_they_end_with_the_rows(world: Any, conditions: Any) -> None:
    life = Life(world, **THREE)
    life.tick()
    assert life.tick(10) == Outcome()
    life.ends("Complete", world.dead(0, outcome={"result": RESULT}))
    assert _jobs(life.tick(61).delete) == ["materialize-workers"]
    assert conditions(life.status)["Ready"] == "True/Materialized"
    assert life.tick(1000) == Outcome()


def test_they_end_with_an_attempt_and_the_next_one_has_its_own(world: Any) -> None:
    life = Life(world, **THREE)
    first = life.tick().create[3]
    life.ends("Failed", world.dead(0, outcome={"failure": {"code": "SourceUnreachable", "message": "no answer"}}))
    assert life.tick(61).delete == (first,)
    second = life.tick(1000).create[3]
    assert second["metadata"]["name"] != first["metadata"]["name"]
    assert life.tick(1010) == Outcome()


def test_an_operator_that_ended_between_both_creates_the_same_again(world: Any) -> None:
    life, before = Life(world, **THREE), Life(world, **THREE).tick().create
    life.children = [world.child(before[3])]
    outcome = life.tick()
    assert list(outcome.create) == list(before)
    assert not outcome.delete


def test_they_end_if_the_job_that_they_work_for_is_deleted(world: Any) -> None:
    life = Life(world, **THREE)
    workers = life.tick().create[3]
    life.children = [child for child in life.children if child.name == workers["metadata"]["name"]]
    outcome = life.tick(10)
    assert list(outcome.delete) == [workers]
    assert _jobs(outcome.create) == ["materialize-workers", "materialize"]


def test_an_edit_ends_all_of_them(world: Any) -> None:
    life = Life(world, **THREE)
    life.tick()
    life.dataset["metadata"]["generation"] = 2
    outcome = life.tick(10)
    assert _jobs(outcome.delete) == ["materialize", "materialize-workers"]
    assert _jobs(outcome.create) == ["materialize-workers", "materialize"]
