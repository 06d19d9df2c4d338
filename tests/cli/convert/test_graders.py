"""Graders of OpenAI: what is computed here is what the grader computes."""

from __future__ import annotations

import json
import random
from typing import Any

import jmespath
import pytest

from hone_cli.convert import grading
from hone_cli.convert.graders import convert
from hone_cli.convert.values import NotOfferedError

pytestmark = pytest.mark.pure
OUTPUT = "{{sample.output_text}}"
CHECK = {"type": "string_check", "name": "same", "input": OUTPUT, "reference": "{{item.label}}", "operation": "eq"}
ROUGE = {
    "type": "text_similarity",
    "name": "near",
    "input": OUTPUT,
    "reference": "{{item.text}}",
    "evaluation_metric": "rouge_l",
}
PYTHON = {
    "type": "python",
    "name": "own",
    "source": "def grade(sample, item):\n    return len(sample['output_text']) / item['n']",
}
MODEL = {
    "type": "score_model",
    "name": "Asked",
    "model": "o3",
    "input": [{"role": "user", "content": "Grade the tone."}],
    "range": [0, 5],
}


def multi(formula: str, **graders: Any) -> dict[str, Any]:
    return {"type": "multi", "name": "all", "graders": graders, "calculate_output": formula}


def graded(grader: dict[str, Any], completion: str, item: dict[str, Any]) -> float:
    """By the code of the ConfigMap, as the sandbox calls it."""
    made = convert(grader, None, "rewards")
    names: dict[str, Any] = {"__name__": "reward"}
    exec(made.code[made.rewards[0]["python"]["key"]], names)
    score: float = names["reward"](completion=completion, answer=json.dumps(item), prompt="", tests=None, solution=None)
    return score


@pytest.mark.parametrize(
    ("grader", "completion", "item", "score"),
    [
        (CHECK, "yes", {"label": "yes"}, 1),
        (CHECK, "Yes", {"label": "yes"}, 0),
        (CHECK | {"operation": "ne"}, "Yes", {"label": "yes"}, 1),
        (CHECK | {"operation": "like"}, "oh yes", {"label": "yes"}, 1),
        (CHECK | {"operation": "like"}, "oh Yes", {"label": "yes"}, 0),
        (CHECK | {"operation": "ilike"}, "oh Yes", {"label": "yes"}, 1),
        (CHECK | {"input": "{{sample.output_json.a}}"}, '{"a": "yes"}', {"label": "yes"}, 1),
        (CHECK | {"reference": "{{ item.label.word }}!"}, "yes!", {"label": {"word": "yes"}}, 1),
        (PYTHON, "abc", {"n": 6}, 0.5),
        (multi("0.25 * same + max(own, 1) / 2", same=CHECK, own=PYTHON), "yes", {"label": "yes", "n": 6}, 0.75),
        (multi("min(1, exp(0) + same)", same=CHECK), "no", {"label": "yes"}, 1),
    ],
)
def test_the_reward_is_what_the_grader_computes(grader: Any, completion: str, item: Any, score: float) -> None:
    assert graded(grader, completion, item) == pytest.approx(score)


def test_similarities_are_those_of_their_libraries() -> None:
    rouge = pytest.importorskip("rouge_score.rouge_scorer")
    fuzz = pytest.importorskip("rapidfuzz.fuzz")
    draw = random.Random(0)
    names = [f"rouge{n}" for n in (1, 2, 3, 4, 5)] + ["rougeL"]
    scorer = rouge.RougeScorer(names)
    for _ in range(200):
        first, second = (" ".join(draw.choices(["a", "B", "c1", "d,", "é-f"], k=draw.randint(0, 9))) for _ in range(2))
        scores = scorer.score(first, second)
        for name in names:
            metric = name.replace("rouge", "rouge_").lower()
            assert grading.rouge(metric, second, first) == pytest.approx(scores[name].fmeasure), (name, first, second)
        if first or second:
            assert grading.fuzzy(first, second) == pytest.approx(fuzz.ratio(first, second) / 100)


def test_a_grader_without_a_model_is_one_reward_and_its_fields_are_the_answer() -> None:
    made = convert(multi("same * near", same=CHECK, near=ROUGE), None, "x-rewards")
    assert made.rewards == [
        {"type": "Python", "name": "all", "python": {"configMapName": "x-rewards", "key": "grader-1.py"}}
    ]
    assert made.answer == "{label: label, text: text}"
    assert convert(PYTHON, None, "x").answer == "{n: n}"
    assert convert(CHECK | {"reference": "yes"}, None, "x").answer == "'none'"


def test_each_field_that_is_read_is_a_name_of_jmespath() -> None:
    source = "def grade(sample, item):\n    return item['my field'] == item.get(\"größe\", item['label'])"
    answer = convert({"type": "python", "name": "own", "source": source}, None, "x").answer
    item = {"my field": 1, "größe": 2, "label": 3}
    assert jmespath.search(answer, {**item, "other": 4}) == item


def test_with_a_model_a_weighted_sum_becomes_a_sum_of_rewards() -> None:
    made = convert(
        multi("0.5 * asked + same / 4 - near", asked=MODEL, same=CHECK, near=ROUGE), "http://judge.models.svc/v1", "x"
    )
    judge, same, near = made.rewards
    assert (judge["type"], judge["weight"], judge["name"]) == ("Judge", "2.5", "asked")
    assert judge["judge"] == {"endpoint": "http://judge.models.svc/v1", "instructions": "Grade the tone."}
    assert (same["weight"], near["weight"]) == ("0.25", "-1")
    assert [*made.code] == ["grader-1.py", "grader-2.py"]
    assert made.reason


def test_the_instructions_of_a_judge_name_the_fields_that_the_grader_reads() -> None:
    asked = MODEL | {
        "input": [{"role": "user", "content": "{{ sample.output_text }}: is it {{item.a.b}}, {{item.c}}?"}]
    }
    made = convert(asked, "http://judge.models.svc/v1", "x")
    assert made.rewards[0]["judge"]["instructions"] == "<answer>: is it {{reference.a.b}}, {{reference.c}}?"
    assert made.answer == "{a: a, c: c}"


@pytest.mark.parametrize(
    ("grader", "words"),
    [
        (MODEL, "--judge"),
        (multi("asked", asked=MODEL | {"input": [{"content": "{{ sample.output_tools }}"}]}), "output_tools"),
        (multi("asked * same", asked=MODEL, same=CHECK), "weighted sum"),
        (multi("asked + other", asked=MODEL, same=CHECK), "weighted sum"),
        ({"type": "label_model", "name": "x"}, "type label_model"),
        (ROUGE | {"evaluation_metric": "cosine"}, "libraries"),
        (CHECK | {"extra": 1}, "extra"),
        (CHECK | {"reference": "{{ item.label | upper }}"}, "only item.NAME and sample.NAME are filled"),
        (CHECK | {"reference": "{{ item['label'] }}"}, "only item.NAME and sample.NAME are filled"),
        (multi("a", a=CHECK | {"extra": 1}), "extra"),
    ],
)
def test_what_no_reward_computes_is_refused(grader: Any, words: str) -> None:
    with pytest.raises(NotOfferedError, match=words):
        convert(grader, "http://judge" if "asked" in json.dumps(grader.get("graders", "")) else None, "x")
