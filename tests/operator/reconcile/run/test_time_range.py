"""status.estimatedSecondsRange: a guess before the first attempt, and a measurement from its first steps on."""

from __future__ import annotations

from typing import Any

import pytest
from support.models import shapes

from hone_api.kinds.finetunejob_status import FineTuneJobStatus, JobProgress
from hone_operator.progress.numbers import Latest

pytestmark = pytest.mark.pure

SHAPE = shapes.LLAMA_7B.model_dump(by_alias=True)
STEPS = 400


def report(world: Any, step: int, *, each: float = 3, first: float = 60, start: int = 0, **more: Any) -> Latest:
    """Of an attempt whose first step took `first` seconds, and `each` of its others `each`."""
    phases = {"loading": 900.0, "firstStep": first, "training": each * (step - start - 1), "evaluating": 700.0}
    progress = JobProgress(step=step, total_steps=STEPS, stage=more.pop("stage", "Training"))
    values: dict[str, Any] = {"eta_seconds": round(each * (STEPS - step)), "phases": phases, **more}
    return Latest(attempt=1, progress=progress, received=world.time(1000), start_step=start, **values)


@pytest.fixture
def started(world: Any, new_life: Any) -> Any:
    """A job on a known GPU, whose pods run, and that has a range before its first step."""
    life = new_life(
        model={"uri": "hf://org/model@main"}, resources={"gpusPerNode": 1, "gpuProducts": ["NVIDIA-A100-80GB"]}
    )
    status = life.datasets["rows"]["status"]
    status["splits"], status["tokens"] = [{"name": "train", "rows": 3200}], {"mean": 500, "max": 600}
    life.tick()
    result = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "abc", "shape": SHAPE}
    life.ends("Complete", world.dead(0, outcome={"result": result}))
    life.tick(61)
    life.pods(world.pod())
    life.tick(70)
    return life


def test_the_first_steps_correct_the_range_of_the_estimate(world: Any, started: Any) -> None:
    before, truth, expected = started.status["estimatedSecondsRange"], 60 + 3 * 399, started.status["estimatedSeconds"]
    assert before["high"] < truth
    started.report = report(world, 3)
    started.tick(80)
    assert started.status["estimatedSecondsRange"] == before, "three steps say too little"
    widths = []
    for step in (4, 25, 100, 399):
        started.report = report(world, step)
        started.tick(80 + step)
        span = started.status["estimatedSecondsRange"]
        assert span["low"] <= truth <= span["high"]
        widths.append((span["high"] - span["low"]) / truth)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] < 1
    assert widths[-1] < 0.01
    assert started.status["estimatedSeconds"] == expected, "what was estimated stays, to compare with"
    FineTuneJobStatus.model_validate(started.status)


def test_a_resumed_attempt_counts_the_steps_before_it(world: Any, started: Any) -> None:
    started.report = report(world, 300, start=200)
    started.tick(80)
    span = started.status["estimatedSecondsRange"]
    assert span["low"] <= 60 + 3 * 399 <= span["high"] < 1300


@pytest.mark.parametrize(
    "unknown",
    [{"stage": "Evaluating", "eta_seconds": 4}, {"eta_seconds": None}, {"phases": {}}],
    ids=["of another stage", "no time left", "a trainer without phases"],
)
def test_a_report_that_does_not_time_the_steps_changes_nothing(world: Any, started: Any, unknown: Any) -> None:
    started.report = report(world, 100)
    started.tick(80)
    before = started.status["estimatedSecondsRange"]
    assert before["low"] <= 60 + 3 * 399 <= before["high"]
    started.report = report(world, 120, **unknown)
    started.tick(90)
    assert started.status["progress"]["step"] == 120
    assert started.status["estimatedSecondsRange"] == before


def test_a_run_on_a_cpu_has_a_range_from_its_first_steps_on(world: Any, life: Any) -> None:
    life.tick()
    life.pods(world.pod())
    assert "estimatedSecondsRange" not in life.status
    life.report = report(world, 16)
    life.tick(80)
    span = life.status["estimatedSecondsRange"]
    assert span["low"] <= 60 + 3 * 399 <= span["high"]
