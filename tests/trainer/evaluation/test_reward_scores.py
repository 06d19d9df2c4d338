"""Answers to held-out prompts, scored by rewards before and after training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.runs import judging, split_files

from hone_dev.models import modelserver
from hone_trainer.encoding.plain_text import as_text
from hone_trainer.encoding.prompts import PromptEncoder, checked_record
from hone_trainer.errors import TrainerError
from hone_trainer.evaluation import reward_scores
from hone_trainer.models import base_model, generate
from hone_trainer.scoring import heldout
from hone_trainer.teachers import from_model

pytestmark = pytest.mark.trainer
LENGTH = 12
USER, GOOD, BAD = (
    {"role": r, "content": c} for r, c in (("user", "Is 2 small?"), ("assistant", "2"), ("assistant", "3"))
)
FUNCTION = {"type": "Python", "name": "mine", "python": {"configMapName": "mine"}}


def number(result: Any, name: str) -> Any:
    return next(n for n in result.numbers if n.name == name)


def graded(*rewards: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"everySteps": 1000, "samples": 0, "maxNewTokens": LENGTH, "rewards": list(rewards), **fields}


@pytest.fixture
def function(tmp_path: Path) -> Any:
    """Writes a reward of one's own, as the fields of a plan."""

    def make(expression: str) -> dict[str, Any]:
        (tmp_path / "reward.py").write_text(f"def reward(prompt, completion, answer, **_):\n    return {expression}\n")
        return {"rewardPaths": {"mine": str(tmp_path / "reward.py")}}

    return make


def answers(plan: Any, adapter: Path | None = None) -> list[str]:
    """The model's greedy answers to the plan's held-out rows."""
    base = base_model.open_base(plan.model_path)
    network = base_model.load(base, bf16=False, cpu=True, quantize=False, frozen=True).eval()
    if adapter:
        from peft import PeftModel

        network = PeftModel.from_pretrained(network, adapter).eval()
    (split,) = reward_scores.prompts(plan, base)
    prompts, pad = [row.prompt_ids for row in split.rows], base.tokenizer.pad_token_id
    stop = base.stop_ids | {base.tokenizer.convert_tokens_to_ids("<|im_end|>")}
    found = generate.greedy(network, prompts, pad_id=pad, stop_ids=stop, longest=LENGTH)
    return base.tokenizer.batch_decode(found, skip_special_tokens=True)


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 50.0},
        {"no_repeat_ngram_size": 1},
        {"num_beams": 3, "num_return_sequences": 2},
        {"bad_words_ids": [[token] for token in range(0, 500)]},
        {"suppress_tokens": list(range(0, 500))},
        {"min_length": 40, "begin_suppress_tokens": list(range(0, 500))},
    ],
)
def test_greedy_answers_are_the_models_own_whatever_its_generation_config_says(
    tiny_model: Path, options: dict[str, Any]
) -> None:
    opened = base_model.open_base(tiny_model)
    network = base_model.load(opened, bf16=False, cpu=True, quantize=False, frozen=True).eval()
    prompts, ends = [[1, 40, 41, 42], [1, 43]], {"stop_ids": frozenset({2})}

    def found() -> tuple[Any, Any]:
        answers = heldout.answers(network, prompts, tokenizer=opened.tokenizer, max_new_tokens=LENGTH, **ends)
        return generate.greedy(network, prompts, pad_id=2, longest=LENGTH, **ends), answers

    before = found()
    network.generation_config.update(**options)
    assert found() == before


def test_a_judge_and_a_reward_model_score_both_models_on_the_same_prompts(
    runs: Any, make_plan: Any, tiny_model: Path, tmp_path: Path
) -> None:
    taste = {"type": "RewardModel", "name": "taste", "rewardModel": {"modelVersion": "taste-v1"}}
    with modelserver.serve(judging.Grader("strict")) as url:
        plan = make_plan(
            evaluation=graded(taste, {"type": "Judge", "judge": {"endpoint": url, "maxScore": 100}}),
            models={"taste-v1": {"path": str(judging.reward_model(tiny_model, tmp_path / "taste"))}},
            allowPrivateAddresses=True,
            training={"learningRate": "2e-2"},
        )
        result = runs.finish(plan)
    assert [n.name for n in result.numbers[2:]] == [
        "reward_taste",
        "win_rate_taste",
        "reward_judge",
        "win_rate_judge",
    ]
    before, after = answers(plan), answers(plan, Path(plan.output_path) / "adapter")
    grade, rate = number(result, "reward_judge"), number(result, "win_rate_judge")
    assert before != after
    assert float(grade.base) == pytest.approx(sum(map(len, before)) / 100 / 16, abs=1e-5)
    assert float(grade.tuned) == pytest.approx(sum(map(len, after)) / 100 / 16, abs=1e-5)
    won = [(len(new) > len(old)) + 0.5 * (len(new) == len(old)) for old, new in zip(before, after, strict=True)]
    assert float(rate.tuned) == pytest.approx(sum(won) / 16, abs=1e-5)
    assert rate.base is None
    assert float(rate.low) <= float(rate.tuned) <= float(rate.high)
    assert float(grade.change_low) <= float(grade.tuned) - float(grade.base) <= float(grade.change_high)
    assert number(result, "reward_taste").rows == 16

    folder = Path(plan.output_path) / "adapter"
    assert f"| win_rate_judge | places/validation (16) | - | {rate.tuned} | - |" in (folder / "README.md").read_text()
    assert "<td>win_rate_judge</td>" in (folder / "report.html").read_text()


def test_the_tuned_model_is_compared_with_the_recorded_answers_of_another(
    runs: Any, make_plan: Any, function: Any, tmp_path: Path
) -> None:
    """Same: what the model itself answers; better: planted; some: of a row without a record nothing is known."""
    plan = make_plan(
        **function("len(completion)"),
        evaluation=graded(FUNCTION),
        training={"maxSteps": 1, "learningRate": "1e-12"},
    )
    own = answers(plan)
    rows = [json.loads(line) for line in Path(plan.evaluation_datasets[0].path).read_text().splitlines()]
    files = {
        "same": [{**row, "recorded": text} for row, text in zip(rows, own, strict=True)],
        "better": [{**row, "recorded": f"{text} and more"} for row, text in zip(rows, own, strict=True)],
        "some": [{**row, "recorded": "x" * 500} if i < 2 else row for i, row in enumerate(rows)],
        "none": rows,
    }
    held_out = [split_files.write(tmp_path / f"{n}.jsonl", records, n, "train") for n, records in files.items()]
    result = runs.finish(type(plan).model_validate({**plan.to_json(), "evaluationDatasets": held_out}))
    found = {n.dataset.partition("/")[0]: n for n in result.numbers if n.name == "parity_mine"}
    assert {*found} == {"same", "better", "some"}, "a split without records has no such number"
    same, better, some = found["same"], found["better"], found["some"]
    assert (same.tuned, same.against_low, same.against_high, same.rows) == (same.against, "0.000000", "0.000000", 16)
    assert float(same.tuned) == pytest.approx(sum(map(len, own)) / 16, abs=1e-5)
    assert float(better.tuned) - float(better.against) == pytest.approx(-9)
    assert (better.against_low, better.against_high) == ("-9.000000", "-9.000000")
    assert (some.rows, some.against) == (2, "500.000000")
    assert float(some.against_high) < 0
    folder = Path(plan.output_path) / "adapter"
    assert f"| parity_mine | same/train (16) | {same.against} | {same.tuned} |" in (folder / "README.md").read_text()
    assert "<h2>Next to the recorded answers</h2>" in (folder / "report.html").read_text()
    assert "in use" not in (folder / "report.html").read_text()


def test_answers_without_a_score_are_left_out_of_that_number_alone(
    runs: Any, make_plan: Any, function: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    length = {"type": "Length", "length": {"min": 4, "slope": 4}}
    plan = make_plan(
        **function("None if completion != answer and len(prompt) % 2 else len(completion)"),
        evaluation=graded(FUNCTION, length),
        training={"learningRate": "2e-2"},
    )
    result = runs.finish(plan)
    rows = [json.loads(line) for line in Path(plan.evaluation_datasets[0].path).read_text().splitlines()]
    kept = [i for i, row in enumerate(rows) if not len(row["messages"][0]["content"]) % 2]
    assert 0 < len(kept) < 16
    mine = number(result, "reward_mine")
    assert mine.rows == number(result, "win_rate_mine").rows == len(kept)
    before, after = answers(plan), answers(plan, Path(plan.output_path) / "adapter")
    assert float(mine.base) == pytest.approx(sum(len(before[i]) for i in kept) / len(kept), abs=1e-5)
    assert float(mine.tuned) == pytest.approx(sum(len(after[i]) for i in kept) / len(kept), abs=1e-5)
    assert number(result, "reward_length").rows == 16
    words = f"reward_mine on places/validation: {16 - len(kept)} of 16 rows got no score and are left out; "
    assert capsys.readouterr().err.count(f"{words}most often: the function returned None") == 2


@pytest.mark.parametrize(
    ("reward", "expression", "code", "words"),
    [
        (
            FUNCTION,
            "1 if completion == answer else None",
            "RewardFailed",
            "reward_mine on places/validation: none of 16 rows",
        ),
        (FUNCTION, "completion.nothing", "RewardFailed", "places/validation: reward mine: no score"),
        ({"type": "Number"}, "0", "VerifierRejectsGold", "places/validation: reward number: 0 and not 1"),
        ({"type": "Regex", "regex": {"pattern": "("}}, "0", "InvalidConfiguration", "reward regex: regex.pattern"),
    ],
)
def test_a_reward_that_scores_nothing_ends_the_run_before_its_first_step(
    runs: Any, make_plan: Any, function: Any, reward: dict[str, Any], expression: str, code: str, words: str
) -> None:
    plan = make_plan(**function(expression), evaluation=graded(reward))
    with pytest.raises(TrainerError) as raised:
        runs.finish(plan)
    assert raised.value.code == code
    assert words in raised.value.message
    assert not list((Path(plan.work_path) / "checkpoints").glob("step-*"))


def test_recorded_answers_that_get_no_score_end_the_run_before_its_first_step(
    runs: Any, make_plan: Any, function: Any, tmp_path: Path
) -> None:
    plan = make_plan(**function("None if completion == 'old' else 1"), evaluation=graded(FUNCTION))
    (split,) = plan.evaluation_datasets
    rows = [{**json.loads(line), "recorded": "old"} for line in Path(split.path).read_text().splitlines()]
    changed = split.model_copy(update=split_files.write(tmp_path / "held.jsonl", rows, split.name, split.split))
    with pytest.raises(TrainerError, match="parity_mine on places/validation: none of 16 rows got a score"):
        runs.finish(plan.model_copy(update={"evaluation_datasets": [changed]}))
    assert not list((Path(plan.work_path) / "checkpoints").glob("step-*"))


def test_a_judge_that_is_unreachable_is_left_to_another_attempt(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judging.unreachable(monkeypatch)
    with pytest.raises(TrainerError, match="none of 16 rows got a score; most often: judge") as raised:
        runs.finish(make_plan(evaluation=graded(judge)))
    assert raised.value.code == "EndpointUnreachable"


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"messages": [USER, GOOD]}, "2"),
        ({"prompt": "Is 2 small?", "completion": "2"}, "2"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, "2"),
        ({"prompt": "Is 2 small?", "chosen": "2", "rejected": "3"}, "2"),
        ({"prompt": "Is 2 small?", "completion": "2", "label": True}, "2"),
        ({"prompt": "Is 2 small?", "answer": "2"}, "2"),
        ({"messages": [USER, BAD], "answer": "2"}, "2"),
    ],
)
def test_rows_of_every_form_with_a_prompt_have_an_answer_to_compare_with(
    tiny_model: Path, make_plan: Any, tmp_path: Path, row: dict[str, Any], answer: str
) -> None:
    (split,) = reward_scores.prompts(plan_on(make_plan, tmp_path, row), base_model.open_base(tiny_model))
    assert [prompt.record["answer"] for prompt in split.rows] == [answer]


def test_a_teachers_answer_takes_the_place_of_what_is_learned_alone(tiny_model: Path) -> None:
    tokenizer = base_model.open_base(tiny_model).tokenizer
    ids = [*tokenizer("4")["input_ids"], tokenizer.eos_token_id]
    made = from_model.ModelTeacher(
        PromptEncoder(tokenizer, 64),
        lambda prompts, _: [ids] * len(prompts),
        lambda _, found: tokenizer.decode(found, skip_special_tokens=True),
        frozenset({tokenizer.eos_token_id}),
    )
    rows = [{"messages": [USER, GOOD]}, {"prompt": "Is 2 small?", "completion": "2"}, {"prompt": [USER], "answer": "2"}]
    answered = list(made.rows(rows))
    assert [as_text(row)[1] for row in answered] == ["4"] * 3
    assert [checked_record(row)["answer"] for row in answered] == ["2"] * 3


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"text": "Rome."}, "DatasetFormatMismatch"),
        ({"prompt": "Is 2 small?", "completion": "3", "label": False}, "NoTrainableRows"),
    ],
)
def test_rows_without_an_answer_are_refused(
    tiny_model: Path, make_plan: Any, tmp_path: Path, row: dict[str, Any], code: str
) -> None:
    with pytest.raises(TrainerError, match=r"held/test: evaluation\.rewards") as raised:
        reward_scores.prompts(plan_on(make_plan, tmp_path, row), base_model.open_base(tiny_model))
    assert raised.value.code == code


def plan_on(make_plan: Any, folder: Path, row: dict[str, Any]) -> Any:
    held_out = [split_files.write(folder / "test.jsonl", [row], "held")]
    return make_plan(evaluationDatasets=held_out, evaluation=graded({"type": "Number"}))


def test_no_held_out_rows_and_rewards_of_one_name_are_all_reported(runs: Any, make_plan: Any) -> None:
    with pytest.raises(TrainerError) as raised:
        runs.finish(make_plan(held_out=False, evaluation=graded({"type": "Number"}, {"type": "Number"})))
    for words in ("evaluation.rewards needs held-out rows", "more than one is named number"):
        assert words in raised.value.message


@pytest.fixture
def drawn(tmp_path: Path, make_plan: Any) -> Any:
    """A plan that teaches the tiny model one letter as the answer to four questions."""
    rows = [{"prompt": f"Which letter is in {word}?", "completion": "e"} for word in ("Rome", "Quito", "Delhi", "Bern")]
    held_out = split_files.write(tmp_path / "validation.jsonl", rows, "letters")
    return make_plan(
        datasets=[{**held_out, "split": "train"}],
        evaluationDatasets=[held_out],
        evaluation=graded({"type": "ExactMatch"}, passAt={"k": [1, 3], "generations": 4, "temperature": "1"}),
        training={"maxSteps": 30, "batchSize": 4, "learningRate": "1e-2"},
        checkpoints={"everySteps": 1000},
        adapter={"type": "None"},
    )


def test_pass_at_k_is_of_samples_by_the_same_seeds(runs: Any, drawn: Any) -> None:
    result = runs.finish(drawn)
    one, three = number(result, "pass_at_1_exactmatch"), number(result, "pass_at_3_exactmatch")
    assert (one.dataset, one.rows) == ("letters/validation", 4)
    assert 0 < float(one.tuned) <= float(three.tuned) <= 1
    assert float(one.base or 0) < float(one.tuned)

    base = base_model.open_base(drawn.model_path)
    network = base_model.load(base, bf16=False, cpu=True, quantize=False, frozen=True).eval()
    options: dict[str, Any] = {"temperature": 1.0, "pad_id": 0, "stop_ids": base.stop_ids, "longest": LENGTH}
    prompts = [row.prompt_ids for row in reward_scores.prompts(drawn, base)[0].rows]
    first, again, other = (generate.draw(network, prompts, seed=seed, **options) for seed in (1, 1, 2))
    assert first == again != other


def test_pass_at_k_without_a_cluster_is_checked_by_the_trainer(runs: Any, make_plan: Any) -> None:
    with pytest.raises(TrainerError) as raised:
        runs.finish(make_plan(evaluation=graded(passAt={"k": [9]})))
    for words in ("add one of type Number", "k must not be larger than generations"):
        assert words in raised.value.message
