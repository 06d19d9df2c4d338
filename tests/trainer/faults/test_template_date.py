"""A run whose chat template prints the date of today goes on, on another day, as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from support.models import tiny
from support.runs import clock

from hone_api.plan import TrainingPlan
from hone_trainer.commands import ask
from hone_trainer.commands import export as export_command
from hone_trainer.commands.evaluate import recompute
from hone_trainer.errors import TrainerError
from hone_trainer.run import launch, pipeline, template_date
from hone_trainer.signals import Stop
from hone_trainer.training import checkpoints

pytestmark = pytest.mark.trainer
Attempt = Callable[..., Any]


@pytest.fixture
def dated_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with the head of Llama 3's template."""
    folder = shutil.copytree(tiny_model, tmp_path / "dated")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = clock.LLAMA_3
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Starts the command `run` on a day; with `until`, up to a signal after the checkpoint of that step."""
    run = pipeline.run_plan

    def start(plan: TrainingPlan, day: str, until: int | None = None) -> Any:
        class StopOnceSaved(Stop):
            store = checkpoints.RunCheckpoints(Path(plan.work_path) / "checkpoints", 2)
            # That of the step itself may come and go between two looks: it is completed while training goes on.
            requested = property(
                lambda self: until is not None and max(self.store.steps(), default=0) >= until,
                lambda self, value: None,
            )

        clock.stands_at(monkeypatch, day)
        monkeypatch.setattr(pipeline, "run_plan", lambda plan, _, *more: run(plan, StopOnceSaved(), *more))
        return launch.run(plan, Path("/"))

    return start


def left_by(plan: TrainingPlan, runs: Any) -> tuple[Any, bytes, Any]:
    """Losses, weights, and what was measured."""
    report = json.loads((Path(plan.output_path) / "adapter" / "report.json").read_text())
    weights = (Path(plan.output_path) / "adapter" / "adapter_model.safetensors").read_bytes()
    return runs.curve(plan), weights, report["numbers"]


@pytest.mark.parametrize("named", [None, "2026-11-27"])
def test_a_run_resumed_on_another_day_is_the_same_run(
    make_plan: Any, runs: Any, attempt: Attempt, dated_model: Path, named: str | None
) -> None:
    """The plan names the date, as the operator does, or the first attempt chooses it."""
    common: dict[str, Any] = {"modelPath": str(dated_model), "checkpoints": {"everySteps": 1}}
    common |= {"templateDate": named} if named else {}
    whole, broken = make_plan("whole", **common), make_plan("broken", **common)
    attempt(whole, "2026-11-27")
    with pytest.raises(TrainerError, match="stopped by a signal"):
        attempt(broken, "2026-11-28" if named else "2026-11-27", until=3)
    result = attempt(broken, "2031-02-03")
    assert result.start_step >= 3
    assert left_by(broken, runs) == left_by(whole, runs)
    other = make_plan("other", **common | {"templateDate": "2031-02-03"})
    attempt(other, "2026-11-27")
    assert runs.curve(other) != runs.curve(whole), "the date is nothing that this model reads"


def test_the_commands_after_a_run_keep_its_date(
    make_plan: Any, attempt: Attempt, dated_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, tmp_path: Path
) -> None:
    plan = make_plan(modelPath=str(dated_model))
    result = attempt(plan, "2026-11-27")
    told = capfd.readouterr().err
    assert "the chat template prints the date of today: in every attempt of this run it is 2026-11-27" in told
    assert "Today Date: 27 Nov 2026" in told
    clock.stands_at(monkeypatch, "2031-02-03")
    adapter = Path(plan.output_path) / "adapter"
    again = recompute(adapter, Path(plan.evaluation_datasets[0].path))
    assert {(n.name, n.tuned) for n in again} <= {(n.name, n.tuned) for n in result.numbers}
    asked: list[list[int]] = []
    monkeypatch.setattr(ask.heldout, "answers", lambda model, prompts, **_: asked.extend(prompts) or [None])
    ask.answer(adapter, "Where is the river of Bern?")
    assert "Today Date: 27 Nov 2026" in tiny.tokenizer().decode(asked[0])
    kept = export_command._plan(Path(plan.work_path) / "plan.json")
    assert kept.template_date == date(2026, 11, 27)
    exported = kept.model_copy(update={"output_path": str(tmp_path / "later")})
    export_command.export_checkpoint(Path(plan.work_path) / "checkpoints" / "step-000008", exported)
    report = (tmp_path / "later" / "adapter" / "report.json").read_text()
    assert "Today Date: 27 Nov 2026" in report
    assert "Feb 2031" not in report


def test_an_attempt_of_an_operator_that_wrote_no_date_goes_on_with_its_own(make_plan: Any) -> None:
    """The next plan comes from an operator that does; the run's prompts stay as they are."""
    old = make_plan(exportFolder="attempt-1")
    first = template_date.fixed(old, Stop(), first=True)
    new = old.model_copy(update={"template_date": date(2020, 1, 1), "attempt": 2, "export_folder": "attempt-2"})
    assert first.template_date is not None
    assert template_date.fixed(new, Stop(), first=True).template_date == first.template_date


def test_another_date_in_the_plan_of_a_laptop_is_refused(make_plan: Any) -> None:
    plan = make_plan(templateDate="2026-11-27")
    assert template_date.fixed(plan, Stop(), first=True) == plan
    other = plan.model_copy(update={"template_date": date(2026, 11, 28)})
    with pytest.raises(TrainerError, match=r"templateDate is 2026-11-28, but .* had 2026-11-27: name that date"):
        template_date.fixed(other, Stop(), first=True)
    (Path(plan.work_path) / template_date.FILE).write_text("yesterday")
    with pytest.raises(TrainerError, match=r"is not the date .* as 2026-11-27: write"):
        template_date.fixed(plan, Stop(), first=True)


def test_all_nodes_have_the_date_of_the_first(make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, found = make_plan(nodes=2, masterAddress="run-0"), list[TrainingPlan]()
    clock.stands_at(monkeypatch, "2026-11-28")
    other = threading.Thread(target=lambda: found.append(template_date.fixed(plan, Stop(), first=False)))
    other.start()
    clock.stands_at(monkeypatch, "2026-11-27")  # the first node's clock is behind
    first = template_date.fixed(plan, Stop(), first=True)
    other.join()
    assert [first.template_date] == [p.template_date for p in found] == [date(2026, 11, 27)]
    stopped = Stop()
    stopped.requested = True
    with pytest.raises(TrainerError, match="while waiting for the first node"):
        template_date.fixed(make_plan("other", nodes=2), stopped, first=False)
