"""Plans of GRPO and RLOO on small sums, and what their runs logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.runs import split_files

FULL = {"adapter": {"type": "None"}}
ONCE = {"evaluation": {"everySteps": 1000}}
"""Evaluated before and after alone."""
VOWELS = "def reward(completion, **_):\n    return sum(c in 'aeiou' for c in completion) / max(len(completion), 1)\n"


def write(path: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """A split's file, as the plan names it."""
    return split_files.write(path, rows, "sums")


def sums(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {n} and {n % 7}?", "answer": str(n + n % 7)} for n in range(count)]


def sums_plans(make_plan: Any, tmp_path: Path) -> Any:
    """A function that makes plans whose reward is the share of vowels.

    Its keyword arguments replace fields; `grpo` is merged.
    """
    train, validation = write(tmp_path / "train.jsonl", sums(40)), write(tmp_path / "validation.jsonl", sums(56)[40:])
    (tmp_path / "reward.py").write_text(VOWELS)

    def make(name: str = "run", grpo: dict[str, Any] | None = None, **fields: Any) -> Any:
        block = {
            "rewards": [{"type": "Python", "name": "vowels", "python": {"configMapName": "mine"}}],
            "generations": 4,
            "maxCompletionLength": 8,
            **(grpo or {}),
        }
        paths = {"rewardPaths": {"vowels": str(tmp_path / "reward.py")}}
        held_out = [validation] if fields.pop("held_out", True) else []
        datasets = {"datasets": [train], "evaluationDatasets": held_out, **fields.pop("rows", {})}
        training = {"maxSteps": 8, "batchSize": 16, "learningRate": "2e-2", **fields.pop("training", {})}
        return make_plan(name, method="GRPO", grpo=block, training=training, **paths, **datasets, **fields)

    return make
