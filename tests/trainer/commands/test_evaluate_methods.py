"""`evaluate --against` for methods that need more than tokens: the numbers are those of `evaluation.against`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.runs import comparable
from support.runs.sampled_sums import sums_plans

from hone_api.plan import MeasurePlan, ModelInput
from hone_trainer import __main__ as command
from hone_trainer.commands import ask, measure
from hone_trainer.commands.evaluate import recompute
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.store import manifest
from hone_trainer.store.contents import UNKNOWN

pytestmark = pytest.mark.trainer
SAMPLE = [pytest.param(m, marks=pytest.mark.long if m in ("KTO", "ORPO") else ()) for m in comparable.METHODS]
CHANGES = ("change_low", "change_high")


@pytest.fixture
def plan_of(make_plan: Any, tmp_path: Path, tiny_model: Path) -> Any:
    """Makes plans of a method: `plan_of(method, name, **fields)`."""
    return comparable.plans(make_plan, tmp_path, tiny_model)


def exported(plan: Any, form: str | None = None) -> Path:
    """The folder of a finished run's model."""
    return Path(plan.output_path) / (form or ("full" if plan.adapter.type == "None" else "adapter"))


def held_out(plan: Any) -> Path:
    return Path(plan.evaluation_datasets[0].path)


def by_name(numbers: Any) -> dict[str, Any]:
    return {number.name: number for number in numbers}


def assert_equal(one: str | None, other: str | None) -> None:
    assert one is not None
    assert other is not None
    assert float(one) == pytest.approx(float(other), abs=1e-4)


@pytest.mark.parametrize("method", SAMPLE)
def test_the_numbers_are_those_that_a_run_measures(compared_runs: Any, method: str) -> None:
    pair = compared_runs(method)
    champion, plan = pair.champion, pair.challenger
    measured = by_name(pair.new.numbers)
    numbers = by_name(recompute(exported(plan), held_out(plan), against=exported(champion)))
    assert set(numbers) == set(METHODS[method].metrics) - {"kl"}
    for name, number in numbers.items():
        assert_equal(number.tuned, measured[name].tuned)
        assert_equal(number.base, measured[name].against)
        assert_equal(number.change_low, measured[name].against_low)
        assert_equal(number.change_high, measured[name].against_high)
        assert (number.against, number.against_low, number.against_high) == (None, None, None)
        assert number.rows == measured[name].rows
    for name, number in by_name(recompute(exported(plan), held_out(plan))).items():
        for field in ("base", "tuned", "low", "high", *CHANGES):
            assert_equal(getattr(number, field), getattr(measured[name], field))


def stored(plan: Any) -> ModelInput:
    """A finished run's model, as a plan names it."""
    folder = exported(plan)
    artifact = {"path": str(folder), "digest": manifest.digest_of(folder)}
    if plan.adapter.type == "None":
        return ModelInput.model_validate(artifact)
    return ModelInput.model_validate({"path": plan.model_path, "adapter": artifact})


def measurement(plan: Any, against: Any = None, **fields: Any) -> MeasurePlan:
    rows = {"name": "faq", "split": "validation", "path": str(held_out(plan)), "digest": UNKNOWN}
    models = {"model": stored(plan), "basePath": plan.model_path, "against": stored(against) if against else None}
    return MeasurePlan.model_validate({"name": "new-v2", "rows": rows, "maxRows": 512, **models, **fields})


@pytest.mark.parametrize("method", SAMPLE)
def test_a_version_is_measured_again_as_its_run_did(compared_runs: Any, method: str) -> None:
    pair = compared_runs(method)
    measured = by_name(pair.new.numbers)
    numbers = measure.run(measurement(pair.challenger, pair.champion)).numbers
    assert {number.dataset for number in numbers} == {"faq/validation"}
    assert set(by_name(numbers)) == set(METHODS[method].metrics) - {"kl"}
    for number in numbers:
        for field in ("base", "tuned", "low", "high", "against", "against_low", "against_high", *CHANGES):
            assert_equal(getattr(number, field), getattr(measured[number.name], field))
        assert number.rows == measured[number.name].rows


def test_what_was_altered_since_is_not_measured(
    compared_runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = compared_runs("DPO")
    plan = measurement(pair.challenger, pair.champion, maxRows=2)
    copy = tmp_path / "champion"
    shutil.copytree(exported(pair.champion), copy)
    (copy / "adapter_model.safetensors").write_bytes(b"other")
    assert plan.against is not None
    assert plan.against.adapter is not None
    plan.against.adapter.path = str(copy)
    file = tmp_path / "plan.json"
    file.write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
    assert command.main(["measure", str(file)]) == 74
    assert "adapter_model.safetensors" in capsys.readouterr().err
    plan.against.adapter.path = str(exported(pair.champion))
    file.write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
    assert command.main(["measure", str(file)]) == 0


def test_what_needs_its_run_says_so(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    plan = plan_of("PPO", "champion", training={"maxSteps": 1})
    runs.finish(plan)
    (tmp_path / "judge").rename(tmp_path / "moved")
    said = "new-v2 cannot be measured without its run: the files of the run's rewards"
    with pytest.raises(TrainerError, match=said) as caught:
        measure.run(measurement(plan))
    assert caught.value.code == "InvalidConfiguration"


@pytest.mark.parametrize("method", ["DPO", "Reward"])
def test_a_merged_model_is_compared_as_its_adapter(
    compared_runs: Any, method: str, tmp_path: Path, tiny_model: Path
) -> None:
    pair = compared_runs(method)
    plan, result = pair.champion, pair.old
    for one, other in (("adapter", "merged"), ("merged", "adapter")):
        for number in recompute(exported(plan, one), held_out(plan), against=exported(plan, other)):
            assert_equal(number.tuned, by_name(result.numbers)[number.name].tuned)
            assert_equal(number.base, number.tuned)
    moved = tmp_path / "elsewhere"
    shutil.copytree(exported(plan, "merged"), moved)
    report = json.loads((moved / "report.json").read_text())
    report["plan"]["modelPath"] = "/nowhere"
    (moved / "report.json").write_text(json.dumps(report))
    if method == "DPO":
        with pytest.raises(TrainerError, match="which is not in /nowhere: name its folder with --base"):
            recompute(moved, held_out(plan), against=exported(plan, "adapter"))
    else:
        assert all(number.base is None for number in recompute(moved, held_out(plan)))
        with pytest.raises(TrainerError, match="method Reward cannot answer"):
            ask.answer(moved, "Where is Rome?")
    for number in recompute(moved, held_out(plan), tiny_model):
        assert_equal(number.base, by_name(result.numbers)[number.name].base)


def test_a_reward_model_is_not_compared_with_a_language_model(runs: Any, plan_of: Any) -> None:
    plans = [plan_of(method, method, training={"maxSteps": 1}) for method in ("DPO", "Reward")]
    for plan in plans:
        runs.finish(plan)
    for one, other, words in (
        (*plans, "Reward/out/adapter is a reward model, and .*DPO/out/adapter is a language model"),
        (*reversed(plans), "DPO/out/adapter is a language model, and .*Reward/out/adapter is a reward model"),
    ):
        with pytest.raises(TrainerError, match=f"{words}: they cannot be compared") as caught:
            recompute(exported(one), held_out(one), against=exported(other))
        assert caught.value.code == "InvalidConfiguration"


def test_a_reward_model_that_has_moved_is_named(
    runs: Any, plan_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of("PPO", "champion", training={"maxSteps": 1})
    runs.finish(plan)
    (tmp_path / "judge").rename(tmp_path / "moved")
    asked = ["evaluate", str(exported(plan)), "--data", str(held_out(plan)), "--against", str(exported(plan))]
    capsys.readouterr()
    assert command.main(asked) == 78
    assert f"--reward judge-v1=PATH (not in {tmp_path / 'judge'})" in capsys.readouterr().err
    assert command.main([*asked, "--reward", f"judge-v1={tmp_path / 'moved'}"]) == 0
    (number,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (number["name"], number["base"], number["changeLow"]) == ("reward", number["tuned"], "0.000000")
    assert command.main([*asked, "--reward", f"judge={tmp_path / 'moved'}"]) == 78
    assert "--reward judge: the run has judge-v1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main([*asked, "--reward", "judge-v1"])
    assert "'judge-v1' is not NAME=PATH" in capsys.readouterr().err


ODD = """
def reward(completion, prompt, **_):
    if {skipped}:
        return None
    return len(completion)
"""


@pytest.mark.parametrize(("skipped", "is_compared"), [("'4' in prompt", True), ("True", False)])
def test_rows_without_a_reward_are_compared_in_neither(
    runs: Any, make_plan: Any, tmp_path: Path, skipped: str, is_compared: bool
) -> None:
    """The reward function is another one than that of the run, and leaves out some rows, or all."""
    plan = sums_plans(make_plan, tmp_path)("champion", training={"maxSteps": 1})
    runs.finish(plan)
    file = tmp_path / "mine.py"
    file.write_text(ODD.format(skipped=skipped))
    paths = {"vowels": file}
    if not is_compared:
        with pytest.raises(TrainerError, match="none of its 16 answers got a reward") as caught:
            recompute(exported(plan), held_out(plan), against=exported(plan), rewards=paths)
        assert caught.value.code == "RewardFailed"
        return
    (number,) = recompute(exported(plan), held_out(plan), against=exported(plan), rewards=paths)
    assert (number.base, number.change_low) == (number.tuned, "0.000000")


def test_rows_that_are_too_long_for_the_other_model_are_refused(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    plan = plan_of("ORPO", "champion", training={"maxSteps": 1}, output={"modelName": "tiny", "merge": True})
    runs.finish(plan)
    short = tmp_path / "short"
    shutil.copytree(exported(plan, "merged"), short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    with pytest.raises(TrainerError, match=r"short reads 16 tokens, and a row of .*validation\.jsonl takes"):
        recompute(exported(plan), held_out(plan), against=short)


def test_rows_of_another_format_are_refused(runs: Any, plan_of: Any, rows_files: tuple[Path, Path]) -> None:
    plan = plan_of("DPO", "champion", training={"maxSteps": 1})
    runs.finish(plan)
    with pytest.raises(TrainerError) as caught:
        recompute(exported(plan), rows_files[1], against=exported(plan))
    assert caught.value.code == "DatasetFormatMismatch"
