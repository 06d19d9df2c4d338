"""`hone migrate openai`: rows, manifest and what is left out, from what a user of the hosted API holds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from sacrebleu.metrics import CHRF
from typer.testing import CliRunner, Result

from hone_cli.__main__ import application
from hone_cli.convert import graders, grading
from hone_cli.convert.migrate import _OF_EVALS, parity_lines, price_lines
from hone_cli.convert.tables import tables

pytestmark = pytest.mark.pure
OUTPUT = "{{sample.output_text}}"
JOB = {
    "object": "fine_tuning.job",
    "id": "ftjob-1",
    "model": "gpt-4o-mini",
    "training_file": "file-1",
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "learning_rate_multiplier": 2}}},
}


def turns(number: int, answer: Any = None) -> dict[str, Any]:
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"Question {number}?"}]
    return {"messages": asked if answer is None else [*asked, {"role": "assistant", "content": answer}]}


def write(file: Path, rows: list[Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def migrate(folder: Path, recorded: list[Any], *options: str, job: Any = JOB, training: Any = None) -> Result:
    (folder / "bot.json").write_text(json.dumps(job))
    files = [
        *("-t", write(folder / "train.jsonl", training or [turns(n, f"Answer {n}") for n in range(20)])),
        *("--validation", write(folder / "val.jsonl", [turns(n, f"Answer {n}") for n in range(100, 104)])),
        *("-r", write(folder / "recorded.jsonl", recorded)),
    ]
    target = ["-m", "Qwen/Qwen3-8B", "-o", str(folder / "out")]
    return CliRunner().invoke(application(), ["migrate", "openai", str(folder / "bot.json"), *files, *target, *options])


def held(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out/bot-held.jsonl").read_text().splitlines()]


def objects(folder: Path) -> dict[str, Any]:
    bodies = yaml.safe_load_all((folder / "out/manifest.yaml").read_text())
    return {f"{body['kind']}/{body['metadata']['name']}": body for body in bodies}


def test_prompts_with_a_recorded_answer_are_held_out_and_compared(tmp_path: Path) -> None:
    result = migrate(tmp_path, [turns(n, f"Old {n}") for n in (100, 102)], "--price", "1.5")
    assert result.exit_code == 0, result.output
    assert [(row["recorded"], row["item"]) for row in held(tmp_path)] == [
        ("Old 100", {"reference": "Answer 100"}),
        ("Old 102", {"reference": "Answer 102"}),
    ]
    made = objects(tmp_path)
    assert made["Dataset/bot-held"]["spec"]["columns"] == {
        "messages": "messages",
        "answer": "item",
        "recorded": "recorded",
    }
    assert made["Dataset/bot-held"]["spec"]["source"]["uri"] == "configmap://bot-held/bot-held.jsonl"
    rewards = made["FineTuneJob/bot-1"]["spec"]["evaluation"]["rewards"]
    assert [(each["name"], each["python"]["configMapName"]) for each in rewards] == [
        ("exact", "bot-evals"),
        ("chrf", "bot-evals"),
    ]
    gates = made["Model/bot"]["spec"]["promotion"]["gates"]
    assert gates[0] == {"metric": "parity_exact", "value": "Against", "atLeast": "-0.05"}
    assert "learning_rate_multiplier" in result.output, "what is not mapped is said"


def test_rows_that_the_old_model_learned_are_held_out_only_if_there_are_no_others(tmp_path: Path) -> None:
    assert migrate(tmp_path, [turns(n, "old") for n in range(20)]).exit_code == 0
    prompts = [row["messages"][1]["content"] for row in held(tmp_path)]
    assert prompts == ["Question 0?", "Question 10?"]
    train = (tmp_path / "out/bot.jsonl").read_text()
    assert train.count("\n") == 18
    assert not any(f'"{prompt}"' in train for prompt in prompts)


CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a"}}]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (turns(101, ""), "a turn is empty"),
        (turns(101, None), "its last turn is not an answer"),
        ({"messages": [*turns(101)["messages"], CALL]}, "it calls tools"),
        ({"messages": [IMAGE, {"role": "assistant", "content": "a"}]}, "it has images"),
        (turns(100, "Another"), "its prompt has another recorded answer already"),
        ({"text": "a"}, "none of the forms of recorded answers"),
        ({"messages": []}, "none of the forms of recorded answers"),
        ({"messages": 3}, "none of the forms of recorded answers"),
        ({"custom_id": "x", "response": {"body": {"choices": []}}}, "none of the forms of recorded answers"),
        (turns(777, "Old"), "1 recorded answers have no reference answer"),
    ],
)
def test_what_cannot_be_compared_is_left_out_with_its_line(tmp_path: Path, row: Any, words: str) -> None:
    result = migrate(tmp_path, [turns(100, "Old"), row])
    assert result.exit_code == 0, result.output
    assert words in result.output
    assert [each["recorded"] for each in held(tmp_path)] == ["Old"]


@pytest.mark.parametrize(
    "rows",
    [
        [{"choices": [{"message": {"role": "assistant", "content": "Old"}}], **turns(100)}],
        [{"request": turns(100), "response": {"choices": [{"message": {"role": "assistant", "content": "Old"}}]}}],
        [
            {"custom_id": "a", "method": "POST", "body": turns(100)},
            {"custom_id": "a", "response": {"body": {"choices": [{"message": {"content": "Old"}}]}}},
        ],
        [{"sample": {"input": turns(100)["messages"], "output": [{"role": "assistant", "content": "Old"}]}}],
        [{"messages": [*turns(100)["messages"], {"role": "assistant", "content": [{"type": "text", "text": "Old"}]}]}],
    ],
)
def test_recorded_answers_have_the_forms_of_the_hosted_api(tmp_path: Path, rows: list[Any]) -> None:
    result = migrate(tmp_path, rows)
    assert result.exit_code == 0, result.output
    assert [row["recorded"] for row in held(tmp_path)] == ["Old"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"messages": [{"role": "us', "line 1: not JSON. Is the file whole?"),
        ("[" * 30_000, "line 1: not JSON. Is the file whole?"),
        ("[1]", "entry 1: not an object"),
        ("", "no recorded answer is to a prompt that can be held out"),
        (json.dumps(turns(101, "")), "1 left out: a turn is empty"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "half.jsonl"
    file.write_text(text)
    result = migrate(tmp_path, [], "-r", str(file))
    assert result.exit_code == 1
    assert words in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    result = migrate(tmp_path, [turns(100, "Old")])
    assert "is not of hone migrate" in str(result.exception)
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["mine"]


def test_without_references_it_is_similarity_and_no_parity(tmp_path: Path) -> None:
    assert migrate(tmp_path, [turns(n, f"Old {n}") for n in (500, 501)]).exit_code == 0
    made = objects(tmp_path)
    assert "Model/bot" not in made, "no gate"
    assert "recorded" not in made["Dataset/bot-held"]["spec"]["columns"]
    numbers = [{"name": "reward_agreement_chrf", "tuned": "0.8", "low": "0.7", "high": "0.9", "rows": 2}]
    lines, shown = parity_lines(numbers, [], 0.05)
    assert not shown
    assert "similar, not as good" in lines[0]
    assert "It is not known which answers are better" in lines[1]


def test_pairs_and_graded_rows_keep_what_they_are_judged_by(tmp_path: Path) -> None:
    def pair(number: int) -> dict[str, Any]:
        good, bad = ([{"role": "assistant", "content": text}] for text in ("Good", "Bad"))
        return {"input": turns(number), "preferred_output": good, "non_preferred_output": bad}

    dpo = {**JOB, "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}}
    result = migrate(tmp_path, [turns(n, "Old") for n in (0, 5)], job=dpo, training=[pair(n) for n in range(9)])
    assert result.exit_code == 0, result.output
    assert [(row["item"], row["recorded"]) for row in held(tmp_path)] == [({"reference": "Good"}, "Old")]
    assert objects(tmp_path)["Dataset/bot-held"]["spec"]["format"] == "Preference"

    grader = {"type": "string_check", "name": "same", "input": OUTPUT, "reference": "{{item.label}}", "operation": "eq"}
    graded = {**JOB, "method": {"type": "reinforcement", "reinforcement": {"grader": grader}}}
    rows = [{**turns(n), "label": n} for n in range(9)]
    result = migrate(tmp_path, [turns(n, "Old") for n in (0, 5)], job=graded, training=rows)
    assert result.exit_code == 0, result.output
    assert [row["item"] for row in held(tmp_path)] == [{"label": 0}]
    made = objects(tmp_path)
    assert (
        made["FineTuneJob/bot-1"]["spec"]["evaluation"]["rewards"]
        == made["FineTuneJob/bot-1"]["spec"]["grpo"]["rewards"]
    )
    assert made["Dataset/bot-held"]["spec"]["columns"]["recorded"] == "recorded"


CRITERIA: list[dict[str, Any]] = [
    {"type": "string_check", "name": "Same", "input": OUTPUT, "reference": "{{item.gold}}", "operation": "eq"},
    {
        **{"type": "text_similarity", "name": "near", "input": OUTPUT, "reference": "{{ item.gold }}"},
        **{"evaluation_metric": "rouge_l", "pass_threshold": 0.5},
    },
    {"type": "python", "name": "own", "source": "def grade(sample, item):\n    return 1.0", "image_tag": "2025-05-08"},
    {
        "type": "score_model",
        "name": "tone",
        "model": "o3",
        "input": [{"role": "user", "content": "Grade."}],
        "range": [1, 7],
    },
    {
        **{"type": "label_model", "name": "kind", "model": "o3", "input": [{"role": "user", "content": "Kind?"}]},
        **{"labels": ["yes", "no"], "passing_labels": ["yes"]},
    },
    {"type": "text_similarity", "name": "c", "input": OUTPUT, "reference": "a", "evaluation_metric": "cosine"},
    {"type": "new_kind", "name": "n"},
    {"type": "string_check", "name": "extra", "input": OUTPUT, "reference": "a", "operation": "eq", "case": 1},
]


@pytest.mark.parametrize("judge", [(), ("--judge", "http://judge.models.svc/v1")])
def test_each_criterion_of_an_eval_is_a_gate_or_has_a_reason(tmp_path: Path, judge: tuple[str, ...]) -> None:
    (tmp_path / "eval.json").write_text(json.dumps({"object": "eval", "testing_criteria": CRITERIA}))
    result = migrate(tmp_path, [turns(100, "Old")], "--eval", str(tmp_path / "eval.json"), *judge)
    assert result.exit_code == 0, result.output
    made = objects(tmp_path)
    names = [each["name"] for each in made["FineTuneJob/bot-1"]["spec"]["evaluation"]["rewards"]]
    gated = [each["metric"] for each in made["Model/bot"]["spec"]["promotion"]["gates"]]
    assert names == ["same", "near", "own", *(["tone"] if judge else [])]
    assert gated == [f"parity_{name}" for name in names]
    for number, criterion in enumerate(CRITERIA):
        is_gate = number < len(names)
        said = f"testing_criteria[{number}] ({criterion['name']})" in result.output
        assert said or is_gate, criterion
    assert held(tmp_path)[0]["item"] == {"gold": "Answer 100", "reference": "Answer 100"}
    code = made["ConfigMap/bot-evals"]["data"]["grader-2.py"]
    names_of: dict[str, Any] = {"__name__": "grader"}
    exec(code, names_of)
    item = json.dumps({"gold": "a b c d"})
    assert [names_of["reward"](text, item) for text in ("a b c", "a", "")] == [1.0, 0.0, 0.0]


TYPES = json.loads((Path(__file__).parents[2] / "corpus/configurations/openai-types.json").read_text())
"""Fields of the classes of the package openai: graders, testing criteria, evals and fine-tuning jobs."""
VALUES: dict[str, Any] = {
    **{"name": "n", "input": OUTPUT, "reference": "a", "operation": "eq", "evaluation_metric": "rouge_1"},
    **{"pass_threshold": 0.5, "source": "def grade(sample, item):\n    return 1.0", "image_tag": "2025-05-08"},
    **{"model": "o3", "range": [0, 1], "sampling_params": {"seed": 1}, "labels": ["a", "b"], "passing_labels": ["a"]},
    **{"calculate_output": "x", "graders": {"x": CRITERIA[0]}},
}
LEFT_OUT = {"cosine", "bleu", "gleu", "meteor"}


def test_every_field_of_every_grader_of_the_package_is_known() -> None:
    asked = [{"role": "user", "content": "Grade."}]
    tried = 0
    for kind, fields in TYPES["graders"].items():
        body = {name: VALUES[name] for name in fields if name != "type"} | {"type": kind}
        body |= {"input": asked} if kind.endswith("_model") else {}
        made = graders.convert_criteria([body], "http://judge.models.svc/v1", "evals")
        assert len(made.rewards) == 1, (kind, made.reasons)
        ((is_graded, reason),) = made.reasons.values()
        assert is_graded
        assert bool(reason) == ("image_tag" in fields or kind.endswith("_model")), "what is not taken is said"
        (without,) = graders.convert_criteria([{**body, "new_key": 1}], "http://judge", "evals").reasons.values()
        assert without[0] is False
        assert "new_key" in without[1]
        tried += len(fields)
    assert tried == 33
    for metric in TYPES["metrics"]:
        made = graders.convert_criteria([{**CRITERIA[1], "evaluation_metric": metric}], None, "evals")
        assert bool(made.rewards) == (metric not in LEFT_OUT), metric
    for operation in TYPES["operations"]:
        assert graders.convert_criteria([{**CRITERIA[0], "operation": operation}], None, "evals").rewards
        assert operation in grading.CHECKS
    assert {*TYPES["eval"]} == {*_OF_EVALS, "testing_criteria"}
    tried += len(TYPES["metrics"]) + len(TYPES["operations"])
    row = f"| {tried} | {tried - len(LEFT_OUT)} are graded here, or said with the reason |"
    assert row in (Path(__file__).parents[3] / "docs/outside.md").read_text()


def test_every_field_of_a_job_of_the_package_is_known() -> None:
    assert len(TYPES["job"]) > 30
    assert [key for key in TYPES["job"] if tables()["openai"].row(key) is None] == []


def with_eval(folder: Path, criteria: list[dict[str, Any]], recorded: list[Any]) -> Result:
    (folder / "eval.json").write_text(json.dumps({"object": "eval", "testing_criteria": criteria}))
    return migrate(folder, recorded, "--eval", str(folder / "eval.json"))


def test_any_name_of_a_criterion_becomes_one_of_a_reward(tmp_path: Path) -> None:
    told = [
        ("String check-0f3b8c9a-4e3d-11ef", "string_check_0f3b8c9a_4e"),
        ("String check-0f3b8c9a-4e3d-22ff", "string_check_0f3b8c9_2"),
        ("1. Über 'all'; rm", "string_check_1_ber_all_r"),
        ("Agreement with policy", "agreement_with_policy"),
    ]
    result = with_eval(tmp_path, [{**CRITERIA[0], "name": name} for name, _ in told], [turns(100, "Old")])
    assert result.exit_code == 0, result.output
    made = objects(tmp_path)
    rewards = made["FineTuneJob/bot-1"]["spec"]["evaluation"]["rewards"]
    assert [each["name"] for each in rewards] == [name for _, name in told]
    gates = made["Model/bot"]["spec"]["promotion"]["gates"]
    assert [each["metric"] for each in gates] == [f"parity_{name}" for _, name in told]
    nameless = graders.convert_criteria([{**CRITERIA[0], "name": "中"}, {**CRITERIA[0], "name": ""}], None, "x")
    assert [each["name"] for each in nameless.rewards] == ["string_check", "string_check_2"]


def test_a_field_that_no_row_has_is_the_reference_answer_only_if_it_is_the_only_one(tmp_path: Path) -> None:
    second = {**CRITERIA[0], "name": "topic", "reference": "{{item.topic}}"}
    result = with_eval(tmp_path, [CRITERIA[0]], [turns(100, "Old")])
    assert "No row has item.gold, which the eval reads: it is the reference answer here." in result.output
    result = with_eval(tmp_path, [CRITERIA[0], second], [turns(100, "Old")])
    assert "the eval reads item.gold, item.topic, which held-out rows do not have" in str(result.exception)
    sample = {"input": turns(100)["messages"], "output": [{"role": "assistant", "content": "Old"}]}
    item = {"datasource_item": {"gold": "g", "topic": "t"}, "sample": sample}
    result = with_eval(tmp_path, [CRITERIA[0], second], [item])
    assert result.exit_code == 0, result.output
    assert held(tmp_path)[0]["item"] == {"reference": "Answer 100", "gold": "g", "topic": "t"}


def test_equal_ids_of_two_batches_are_not_joined(tmp_path: Path) -> None:
    def batch(number: int) -> list[Any]:
        answer = {"body": {"choices": [{"message": {"content": f"Old {number}"}}]}}
        return [{"custom_id": "request-1", "body": turns(number)}, {"custom_id": "request-1", "response": answer}]

    result = migrate(tmp_path, [*batch(100), *batch(102), turns(101, "Old 101")])
    assert "2 left out or not used: two prompts have its custom_id" in result.output
    assert [row["recorded"] for row in held(tmp_path)] == ["Old 101"]


def test_a_prompt_within_a_longer_conversation_was_learned(tmp_path: Path) -> None:
    more = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
    longer = {"messages": [*turns(100, "Answer 100")["messages"], *more]}
    training = [longer, {"messages": "text"}, *(turns(n, f"Answer {n}") for n in range(9))]
    assert migrate(tmp_path, [turns(100, "Old"), turns(101, "Old")], training=training).exit_code == 0
    assert [row["messages"][1]["content"] for row in held(tmp_path)] == ["Question 101?"]
    result = migrate(tmp_path, [turns(100, "Old")], training=training)
    assert "so it has an advantage here" in result.output
    assert "Sure?" not in (tmp_path / "out/bot.jsonl").read_text(), "nothing is trained on what is held out"


def test_a_try_that_was_refused_can_be_repeated(tmp_path: Path) -> None:
    files = tmp_path / "out"
    files.mkdir()
    (files / "bot.jsonl").touch()
    (files / "bot-held.jsonl").touch()
    assert migrate(tmp_path, [{**turns(100, "Old"), "item": "text"}]).exit_code == 0


def test_chrf_is_that_of_sacrebleu() -> None:
    chosen = random.Random(7)
    metric = CHRF(eps_smoothing=False)
    for _ in range(200):
        texts = ["".join(chosen.choices("abcdé 中", k=chosen.randrange(8, 30))).strip() or "a" for _ in range(2)]
        assert grading.chrf(*texts) == pytest.approx(metric.sentence_score(texts[0], [texts[1]]).score / 100, abs=1e-6)
    assert grading.chrf("", "") == grading.chrf("中", "中") == 1
    assert grading.chrf("", "a") == grading.chrf("a", "b") == 0


@pytest.mark.parametrize(
    ("low", "high", "word", "shown"),
    [("-0.01", "0.1", "shown", True), ("-0.2", "-0.1", "no, worse", False), ("-0.2", "0.1", "not shown", False)],
)
def test_the_report_says_what_the_interval_shows(low: str, high: str, word: str, shown: bool) -> None:
    number = {"name": "parity_x", "tuned": "0.5", "against": "0.6", "againstLow": low, "againstHigh": high, "rows": 9}
    lines, is_shown = parity_lines([number], ["x"], 0.05)
    assert (f"parity within 0.05: {word}" in lines[0], is_shown) == (True, shown)
    assert parity_lines([number], ["x", "y"], 0.05)[1] is False, "one that was not measured shows nothing"
    equal = {**number, "againstLow": "0", "againstHigh": "0"}
    assert [parity_lines([{**equal, "rows": rows}], ["x"], 0.05)[1] for rows in (1, 59, 60)] == [False, False, True]


def test_prices_are_per_million_tokens() -> None:
    assert price_lines(1.2, 3.6, 1000)[1:] == [
        "Open model: 1 for a million tokens at 1000 tokens a second",
        "Both cost the same at 833.3 tokens a second of these GPUs",
    ]
    assert len(price_lines(None, None, None)) == 2
    assert len(price_lines(0.0, 3.6, None)) == 2
