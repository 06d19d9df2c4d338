"""A small plan for every method, so that a test can be one over the list of methods.

`VARIANTS` is made from `METHODS`: a new method is in every such test at once, with rows for what its `INFO` encodes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.runs import split_files

from hone_api.methods import METHODS as INFOS
from hone_api.methods.info import Encodes, Method
from hone_trainer.methods import METHODS

VARIANTS = (*METHODS, "RLOO")
"""The methods, and those that are a value of another one's block."""
WORDS = ("river", "tower", "bridge", "market", "harbour", "garden", "station", "museum")
Fields = dict[str, Any]


def _question(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Where is the {WORDS[n % 8]} of {n}?"}]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _chat(n: int) -> Fields:
    return {"messages": [*_question(n), *_answer(f"It is near the {WORDS[n * 3 % 8]}.")]}


def _pair(n: int) -> Fields:
    return {"prompt": _question(n), "chosen": _answer(f"Near the {WORDS[n * 3 % 8]}."), "rejected": _answer("No idea.")}


def _prompt(n: int) -> Fields:
    return {"prompt": f"Where is the {WORDS[n % 8]} of {n}?", "answer": str(n)}


def _text(n: int) -> Fields:
    return {"text": f"The {WORDS[n % 8]} is near the {WORDS[n * 3 % 8]}."}


ROWS: dict[Encodes, Callable[[int], Fields]] = {
    "Conversations": _chat,
    "Documents": _text,
    "Pairs": _pair,
    "Judged": _pair,
    "Prompts": _prompt,
}
"""A row by what the method makes of it."""


def _grpo(**more: Any) -> Fields:
    rewards = [{"type": "Regex", "regex": {"pattern": "[aeiou].*[aeiou]", "match": "Search"}}]
    block = {"rewards": rewards, "generations": 4, "maxCompletionLength": 6, "constantSteps": 1000, **more}
    return {"method": "GRPO", "grpo": block}


def _fields(variant: str, folder: Path, model: Path) -> Fields:
    if variant == "PPO":
        judge = folder / "judge"
        if not judge.exists():
            _random_judge(judge, model)
        block = {"rewardModelVersion": "judge-v1", "maxCompletionLength": 6, "iterations": 2}
        return {"method": "PPO", "ppo": block, "models": {"judge-v1": {"path": str(judge)}}}
    if variant == "Distillation":
        block = {"teacherModelVersion": "large-v1", "level": "Logits"}
        return {"method": variant, "distillation": block, "models": {"large-v1": {"path": str(model)}}}
    if variant in ("GRPO", "RLOO"):
        return _grpo(advantage="LeaveOneOut") if variant == "RLOO" else _grpo()
    return {"method": variant}


def plan_of(make_plan: Any, variant: str, folder: Path, model: Path, name: str = "run", **fields: Any) -> Any:
    """A plan for a variant, of 32 rows unless `rows` is set, without a held-out split unless `held_out` is set.

    Args:
        folder: where its rows are written.
        fields: replace the plan's.
    """
    info = INFOS[Method("GRPO" if variant == "RLOO" else variant)]
    row, splits = ROWS[info.encodes], {**SPLITS, "train": range(fields.pop("rows", 32))}
    train, held_out = (_write(folder / f"{variant}-{split}.jsonl", map(row, splits[split])) for split in SPLITS)
    used = [held_out] if fields.pop("held_out", False) else []
    training = {"maxSteps": 4, "batchSize": 8, "microBatchSize": 4, **fields.pop("training", {})}
    return make_plan(
        name,
        training=training,
        **{**_fields(variant, folder, model), "datasets": [train], "evaluationDatasets": used, **fields},
    )


SPLITS = {"train": range(32), "validation": range(32, 40)}


def _write(file: Path, rows: Any) -> dict[str, str]:
    return split_files.write(file, rows, "places", file.stem.split("-")[1])


def _random_judge(folder: Path, model: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForSequenceClassification

    torch.manual_seed(5)
    config = AutoConfig.from_pretrained(model, num_labels=1)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
