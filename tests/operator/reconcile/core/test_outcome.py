"""What an outcome creates, in steps."""

from typing import Any

import pytest

from hone_operator.reconcile.core.outcome import Outcome

pytestmark = pytest.mark.pure


def body(kind: str, name: str, owner: str = "known") -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "ownerReferences": [{"uid": owner}]}}


def steps(*bodies: dict[str, Any]) -> list[list[str]]:
    return [[b["metadata"]["name"] for b in step] for step in Outcome(create=bodies).creation_steps()]


def test_a_job_waits_for_all_before_it_and_all_after_it_wait_for_the_job() -> None:
    parts = body("ConfigMap", "plan"), body("Service", "run"), body("Job", "run-1"), body("ConfigMap", "other")
    assert steps(*parts) == [["plan", "run"], ["run-1"], ["other"]]


def test_what_belongs_to_an_object_without_a_uid_waits_for_it() -> None:
    parts = body("PersistentVolumeClaim", "store"), body("ConfigMap", "plan", owner=""), body("Job", "run-1", owner="")
    assert steps(*parts) == [["store"], ["plan"], ["run-1"]]


def test_nothing_is_left_out_and_nothing_comes_twice() -> None:
    assert steps() == []
    assert steps({"kind": "ConfigMap", "metadata": {"name": "no-owner"}}) == [["no-owner"]]
