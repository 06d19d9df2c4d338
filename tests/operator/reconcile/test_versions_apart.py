"""Versions apart by one: an unknown field is a warning, and a refusal ends no run that has begun."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hone_api.base.reading import read_known
from hone_api.contract.termination import TerminationMessage as Ending
from hone_operator.apiserver.cluster import UNDECLARED, without
from hone_operator.reconcile.core.outcome import Outcome

pytestmark = pytest.mark.pure


def accepted(life: Any) -> Any:
    return next(c for c in life.status["conditions"] if c["type"] == "Accepted")


AHEAD = [("training", "future"), ("resources", "future"), ("scheduling", "future"), ("cleanup", "future")]


@pytest.mark.parametrize(("block", "field"), AHEAD)
def test_a_field_of_a_newer_definition_is_a_warning(new_life: Any, block: str, field: str) -> None:
    life = new_life(**{block: {field: {"nested": [1]}}})
    outcome = life.tick()
    assert [b["kind"] for b in outcome.create if b["kind"] == "Job"] == ["Job"]
    assert (accepted(life)["status"], accepted(life)["reason"]) == ("True", "UnknownFields")
    assert f"spec.{block}.{field}" in accepted(life)["message"]
    assert "UnknownFields" in [e.reason for e in outcome.events]
    assert life.tick(1).events == ()


def test_an_unknown_field_at_the_top_is_a_warning(new_life: Any) -> None:
    life = new_life(future="x")
    assert life.tick().create
    assert "spec.future" in accepted(life)["message"]


@pytest.mark.parametrize(("block", "field"), AHEAD)
def test_a_run_goes_on_when_the_definition_is_replaced_by_a_newer_one(life: Any, block: str, field: str) -> None:
    life.tick()
    life.pods(life.world.pod(0))
    life.tick(5)
    assert life.status["phase"] == "Running"
    life.job["spec"].setdefault(block, {})[field] = 1
    outcome = life.tick(10)
    assert outcome.delete == ()
    assert life.status["phase"] == "Running"
    assert accepted(life)["reason"] == "UnknownFields"
    del life.job["spec"][block][field]
    life.tick(20)
    assert (accepted(life)["reason"], life.status["phase"]) == ("Accepted", "Running")


REFUSED = [
    {"deepspeed": {"zeroStage": 3, "offload": "NVMe"}},
    {"method": "Future"},
    {"training": {"batchSize": "eight"}},
    {"deepspeed": {}},
    {"model": {"uri": "pvc://models/../x"}},
]


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_a_refusal_ends_no_attempt_that_runs(life: Any, change: dict[str, Any]) -> None:
    life.tick()
    life.pods(life.world.pod(0))
    life.tick(5)
    before = dict(life.job["spec"])
    life.job["spec"] |= change
    outcome = life.tick(10)
    assert (outcome.delete, outcome.create) == ((), ())
    assert accepted(life)["status"] == "False"
    assert life.status["phase"] == "Running"
    assert "failure" not in life.status
    assert life.tick(11) == Outcome(check_again_in=life.tick(11).check_again_in)
    life.job["spec"] = before
    life.tick(20)
    assert accepted(life)["status"] == "True"


def test_no_further_attempt_starts_while_the_spec_is_refused(life: Any) -> None:
    life.tick()
    life.ends("Failed", life.world.disrupted())
    life.job["spec"]["deepspeed"] = {"zeroStage": 3, "offload": "NVMe"}
    outcome = life.tick(60)
    assert outcome.create == ()
    assert [a["outcome"] for a in life.status["attempts"]] == ["Preempted"]
    assert "failure" not in life.status
    del life.job["spec"]["deepspeed"]
    assert [b["kind"] for b in life.tick(70).create if b["kind"] == "Job"] == ["Job"]


def test_a_finished_run_is_read_with_an_unknown_field(new_life: Any) -> None:
    life = new_life(deepspeed={"zeroStage": 3, "offload": "NVMe"}, cleanup={"future": 1})
    life.tick()
    assert life.tick(10) == Outcome()


def test_what_an_older_definition_lacks_is_left_out_of_a_status() -> None:
    words = """failed to create typed patch object (t/run; hone.dev/v1alpha1, Kind=FineTuneJob): errors:
      .status.progress.stage: field not declared in schema
      .status.attempts[0].lostSteps: field not declared in schema
      .status.future: field not declared in schema"""
    status = {"future": 1, "progress": {"stage": "x", "step": 1}, "attempts": [{"number": 1, "lostSteps": 2}]}
    paths = UNDECLARED.findall(words)
    assert without(status, paths) == {"progress": {"step": 1}, "attempts": [{"number": 1}]}
    assert status["future"] == 1


def test_unknown_fields_of_a_union_are_named() -> None:
    text = {"result": {"kind": "Verify", "files": 1, "sizeBytes": 2, "future": {}}, "newer": 1}
    ending, unknown = read_known(Ending, json.loads(json.dumps(text)))
    assert ending.result is not None
    assert sorted(unknown) == ["newer", "result.Verify.future"]


@pytest.mark.parametrize("phase", ["Running", "Pending", "Failed"])
def test_a_forged_phase_of_a_finished_run_is_put_right(new_life: Any, phase: str) -> None:
    life = new_life(deepspeed={"zeroStage": 3, "offload": "NVMe"})
    life.tick()
    life.job["status"]["phase"] = phase
    life.tick(10)
    assert life.status["phase"] == "Failed"


def test_a_forged_model_of_a_pending_run_is_put_right(life: Any) -> None:
    life.datasets = {}
    life.tick()
    life.job["status"] |= {
        "modelVersionName": "forged-v1",
        "phase": "Succeeded",
        "completionTime": "2026-01-01T00:00:00Z",
    }
    life.tick(1)
    assert "modelVersionName" not in life.status
    assert "completionTime" not in life.status
    assert life.status["phase"] == "Pending"
    assert replace(Outcome(), status=None) == life.tick(2)
