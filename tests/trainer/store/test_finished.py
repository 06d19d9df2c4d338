"""A run that has finished does not run again; what it exported is never written again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract.report import TrainingResult
from hone_api.contract.termination import FailureReport, TerminationMessage
from hone_api.kinds.modelversion import Artifact
from hone_api.plan import TrainingPlan
from hone_trainer.errors import ConfigError, TrainerError
from hone_trainer.run import launch
from hone_trainer.store import finished, manifest


@pytest.fixture
def plan(tmp_path: Path) -> TrainingPlan:
    return TrainingPlan(
        run="run",
        model_path="/base",
        model_uri="hf://org/model",
        datasets=[{"name": "rows", "path": "/rows.jsonl", "digest": "sha256:" + "0" * 64}],
        output={"modelName": "tutor"},
        work_path=str(tmp_path / "work"),
        output_path=str(tmp_path / "models"),
        export_folder="attempt-1",
    )


def changed(plan: TrainingPlan, **fields: Any) -> TrainingPlan:
    return plan.model_copy(update=fields)


def export(plan: TrainingPlan, close: bool = True, text: str = "weights") -> TrainingResult:
    """As the trainer does it, with one file for weights."""
    folder = finished.begin(plan)
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    (adapter / "weights").write_text(f"{text} of attempt {plan.attempt}")
    digest = manifest.write(adapter)
    uri = adapter.relative_to(plan.output_path).as_posix()
    result = TrainingResult(artifacts=[Artifact(format="Adapter", uri=uri, digest=digest, size_bytes=7)], steps=12)
    if close:
        finished.keep(plan, TerminationMessage(result=result))
        finished.close(folder)
    return result


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (file for file in Path(folder).rglob("*") if file.is_file())
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


@pytest.mark.pure
@pytest.mark.parametrize("again", [{}, {"attempt": 2, "export_folder": "attempt-2"}, {"memory": 7}, {"nodes": 1}])
def test_any_later_attempt_answers_with_the_result(plan: TrainingPlan, again: dict[str, Any]) -> None:
    assert finished.result(plan) is None
    made = export(plan)
    earlier = 1 if "attempt" in again else None
    assert finished.result(changed(plan, **again)) == made.model_copy(update={"finished_attempt": earlier})
    assert made.artifacts[0].uri == "attempt-1/adapter"


@pytest.mark.pure
def test_another_run_in_the_same_work_folder_has_no_result(plan: TrainingPlan) -> None:
    export(plan)
    other = plan.model_copy(update={"training": plan.training.model_copy(update={"max_steps": 3})})
    assert finished.result(other) is None
    merged = plan.model_copy(update={"output": plan.output.model_copy(update={"merge": True})})
    assert finished.result(merged) is None, "it is to export more"


@pytest.mark.pure
@pytest.mark.parametrize("damage", ["file", "manifest", "record"])
def test_what_is_damaged_is_exported_again_elsewhere_and_left_as_it_is(plan: TrainingPlan, damage: str) -> None:
    made = export(plan)
    folder = Path(plan.output_path) / made.artifacts[0].uri
    file = {
        "file": folder / "weights",
        "manifest": folder / "manifest.json",
        "record": Path(plan.work_path) / "result.json",
    }
    file[damage].write_text("damaged")
    before = snapshot(Path(plan.output_path))
    assert finished.result(plan) is None
    again = export(plan)
    assert again.artifacts[0].uri == "attempt-1-2/adapter"
    assert before.items() <= snapshot(Path(plan.output_path)).items()
    assert finished.result(plan) == again


@pytest.mark.faults("T9")
@pytest.mark.pure
def test_the_export_of_an_attempt_killed_after_its_record_is_closed(plan: TrainingPlan) -> None:
    """A sweep takes an export with the mark for half of one."""
    made = export(plan, close=False)
    finished.keep(plan, TerminationMessage(result=made))
    mark = Path(plan.output_path) / "attempt-1" / finished.MARK
    assert mark.exists()
    answer = finished.result(changed(plan, attempt=2, export_folder="attempt-2"))
    assert answer == made.model_copy(update={"finished_attempt": 1})
    assert not mark.exists()


@pytest.mark.faults("T9")
@pytest.mark.pure
def test_an_attempt_killed_amid_its_export_goes_on_in_its_folder(plan: TrainingPlan) -> None:
    """Adapter complete, merged not: nothing was reported."""
    export(plan, close=False)
    assert finished.result(plan) is None
    assert finished.place(plan) == Path(plan.output_path) / "attempt-1"
    second = changed(plan, attempt=2, export_folder="attempt-1")
    assert finished.place(second) == Path(plan.output_path) / "attempt-1-2", "it is another attempt's"
    export(plan)
    assert finished.result(plan) is not None


@pytest.mark.pure
def test_outside_a_cluster_a_finished_export_is_refused_by_name(plan: TrainingPlan) -> None:
    laptop = changed(plan, export_folder=None)
    made = export(laptop)
    assert made.artifacts[0].uri == "adapter"
    assert finished.result(laptop) == made
    other = changed(laptop, run="other", work_path=plan.work_path + "-2")
    before = snapshot(Path(plan.output_path))
    for refuse in (finished.place, finished.begin):
        with pytest.raises(ConfigError, match=r"outputPath .*models holds a finished model"):
            refuse(other)
    assert snapshot(Path(plan.output_path)) == before


@pytest.mark.pure
def test_a_plan_of_an_older_operator_never_writes_into_an_old_export(plan: TrainingPlan) -> None:
    """It has no exportFolder, and the trainer of then left no record."""
    adapter = Path(plan.output_path) / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "weights").write_text("of then")
    manifest.write(adapter)
    with pytest.raises(ConfigError):
        finished.begin(changed(plan, export_folder=None))
    assert finished.begin(plan) == Path(plan.output_path) / "attempt-1", "next to it"


@pytest.mark.pure
def test_a_final_failure_stays_final_in_a_cluster_and_other_failures_do_not(plan: TrainingPlan) -> None:
    lost = TerminationMessage(failure=FailureReport(code="RankFailed", message="gone"))
    finished.keep(plan, lost)
    assert finished.result(plan) is None
    final = TerminationMessage(failure=FailureReport(code="DatasetFormatMismatch", message="no prompt", rank=1))
    finished.keep(changed(plan, export_folder=None), final)
    assert finished.result(plan) is None, "on a laptop the rows may be changed"
    finished.keep(plan, final)
    with pytest.raises(TrainerError, match="attempt 1 has ended this run: no prompt") as caught:
        finished.result(changed(plan, attempt=2, export_folder="attempt-2"))
    assert (caught.value.code, caught.value.rank) == ("DatasetFormatMismatch", 1)
    assert finished.result(changed(plan, export_folder=None)) is None


@pytest.mark.trainer
def test_a_finished_run_trains_no_step_again(
    runs: Any, make_plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real trainer: no step, no byte; not even where its checkpoints are gone."""
    plan = make_plan(exportFolder="attempt-1")
    made = runs.finish(plan)
    assert [a.uri for a in made.artifacts] == ["attempt-1/adapter"]
    shutil.rmtree(Path(plan.work_path) / "checkpoints")
    before = snapshot(Path(plan.output_path))
    again = changed(plan, attempt=2, export_folder="attempt-2")
    capsys.readouterr()
    assert launch.run(again, tmp_path) == made.model_copy(update={"finished_attempt": 1})
    assert "Training" not in capsys.readouterr().err
    assert snapshot(Path(plan.output_path)) == before
    assert not (Path(plan.work_path) / "checkpoints").exists()


@pytest.mark.pure
def test_a_new_release_of_the_operator_goes_on_with_the_same_run(plan: TrainingPlan) -> None:
    assert finished.identity(changed(plan, release="0.2.0")) == finished.identity(changed(plan, release="0.1.0"))
