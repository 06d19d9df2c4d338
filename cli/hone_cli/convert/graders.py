"""Graders of OpenAI's reinforcement fine-tuning become rewards of GRPO."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hone_cli.convert.values import NotOfferedError

_METRICS = ("fuzzy_match", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l")
_KEYS = {
    "string_check": {"type", "name", "input", "reference", "operation"},
    "text_similarity": {"type", "name", "input", "reference", "evaluation_metric", "pass_threshold"},
    "python": {"type", "name", "source", "image_tag", "pass_threshold"},
    "score_model": {"type", "name", "model", "input", "range", "sampling_params", "pass_threshold"},
    "multi": {"type", "name", "graders", "calculate_output"},
}


class ConvertedGrader(NamedTuple):
    """What a grader is here."""

    rewards: list[dict[str, Any]]
    code: dict[str, str]
    """Files of a ConfigMap that the rewards name by key."""
    answer: str
    """`columns.answer` of the Dataset: the fields of a row that the grader reads."""
    reason: str
    """What of the grader is not taken."""


def convert(grader: Mapping[str, Any], judge: str | None, config_map: str) -> ConvertedGrader:
    """The rewards of a grader.

    Raises:
        NotOfferedError: no reward of Hone grades like this.
    """
    _require_known(grader)
    code: dict[str, str] = {}
    rewards = [
        _judge(each, weight, judge) if each["type"] == "score_model" else _python(each, weight, config_map, code)
        for each, weight in _terms(grader)
    ]
    text = json.dumps(grader)
    fields = {*re.findall(r"\{\{\s*item\.(\w+)", text)}
    fields |= {*re.findall(r"item(?:\.get\(|\[)\\?['\"](\w+)", text)}
    answer = ", ".join(f"{name}: {name}" for name in sorted(fields))
    is_asked = any(reward["type"] == "Judge" for reward in rewards)
    reason = "the judge sees question and answer: the templates in its instructions are not filled" if is_asked else ""
    return ConvertedGrader(rewards, code, f"{{{answer}}}" if answer else "'none'", reason)


def _require_known(grader: Mapping[str, Any]) -> None:
    kind = grader.get("type")
    if kind not in _KEYS:
        raise NotOfferedError(f"graders of type {kind} have no counterpart; there are {', '.join(_KEYS)}")
    if unknown := {*grader} - _KEYS[kind]:
        raise NotOfferedError(f"a grader of type {kind} has no key {', '.join(sorted(unknown))} that is known here")
    if kind == "text_similarity" and grader["evaluation_metric"] not in _METRICS:
        raise NotOfferedError(
            f"{grader['evaluation_metric']} needs libraries that the sandbox has not: {', '.join(_METRICS)}"
        )
    for each in (grader.get("graders") or {}).values():
        _require_known(each)


def _terms(grader: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Graders with their weights: one alone, unless a part of it asks a model and the others do not."""
    if grader["type"] != "multi" or '"score_model"' not in json.dumps(grader):
        yield grader, 1.0
        return
    try:
        weights = dict(_linear(ast.parse(grader["calculate_output"], mode="eval").body))
        yield from ((each, weights.pop(name, 0.0)) for name, each in grader["graders"].items())
    except (SyntaxError, ValueError):
        weights = {"": 0.0}
    if weights:
        raise NotOfferedError(
            f"calculate_output {grader['calculate_output']}: with a score_model only a weighted sum is converted"
        )


def _linear(node: ast.expr, factor: float = 1.0) -> Iterator[tuple[str, float]]:
    match node:
        case ast.Name():
            yield node.id, factor
        case ast.BinOp(op=ast.Add()):
            yield from (*_linear(node.left, factor), *_linear(node.right, factor))
        case ast.BinOp(op=ast.Sub()):
            yield from (*_linear(node.left, factor), *_linear(node.right, -factor))
        case ast.BinOp(left=ast.Constant(value=number), op=ast.Mult(), right=part) if isinstance(number, int | float):
            yield from _linear(part, factor * number)
        case ast.BinOp(left=part, op=ast.Mult(), right=ast.Constant(value=number)) if isinstance(number, int | float):
            yield from _linear(part, factor * number)
        case ast.BinOp(left=part, op=ast.Div(), right=ast.Constant(value=number)) if isinstance(number, int | float):
            yield from _linear(part, factor / number)
        case _:
            raise ValueError


def _named(kind: str, grader: Mapping[str, Any], weight: float) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", str(grader.get("name") or grader["type"])).strip("_").lower()
    return {"type": kind, "name": name, **({"weight": f"{weight:g}"} if weight != 1 else {})}


def _python(grader: Mapping[str, Any], weight: float, config_map: str, code: dict[str, str]) -> dict[str, Any]:
    key = f"grader-{len(code) + 1}.py"
    source = Path(__file__).with_name("grading.py").read_text(encoding="utf-8")
    code[key] = f"{source}\n\nGRADER = json.loads({json.dumps(json.dumps(grader))})\n"
    return {**_named("Python", grader, weight), "python": {"configMapName": config_map, "key": key}}


def _judge(grader: Mapping[str, Any], weight: float, judge: str | None) -> dict[str, Any]:
    if judge is None:
        raise NotOfferedError(f"grader {grader.get('name')} asks a model: name a server of one by --judge http://...")
    low, high = grader.get("range") or (0, 1)
    texts = [message["content"] for message in grader["input"] if isinstance(message["content"], str)]
    if len(texts) < len(grader["input"]):
        raise NotOfferedError(f"grader {grader.get('name')} shows its model more than texts")
    instructions = "\n\n".join(texts)
    return {
        **_named("Judge", grader, weight * (high - low)),
        "judge": {"endpoint": judge, "instructions": instructions},
    }
