"""Plans of methods that are not compared by tokens: pairs, judged answers, rewards of greedy answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import judging
from sampled_sums import FULL, sums, sums_plans

METHODS = ("DPO", "ORPO", "KTO", "Reward", "GRPO", "PPO")
PLACES = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Tokyo", "Paris", "Delhi", "Accra", "Seoul", "Hanoi", "Bern"]


def write(path: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """A split's file, as the plan names it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return {"name": "polite", "split": path.stem, "path": str(path), "digest": digest}


def plans(make_plan: Any, folder: Path, model: Path) -> Callable[..., Any]:
    """What makes plans of a method with rows in the folder: `plan_of(method, name, **fields)`."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Where is {place} {i}?"}],
            "chosen": [{"role": "assistant", "content": f"Thank you for asking: near {place}."}],
            "rejected": [{"role": "assistant", "content": f"No idea, but near {place}."}],
        }
        for i in range(3)
        for place in PLACES
    ]
    pairs = {
        "datasets": [write(folder / "train.jsonl", rows[:24])],
        "evaluationDatasets": [write(folder / "validation.jsonl", rows[24:])],
    }

    def of_pairs(method: str, name: str, **fields: Any) -> Any:
        training = {"maxSteps": 4, "learningRate": "2e-3", **fields.pop("training", {})}
        return make_plan(name, method=method, training=training, **{**pairs, **fields})

    def of_sums(method: str, name: str, **fields: Any) -> Any:
        training = {"maxSteps": 4, "batchSize": 16, **fields.pop("training", {})}
        if method == "GRPO":
            grpo = {"rewards": [{"type": "Regex", "regex": {"pattern": "[aeiou].*[aeiou]", "match": "Search"}}]}
            whole = {"grpo": grpo, **FULL, **fields}
            return sums_plans(make_plan, folder)(name, training={"learningRate": "5e-3", **training}, **whole)
        splits = {"train": sums(40), "held": sums(56)[40:]}
        train, held = (write(folder / f"{split}.jsonl", rows) for split, rows in splits.items())
        judge = folder / "judge"
        if not judge.exists():
            judging.reward_model(model, judge)
        ppo = {"rewardModelVersion": "judge-v1", "maxCompletionLength": 8, "iterations": 1}
        models = {"judge-v1": {"path": str(judge)}}
        rows = {"datasets": [train], "evaluationDatasets": [held]}
        return make_plan(name, method="PPO", ppo=ppo, models=models, training=training, **rows, **fields)

    return lambda method, *args, **fields: (of_sums if method in ("GRPO", "PPO") else of_pairs)(method, *args, **fields)
