"""Grades an answer by a grader of OpenAI's fine-tuning.

`hone convert` copies this file into a ConfigMap, with the grader at its end. It runs in the sandbox of rewards, with
Python's standard library alone.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

GRADER: dict[str, Any] = {}
"""The grader as the job had it, appended at the end of the copy."""


def reward(completion: str, answer: str | None = None, **_: Any) -> float:
    """The grade; `answer` has the fields of the row as JSON."""
    try:
        parsed = json.loads(completion)
    except ValueError:
        parsed = None
    message = {"role": "assistant", "content": completion}
    sample = {"output_text": completion, "output_json": parsed, "choices": [{"message": message}], "output_tools": []}
    score = float(grade(GRADER, sample, json.loads(answer or "{}")))
    return float(score >= GRADER["passes_at"]) if "passes_at" in GRADER else score


def grade(grader: dict[str, Any], sample: dict[str, Any], item: dict[str, Any]) -> Any:
    """The number that a grader gives."""
    if grader["type"] == "python":
        names: dict[str, Any] = {"__name__": "grader"}
        exec(grader["source"], names)  # noqa: S102, the person's own, in the sandbox
        return names["grade"](sample, item)
    if grader["type"] == "multi":
        parts = {name: grade(each, sample, item) for name, each in grader["graders"].items()}
        known: dict[str, Any] = {"min": min, "max": max, "abs": abs}
        known |= {name: getattr(math, name) for name in ("floor", "ceil", "exp", "sqrt", "log")}
        return eval(grader["calculate_output"], {"__builtins__": {}, **known}, parts)  # noqa: S307, as above
    text, reference = (filled(grader[part], sample, item) for part in ("input", "reference"))
    if grader["type"] == "string_check":
        return CHECKS[grader["operation"]](text, reference)
    metric = grader["evaluation_metric"]
    if metric == "chrf":
        return chrf(text, reference)
    return fuzzy(text, reference) if metric == "fuzzy_match" else rouge(metric, text, reference)


def filled(template: str, sample: dict[str, Any], item: dict[str, Any]) -> str:
    """The template with `{{item.…}}` and `{{sample.…}}` replaced."""

    def value(match: re.Match[str]) -> str:
        node: Any = {"sample": sample, "item": item}[match[1]]
        for step in match[2].split("."):
            node = node[int(step)] if isinstance(node, list) else (node or {}).get(step)
        return node if isinstance(node, str) else json.dumps(node, ensure_ascii=False)

    return re.sub(r"\{\{\s*(sample|item)\.([\w.]+)\s*\}\}", value, template)


CHECKS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda text, reference: text == reference,
    "ne": lambda text, reference: text != reference,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.lower() in text.lower(),
}


def common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for one in first:
        before = 0
        for i, other in enumerate(second, 1):
            before, row[i] = row[i], before + 1 if one == other else max(row[i], row[i - 1])
    return row[-1]


def fuzzy(text: str, reference: str) -> float:
    """Indel similarity, the `ratio` of rapidfuzz."""
    return 2 * common(text, reference) / (len(text) + len(reference) or 1)


def rouge(metric: str, text: str, reference: str) -> float:
    """F1 of common word n-grams, or of the longest common subsequence of words (Lin 2004)."""
    words = [re.findall(r"[a-z0-9]+", each.lower()) for each in (text, reference)]
    if metric == "rouge_l":
        hits, sizes = common(*words), [len(each) for each in words]
    else:
        n = int(metric.removeprefix("rouge_"))
        grams = [Counter(tuple(each[i : i + n]) for i in range(len(each) - n + 1)) for each in words]
        hits, sizes = (grams[0] & grams[1]).total(), [each.total() for each in grams]
    return 2 * hits / sum(sizes) if hits else 0.0


def chrf(text: str, reference: str) -> float:
    """F2 of common n-grams of 1 to 6 characters, without spaces (Popovic 2015): of every script."""
    shares = []
    for n in range(1, 7):
        parts = ["".join(each.split()) for each in (text, reference)]
        grams = [Counter(part[i : i + n] for i in range(len(part) - n + 1)) for part in parts]
        if all(grams):
            hits = (grams[0] & grams[1]).total()
            shares.append([hits / each.total() for each in grams])
    precision, recall = (sum(column) / len(column) for column in zip(*shares, strict=True)) if shares else (0.0, 0.0)
    return 5 * precision * recall / (4 * precision + recall) if precision and recall else float(text == reference)
