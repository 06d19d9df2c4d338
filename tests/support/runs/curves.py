"""The curve of a run, and whether another run has the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract.report import TrainingResult


def points(plan: Any) -> list[dict[str, float]]:
    """Of each step: its loss and what else was logged."""
    file = Path(plan.output_path) / ("full" if plan.adapter.type == "None" else "adapter") / "metrics.jsonl"
    return [point for point in map(json.loads, file.read_text().splitlines()) if "loss" in point]


def number(result: TrainingResult, name: str) -> tuple[float, float]:
    """Base's and tuned model's value of a metric on the first split."""
    found = next(n for n in result.numbers if n.name == name)
    assert found.base is not None
    return float(found.base), float(found.tuned)


def assert_alike(alone: Any, shared: Any, steps: int, by_pass: tuple[str, ...], rel: float) -> None:
    """Two runs logged the same for each step.

    Args:
        by_pass: how the names begin of what is of a pass, and not of a step.
    """
    assert len(points(alone)) == len(points(shared)) == steps
    for theirs, ours in zip(points(alone), points(shared), strict=True):
        same = [key for key in theirs if not key.startswith(by_pass)]
        assert {key: ours[key] for key in same} == pytest.approx({key: theirs[key] for key in same}, rel=rel, abs=1e-5)
