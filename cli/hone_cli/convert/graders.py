"""Graders of OpenAI's reinforcement fine-tuning become rewards of GRPO."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hone_cli.convert.values import NotOfferedError

MOST_REWARDS = 4
"""Of evaluation.rewards."""
_LONGEST_NAME = 24
"""Characters of a reward's name."""
_METRICS = ("fuzzy_match", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l")
_FILLED = re.compile(r"\{\{\s*(sample|item)\.[\w.]+\s*\}\}")
"""What `grading` replaces."""
_ITEM = re.compile(r"\{\{\s*item\.([\w.]+)\s*\}\}")
_OUTPUT = re.compile(r"\{\{\s*sample\.output_text\s*\}\}")
_REFERENCE = re.compile(r"\{\{reference\.[\w.]+\}\}")
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_QUOTED = re.compile(r"^[^A-Za-z_]|[^A-Za-z0-9_]")
"""Of JMESPath."""
_KEYS = {
    "string_check": {"type", "name", "input", "reference", "operation"},
    "text_similarity": {"type", "name", "input", "reference", "evaluation_metric", "pass_threshold"},
    "python": {"type", "name", "source", "image_tag", "pass_threshold"},
    "score_model": {"type", "name", "model", "input", "range", "sampling_params", "pass_threshold"},
    "multi": {"type", "name", "graders", "calculate_output", "pass_threshold"},
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
        _judge(each, weight, judge) if each["type"] == "score_model" else python_reward(each, config_map, code, weight)
        for each, weight in _terms(grader)
    ]
    rename_equal(rewards)
    names = (json.dumps(name, ensure_ascii=False) if _QUOTED.search(name) else name for name in sorted(_fields(grader)))
    answer = ", ".join(f"{name}: {name}" for name in names)
    is_asked = any(reward["type"] == "Judge" for reward in rewards)
    reason = "another model grades, without model, range and sampling_params" if is_asked else ""
    return ConvertedGrader(rewards, code, f"{{{answer}}}" if answer else "'none'", reason)


def _require_known(grader: Any) -> None:
    if not isinstance(grader, Mapping):
        raise NotOfferedError(f"{str(grader)[:80]} is no grader")
    kind = grader.get("type")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise NotOfferedError(f"graders of type {kind} have no counterpart; there are {', '.join(_KEYS)}")
    if unknown := {*grader} - _KEYS[kind]:
        raise NotOfferedError(f"a grader of type {kind} has no key {', '.join(sorted(unknown))} that is known here")
    if kind == "text_similarity" and grader.get("evaluation_metric") not in _METRICS:
        raise NotOfferedError(
            f"{grader.get('evaluation_metric')} needs libraries that the sandbox has not: {', '.join(_METRICS)}"
        )
    for text in (grader.get(part) for part in ("input", "reference") if kind in ("string_check", "text_similarity")):
        if "{{" in _FILLED.sub("", str(text)):
            raise NotOfferedError(f"{text}: only item.NAME and sample.NAME are filled in templates")
    several = grader.get("graders") or {}
    if not isinstance(several, Mapping):
        raise NotOfferedError("graders of a multi grader have names")
    for each in several.values():
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
    name = re.sub(r"[^a-z0-9]+", "_", str(grader.get("name") or "").lower()).strip("_")
    name = (name if name[:1].isalpha() else f"{grader['type']}_{name}")[:_LONGEST_NAME].strip("_")
    return {"type": kind, "name": name, **({"weight": f"{weight:g}"} if weight != 1 else {})}


def python_reward(
    grader: Mapping[str, Any], config_map: str, code: dict[str, str], weight: float = 1.0
) -> dict[str, Any]:
    """The reward that computes a grader; its file goes into `code`."""
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
    instructions = _ITEM.sub(r"{{reference.\1}}", _OUTPUT.sub("<answer>", "\n\n".join(texts)))
    if left := _TEMPLATE.search(_REFERENCE.sub("", instructions)):
        raise NotOfferedError(f"{left[0]}: a judge sees item.NAME and sample.output_text alone")
    return {
        **_named("Judge", grader, weight * (high - low)),
        "judge": {"endpoint": judge, "instructions": instructions},
    }


def rename_equal(rewards: Sequence[dict[str, Any]]) -> None:
    """Give each its own name: that of the second one of a name ends in its number."""
    names: set[str] = set()
    for number, each in enumerate(rewards, 1):
        if each["name"] in names:
            each["name"] = f"{each['name'][: _LONGEST_NAME - 4]}_{number}"
        names.add(each["name"])


class ConvertedEval(NamedTuple):
    """What the testing criteria of an eval are here."""

    rewards: list[dict[str, Any]]
    code: dict[str, str]
    fields: list[str]
    """Fields of an item that they read."""
    reasons: dict[str, tuple[bool, str]]
    """Each criterion: whether it is graded here, and what of it is not."""


def convert_criteria(criteria: Sequence[Mapping[str, Any]], judge: str | None, config_map: str) -> ConvertedEval:
    """The rewards of testing criteria, one each; a criterion with a threshold gives 1 if it passes, else 0."""
    made, fields = ConvertedEval([], {}, [], {}), set[str]()
    for number, criterion in enumerate(criteria):
        key = f"testing_criteria[{number}] ({criterion.get('name')})"
        try:
            if len(made.rewards) == MOST_REWARDS:
                raise NotOfferedError(f"a job has at most {MOST_REWARDS} rewards: pass these in an eval of their own")
            reward, reason = _criterion(criterion, judge, config_map, made.code)
        except (NotOfferedError, KeyError, TypeError) as error:
            words = str(error) if isinstance(error, NotOfferedError) else "is not as the Evals API writes it"
            made.reasons[key] = (False, words)
            continue
        made.rewards.append(reward)
        made.reasons[key] = (True, reason)
        fields |= _fields(criterion)
    made.fields.extend(sorted(fields))
    rename_equal(made.rewards)
    return made


def _fields(grader: Mapping[str, Any]) -> set[str]:
    """Fields of an item that it reads."""
    text = json.dumps(grader, ensure_ascii=False)
    found = {*re.findall(r"\{\{\s*item\.(\w+)", text)}
    return found | {*re.findall(r"item(?:\.get\(|\[)\\?['\"]([^'\"\\]+)", text)}


def _criterion(
    criterion: Mapping[str, Any], judge: str | None, config_map: str, code: dict[str, str]
) -> tuple[dict[str, Any], str]:
    """The reward, and what of the criterion it does not have."""
    kind = criterion.get("type")
    if kind in ("label_model", "score_model"):
        asked: dict[str, Any] = dict(criterion)
        if kind == "label_model":
            if unknown := {*criterion} - {"type", "name", "model", "input", "labels", "passing_labels"}:
                raise NotOfferedError(f"label_model has no key {', '.join(sorted(unknown))} that is known here")
            words = (
                f"Choose one of the labels {', '.join(criterion['labels'])}. Give the highest grade if it is "
                f"{' or '.join(criterion['passing_labels'])}, otherwise the grade 0."
            )
            asked["input"] = [*criterion["input"], {"role": "user", "content": words}]
        else:
            _require_known(criterion)
        reward = _judge({**asked, "range": (0, 1)}, 1.0, judge)
        if len(reward["judge"]["instructions"]) > 4096:
            raise NotOfferedError("its instructions have more than 4,096 characters")
        reason = "another model grades, without model, range and sampling_params"
        return reward, f"{reason}; the mean score is reported, not the share above pass_threshold"
    _require_known(criterion)
    if '"score_model"' in json.dumps(criterion):
        raise NotOfferedError("a multi with a score_model: make its parts criteria of their own")
    passes = criterion.get("pass_threshold")
    grader = {**criterion, **({} if passes is None else {"passes_at": passes})}
    return python_reward(
        grader, config_map, code
    ), "image_tag: the sandbox has one Python" if "image_tag" in grader else ""
