"""The version in use compared with a new one by each method's own metrics: pairs, judged answers, rewards."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.runs import comparable
from support.runs.comparable import AGAINST, in_use

from hone_trainer.evaluation import other_version
from hone_trainer.methods import METHODS
from hone_trainer.methods.rl import compared_answers
from hone_trainer.scoring import scores
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Unwatched
from hone_trainer.scoring.scores import Mean, Score

pytestmark = pytest.mark.trainer


@pytest.fixture
def plan_of(make_plan: Any, tmp_path: Path, tiny_model: Path) -> Any:
    """Makes plans of a method: `plan_of(method, name, **fields)`."""
    return comparable.plans(make_plan, tmp_path, tiny_model)


def numbers_of(result: Any) -> dict[str, Any]:
    return {number.name: number for number in result.numbers}


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=pytest.mark.long if m in ("KTO", "ORPO", "PPO") else ()) for m in comparable.METHODS],
)
def test_a_version_has_the_numbers_that_its_own_run_measured(runs: Any, compared_runs: Any, method: str) -> None:
    """Both start from the same base, so their reference is the same; and what is trained is the same as without."""
    pair = compared_runs(method)
    plan, old, new = pair.challenger, pair.old, pair.new
    compared = {name: number for name, number in numbers_of(new).items() if number.against is not None}
    assert set(compared) == set(METHODS[method].metrics) - {"kl"}
    for name, number in compared.items():
        assert float(number.against) == pytest.approx(float(numbers_of(old)[name].tuned), abs=1e-4), name
        change = float(number.tuned) - float(number.against)
        assert float(number.against_low) - 1e-6 <= change <= float(number.against_high) + 1e-6, name
    assert any(float(number.tuned) != float(number.against) for number in compared.values())
    assert not any("evaluation.against" in sentence for sentence in new.advice)

    alone = pair.plan_of(method, "alone", training={"maxSteps": 8})
    runs.finish(alone)
    form = "full" if plan.adapter.type == "None" else "adapter"
    assert runs.curve(plan, form) == runs.curve(alone, form)


@pytest.mark.parametrize("method", ["DPO", "KTO"])
def test_a_version_that_the_run_starts_from_is_its_own_reference(
    runs: Any, compared_runs: Any, plan_of: Any, method: str
) -> None:
    """With full fine-tuning, whose reference is computed before the first step."""
    merged = str(Path(compared_runs(method).champion.output_path) / "merged")
    plan = plan_of(
        method, "next", adapter={"type": "None"}, modelPath=merged, comparedModel={"path": merged}, **AGAINST
    )
    for name, number in numbers_of(runs.finish(plan)).items():
        assert float(number.against) == pytest.approx(float(number.base), abs=1e-4), name
        assert float(number.against_low) == pytest.approx(float(number.change_low), abs=1e-4), name


@pytest.mark.parametrize(("method", "other"), [("DPO", "Reward"), ("Reward", "DPO")])
def test_a_reward_model_is_not_compared_with_a_language_model(
    runs: Any, plan_of: Any, method: str, other: str, tmp_path: Path
) -> None:
    champion = plan_of(other, "champion", training={"maxSteps": 1}, output={"modelName": "tiny", "merge": True})
    old = runs.finish(champion)
    for name, compared in (
        ("adapter", in_use(champion, old)),
        ("merged", {**AGAINST, "comparedModel": {"path": str(Path(champion.output_path) / "merged")}}),
    ):
        result = runs.finish(plan_of(method, name, training={"maxSteps": 1}, **compared))
        assert all(number.against is None for number in result.numbers)
        kinds = {"DPO": "language model", "Reward": "reward model"}
        assert any(f"tiny-v1 is a {kinds[other]}, and this model is a {kinds[method]}" in s for s in result.advice)


@pytest.mark.parametrize("method", ["KTO", pytest.param("GRPO", marks=pytest.mark.long)])
def test_ranks_measure_their_parts(runs: Any, compared_runs: Any, plan_of: Any, method: str) -> None:
    pair = compared_runs(method)
    plan, old = plan_of(method, "two", processesPerNode=2, **in_use(pair.champion, pair.old)), pair.old
    for name, number in numbers_of(runs.wait(plan, runs.start(plan)).result).items():
        assert float(number.against) == pytest.approx(float(numbers_of(old)[name].tuned), abs=1e-4), name


def test_what_an_attempt_before_an_upgrade_kept_is_measured_again(runs: Any, plan_of: Any) -> None:
    champion = plan_of("DPO", "champion", training={"maxSteps": 1})
    old = runs.finish(champion)
    plan = plan_of("DPO", "challenger", training={"maxSteps": 1}, **in_use(champion, old))
    runs.finish(plan)
    file = Path(plan.work_path) / "against.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({"of": kept["of"], "scores": []}))
    again = plan.model_copy(update={"output_path": f"{plan.output_path}-again"})
    assert numbers_of(runs.finish(again))["loss"].against is not None
    assert json.loads(file.read_text()) == kept


def test_an_answer_without_a_reward_is_compared_in_neither_version() -> None:
    rewards = {1: 1.0, 2: None, 3: 0.0}
    measure = compared_answers.measure(
        longest=lambda _: 4, rewarding=lambda _, prompts, answers: [rewards[answer[0]] for answer in answers]
    )
    split = HeldOut("sums/validation", [object()] * 3, Path("none"))
    theirs = measure.score(SimpleNamespace(), split, [[1.0, 9.0], [2.0], [3.0]], Unwatched())
    assert theirs == Score({"reward": Mean([1.0, 0.0, 0.0], [1.0, 0.0, 1.0])}, 4)
    ours = Score({"reward": Mean([1.0, 1.0, 0.0], [1.0, 1.0, 0.0])}, 3)
    (number,) = scores.numbers(["sums/validation"], ["reward"], None, [ours], other=[theirs])
    assert (number.against, number.against_low, number.against_high) == ("1.000000", "0.000000", "0.000000")
    none = Score({"reward": Mean([0.0] * 3, [0.0] * 3)}, 0)
    (number,) = scores.numbers(["sums/validation"], ["reward"], None, [ours], other=[none])
    assert number.against is None


def test_every_method_says_what_it_compares(make_plan: Any) -> None:
    plan = make_plan(**{**AGAINST, "comparedWith": ""})
    for method in METHODS.values():
        assert callable(method.compared.values)
        run = SimpleNamespace(plan=plan, held_out=[object()], method=method)
        assert "pointed to no version yet" in other_version.measure(run).advice


@pytest.mark.parametrize("method", ["Reward", pytest.param("DPO", marks=pytest.mark.long)])
def test_a_version_of_a_base_in_4_bits_is_measured_so(runs: Any, plan_of: Any, method: str) -> None:
    """The head of a reward model is not rounded."""
    champion = plan_of(method, "champion", adapter={"type": "QLoRA"})
    old = runs.finish(champion)
    plan = plan_of(method, "challenger", adapter={"type": "QLoRA"}, training={"maxSteps": 1}, **in_use(champion, old))
    for name, number in numbers_of(runs.finish(plan)).items():
        assert float(number.against) == pytest.approx(float(numbers_of(old)[name].tuned), abs=1e-4), name
