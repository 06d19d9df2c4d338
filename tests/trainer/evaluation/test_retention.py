"""What must not be forgotten: measured before and after, a gate, and the points between."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.runs import split_files

from hone_api.contract.termination import TerminationMessage
from hone_trainer.errors import TrainerError
from hone_trainer.evaluation import baseline, interpolation
from hone_trainer.models import base_model
from hone_trainer.run import rows
from hone_trainer.scoring import heldout, probe_suite
from hone_trainer.scoring.early_stopping import Goal
from hone_trainer.scoring.probe_suite import Probe
from hone_trainer.scoring.row_measure import Unwatched
from hone_trainer.scoring.scores import Mean, Score

pytestmark = pytest.mark.trainer
TEXT = [{"text": f"The tower of Rome number {i} is near the market."} for i in range(6)]
CHOICES = [
    {
        "prompt": [{"role": "user", "content": f"Is {i} small?"}],
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    }
    for i in range(4)
]


@pytest.fixture
def retained(tmp_path: Path) -> Any:
    """Makes the plan's fields of a retention set."""

    def make(rows: list[dict[str, Any]], **retention: Any) -> dict[str, Any]:
        split = split_files.write(tmp_path / f"general-{len(rows)}.jsonl", rows, "general", "validation")
        return {
            "evaluation": {"retention": {"datasets": [{"name": "general"}], **retention}},
            "retentionDatasets": [split],
        }

    return make


def test_what_is_kept_is_measured_before_and_after_with_intervals(runs: Any, make_plan: Any, retained: Any) -> None:
    plan = make_plan(**retained(TEXT, interpolate=True), output={"modelName": "tiny", "merge": True})
    result = runs.finish(plan)
    (kept,) = [n for n in result.numbers if n.purpose == "Retention"]
    assert (kept.name, kept.dataset, kept.rows) == ("perplexity", "general/validation", 6)
    assert float(kept.low) <= float(kept.tuned) <= float(kept.high)
    change = float(kept.tuned) - float(kept.base)
    assert float(kept.change_low) <= change <= float(kept.change_high)
    assert result.rejected is None

    report = json.loads((Path(plan.output_path) / "adapter" / "report.json").read_text())
    curve = report["interpolation"]
    assert [point["weight"] for point in curve] == [*interpolation.WEIGHTS, 1.0]
    losses = [point["metrics"]["loss on places/validation"] for point in curve]
    held_out = next(n for n in result.numbers if n.name == "loss")
    assert losses[-1] == pytest.approx(float(held_out.tuned), abs=1e-5)
    assert losses == sorted(losses, reverse=True)  # a short run has not gone too far
    assert result.resolved["interpolation"] == "1"
    assert len(TerminationMessage(result=result).to_termination_message()) <= 4096

    # A point of the line is the model that is exported with that factor.
    opened = base_model.open_base(plan.model_path)
    from peft import PeftModel

    rows = probe_suite.probes(plan, opened)[0].rows
    network = PeftModel.from_pretrained(
        base_model.load(opened, bf16=False, cpu=True, quantize=False, frozen=True), Path(plan.output_path) / "adapter"
    )
    for layer in interpolation.lora_layers(network):
        layer.scaling = {name: 0.4 * factor for name, factor in layer.scaling.items()}
    pad = opened.tokenizer.pad_token_id
    found = heldout.score(network, rows, pad_id=pad, bf16=False, poll=Unwatched(), fused=False)
    assert found.value("perplexity") == pytest.approx(curve[1]["metrics"]["perplexity on general/validation"], rel=1e-5)


def test_full_weights_are_mixed_and_come_back(runs: Any, make_plan: Any, retained: Any) -> None:
    plan = make_plan(**retained(TEXT, interpolate=True), adapter={"type": "None"}, training={"learningRate": "2e-3"})
    result = runs.finish(plan)
    report = json.loads((Path(plan.output_path) / "full" / "report.json").read_text())
    losses = [point["metrics"]["loss on places/validation"] for point in report["interpolation"]]
    base, tuned = (next(n for n in result.numbers if n.name == "loss").to_json()[key] for key in ("base", "tuned"))
    assert float(base) > losses[0] > losses[-1] == pytest.approx(float(tuned), abs=1e-5)

    from hone_trainer.commands import evaluate

    validation = Path(plan.evaluation_datasets[0].path)
    again = evaluate.recompute(Path(plan.output_path) / "full", validation, Path(plan.model_path))
    assert float(again[0].tuned) == pytest.approx(float(tuned), abs=1e-4)


def test_a_gate_that_does_not_open_keeps_the_model_and_says_by_how_much(
    runs: Any, make_plan: Any, retained: Any
) -> None:
    other = [{"text": "zq " * 20}] * 4  # what the training rows know nothing of
    plan = make_plan(
        **retained(other, maxRegression="1%", interpolate=True), training={"maxSteps": 16, "learningRate": "2e-2"}
    )
    result = runs.finish(plan)
    assert result.rejected is not None
    assert "perplexity on general/validation by" in result.rejected
    assert "beyond 1.0%" in result.rejected
    assert result.artifacts
    assert (Path(plan.output_path) / "adapter" / "manifest.json").exists()
    assert "evaluation.retention.interpolate" in result.advice[-1]


def test_multiple_choice_and_answers_of_preferences(runs: Any, make_plan: Any, retained: Any) -> None:
    fields = retained(CHOICES, metrics=["MultipleChoice", "ExactMatch", "F1", "RougeL", "TokenAccuracy"])
    fields["evaluation"]["maxNewTokens"] = 4
    result = runs.finish(make_plan(**fields, training={"maxSteps": 2}))
    kept = {n.name: n for n in result.numbers if n.purpose == "Retention"}
    assert set(kept) == {"multiple_choice", "exact_match", "f1", "rouge_l", "token_accuracy"}
    assert all(0 <= float(n.tuned) <= 1 for n in kept.values())


def test_a_resumed_run_compares_with_the_base_of_its_first_attempt(
    runs: Any, make_plan: Any, retained: Any, interrupt: Any
) -> None:
    fields = retained(TEXT)
    fields["evaluation"] |= {"rewards": [{"type": "Length", "length": {"max": 2, "slope": 9}}], "maxNewTokens": 8}
    whole = runs.finish(make_plan("whole", **fields))
    assert {"perplexity", "win_rate_length"} < {n.name for n in whole.numbers}
    plan = make_plan("broken", **fields)
    interrupt(plan, 4)
    assert runs.finish(plan).numbers == whole.numbers


@pytest.mark.parametrize(
    ("rows", "retention", "words"),
    [
        (TEXT, {"metrics": ["ExactMatch"]}, "rows of format Text have no prompt to answer"),
        (TEXT, {"metrics": ["MultipleChoice"]}, "needs rows with chosen and rejected answers"),
    ],
)
def test_metrics_that_rows_cannot_give_end_the_run_before_the_weights(
    runs: Any, make_plan: Any, retained: Any, rows: Any, retention: Any, words: str
) -> None:
    with pytest.raises(TrainerError, match=words) as caught:
        runs.finish(make_plan(**retained(rows, **retention)))
    assert caught.value.code == "DatasetFormatMismatch"


def test_interpolation_without_held_out_rows_is_refused(runs: Any, make_plan: Any, retained: Any) -> None:
    with pytest.raises(TrainerError, match=r"interpolate needs held-out rows"):
        runs.finish(make_plan(held_out=False, **retained(TEXT, interpolate=True)))


def test_without_a_fused_head_the_numbers_are_the_same(tiny_model: Path, make_plan: Any, retained: Any) -> None:
    from trl.trainer.utils import add_fused_lm_head

    plan = make_plan(**retained(TEXT))
    opened = base_model.open_base(tiny_model)
    (probe,) = probe_suite.probes(plan, opened)
    network = base_model.load(opened, bf16=False, cpu=True, quantize=False, frozen=True)
    add_fused_lm_head(network, outputs=("log_probs", "is_top1"))
    options: dict[str, Any] = {"pad_id": opened.tokenizer.pad_token_id, "bf16": False, "poll": Unwatched()}
    plain, fused = (heldout.score(network, probe.rows, fused=fused, **options) for fused in (False, True))
    assert plain.value("loss") == pytest.approx(fused.value("loss"), rel=1e-6)
    assert plain.value("token_accuracy") == fused.value("token_accuracy")


@pytest.fixture
def judged(make_plan: Any, tmp_path: Path) -> Any:
    """Makes a plan of KTO whose held-out answers are judged so, as texts or as turns."""

    def make(verdicts: list[bool], *, turns: bool) -> Any:
        def as_said(role: str, text: str) -> Any:
            return [{"role": role, "content": text}] if turns else text

        rows = [
            {
                "prompt": as_said("user", f"Is {i} small?"),
                "completion": as_said("assistant", f"So {good}"),
                "label": good,
            }
            for i, good in enumerate(verdicts)
        ]
        split = split_files.write(tmp_path / "judged.jsonl", rows, "judged", "validation")
        metrics = ["ExactMatch", "Perplexity"]
        return make_plan(method="KTO", evaluation={"metrics": metrics}, evaluationDatasets=[split])

    return make


@pytest.mark.parametrize("turns", [False, True])
def test_what_kto_calls_a_bad_answer_is_no_reference(judged: Any, turns: bool) -> None:
    plan = judged([False, True, False, True], turns=turns)
    base = base_model.open_base(plan.model_path)
    (found,) = probe_suite.probes(plan, base)
    assert found.references == ["So True"] * 2
    for row in found.rows:
        assert base.tokenizer.decode([label for label in row.labels if label >= 0]) == "So True<|im_end|>"
    held_out = rows.load(plan.model_copy(update={"datasets": plan.evaluation_datasets}), base).held_out
    asked = baseline.questions(held_out, 4)
    assert [reference for _, _, reference in asked] == [None, "So True", None, "So True"]


def test_bad_answers_alone_cannot_be_measured(judged: Any) -> None:
    plan = judged([False, False], turns=False)
    with pytest.raises(TrainerError, match="judged/validation: all 2 answers have the label false") as raised:
        probe_suite.probes(plan, base_model.open_base(plan.model_path))
    assert raised.value.code == "NoTrainableRows"


def probe(*metrics: str) -> Probe:
    return Probe("general/test", "Retention", metrics, [])


def scored(**values: float) -> Score:
    return Score({name: Mean([value], [1.0]) for name, value in values.items()}, 1)


def test_worse_is_by_the_good_end_of_each_metric() -> None:
    probes = [probe("Perplexity", "ExactMatch")]
    base = [scored(loss=0.0, exact_match=0.5)]
    worse = probe_suite.regressions(probes, base, [scored(loss=0.1, exact_match=0.4)])
    assert worse["perplexity on general/test"] == pytest.approx(0.105, abs=1e-3)
    assert worse["exact_match on general/test"] == pytest.approx(0.2)
    better = probe_suite.regressions(probes, base, [scored(loss=-0.1, exact_match=0.6)])
    assert all(value < 0 for value in better.values())
    assert probe_suite.regressions(probes, [scored(loss=0.0, exact_match=0.0)], base) == {
        "perplexity on general/test": 0.0
    }, "what the base could not do at all, it cannot forget"


def test_worse_is_worse_below_zero_and_from_zero() -> None:
    assert probe_suite.regression("Highest", -2.0, -3.0) == pytest.approx(0.5)
    assert probe_suite.regression("Highest", -2.0, -1.0) == pytest.approx(-0.5)
    assert probe_suite.regression("Lowest", -2.0, -1.0) == pytest.approx(0.5)
    assert probe_suite.regression("Lowest", 0.0, 0.0) is None
    assert probe_suite.regression("Highest", 0.0, 0.5) is None
    assert (
        probe_suite.regression("Highest", 0.5, math.nan) == probe_suite.regression("Lowest", 0.5, math.nan) == math.inf
    )
    found = {"errors on general/test": probe_suite.regression("Lowest", 0.0, 0.1) or 0.0}
    told = probe_suite.gate("evaluation.retention", found, 0.05)
    words = "errors on general/test from the base's 0, or to no number"
    assert told == f"evaluation.retention: worse than the base model beyond 5.0%: {words}."


def test_a_point_is_named_by_its_own_number() -> None:
    """A reward may be negative, and is made large."""
    goal = Goal("reward", "Highest")
    found, tuned = (
        interpolation.InterpolatedModel(weight, [scored(reward=value)], []) for weight, value in ((0.4, -1.5), (1, 2.0))
    )
    run = SimpleNamespace(method=SimpleNamespace(goal=goal), probes=[])
    told = interpolation.sentence(found, tuned, [], run)
    assert told is not None
    assert "is -1.5000 (tuned 2.0000)" in told
    assert (found.cost(goal), tuned.cost(goal)) == (1.5, -2.0)
