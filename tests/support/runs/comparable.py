"""Plans and runs of methods that are not compared by tokens: pairs, judged answers, rewards of greedy answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.runs import judging, split_files
from support.runs.sampled_sums import FULL, sums, sums_plans

METHODS = ("DPO", "ORPO", "KTO", "Reward", "GRPO", "PPO")
AGAINST = {"evaluation": {"against": "models://tiny@champion"}, "comparedWith": "tiny-v1"}
PLACES = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Tokyo", "Paris", "Delhi", "Accra", "Seoul", "Hanoi", "Bern"]


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
        "datasets": [split_files.write(folder / "train.jsonl", rows[:24], "polite")],
        "evaluationDatasets": [split_files.write(folder / "validation.jsonl", rows[24:], "polite")],
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
        train, held = (split_files.write(folder / f"{split}.jsonl", rows, "polite") for split, rows in splits.items())
        judge = folder / "judge"
        if not judge.exists():
            judging.reward_model(model, judge)
        ppo = {"rewardModelVersion": "judge-v1", "maxCompletionLength": 8, "iterations": 1}
        models = {"judge-v1": {"path": str(judge)}}
        rows = {"datasets": [train], "evaluationDatasets": [held]}
        return make_plan(name, method="PPO", ppo=ppo, models=models, training=training, **rows, **fields)

    return lambda method, *args, **fields: (of_sums if method in ("GRPO", "PPO") else of_pairs)(method, *args, **fields)


@dataclass(frozen=True)
class Pair:
    """A finished run, and another one that was compared with it; tests only read them."""

    plan_of: Callable[..., Any]
    """Makes further plans with the same rows."""
    champion: Any
    """Plan of the first, which also left a merged model if it trained an adapter."""
    old: Any
    """Its result."""
    challenger: Any
    new: Any


def pair(make_plan: Any, folder: Path, model: Path, method: str) -> Pair:
    """Runs of a method, in the folder."""
    from hone_trainer.run import pipeline
    from hone_trainer.signals import Stop

    plan_of = plans(make_plan, folder, model)
    merged = {} if method == "GRPO" else {"output": {"modelName": "tiny", "merge": True}}
    champion = plan_of(method, "champion", **merged)
    old = pipeline.run_plan(champion, Stop())
    challenger = plan_of(method, "challenger", training={"maxSteps": 8}, **in_use(champion, old))
    return Pair(plan_of, champion, old, challenger, pipeline.run_plan(challenger, Stop()))


def in_use(plan: Any, result: Any) -> dict[str, Any]:
    """What a plan says of a finished run to compare with: an adapter on its base, or a whole model."""
    if plan.adapter.type == "None":
        return {**AGAINST, "comparedModel": {"path": str(Path(plan.output_path) / "full")}}
    adapter = {"path": str(Path(plan.output_path) / "adapter"), "digest": result.artifacts[0].digest}
    return {**AGAINST, "comparedModel": {"path": plan.model_path, "adapter": adapter}}
