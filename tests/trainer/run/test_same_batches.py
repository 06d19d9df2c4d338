"""What a run trains on, in which order, is the same as it always was: token ids, labels and masks of all batches.

`RECORDED` was made by the release that held all rows in lists (0.1.0). Only integers are compared, so that it is the
same on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.runs import method_plans

from hone_trainer.training.loop import Loop

pytestmark = pytest.mark.trainer
TURNS = [
    {"role": "user", "content": "Where is it?"},
    {"role": "assistant", "content": "Near the river."},
    {"role": "user", "content": "Which one?"},
    {"role": "assistant", "content": "The long one."},
]


def _turns(number: int) -> dict[str, Any]:
    """A conversation of two answers. In every third row, the first answer is not trained."""
    first = {**TURNS[1], **({"weight": 0} if number % 3 == 0 else {})}
    return {"messages": [TURNS[0], first, TURNS[2], {**TURNS[3], "content": f"The long one of {number}."}]}


def _pair_of_turns(number: int) -> dict[str, Any]:
    """Answers of several turns: what the user says between them does not count."""
    chosen = [*TURNS[1:3], {**TURNS[3], "content": f"The long one of {number}."}]
    return {"prompt": TURNS[:1], "chosen": chosen, "rejected": [{"role": "assistant", "content": "No idea."}]}


def _document(number: int) -> dict[str, Any]:
    return {"text": " ".join(f"The {method_plans.WORDS[(number * i) % 8]} of {i}." for i in range(1, 2 + number))}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{variant: (variant, {}) for variant in method_plans.VARIANTS},
    "SFT packed": ("SFT", {"training": {"packing": True, "maxLength": 64}}),
    "SFT truncated": ("SFT", {"rows": _turns, "training": {"maxLength": 40, "truncation": "Truncate"}}),
    "SFT of last answers": ("SFT", {"rows": _turns, "sft": {"trainOn": "LastAssistant"}}),
    "DAPT of long documents": ("DAPT", {"rows": _document, "training": {"maxLength": 48}}),
    "DAPT unpacked": ("DAPT", {"rows": _document, "training": {"maxLength": 48}, "dapt": {"pack": False}}),
    "DPO of turns, full": ("DPO", {"rows": _pair_of_turns, "adapter": {"type": "None"}}),
    "ORPO of turns": ("ORPO", {"rows": _pair_of_turns}),
    "KTO of turns, full": ("KTO", {"rows": _pair_of_turns, "adapter": {"type": "None"}}),
    "Reward of turns": ("Reward", {"rows": _pair_of_turns}),
    "SFT mixed": ("SFT", {"mixed": True}),
    "DPO mixed": ("DPO", {"mixed": True}),
    "GRPO mixed": ("GRPO", {"mixed": True}),
}
BY_TOKENS = {"SFT", "SFT of last answers", "SFT truncated", "DAPT unpacked", "SFT mixed"}
"""Whose rows are put together by tokens since then: the rows of a step are the same, in any order."""
RECORDED = {
    "SFT": "e675394ecc8622af",
    "DAPT": "d9ba8355ecf43bad",
    "DPO": "6ce7118b95897bb4",
    "KTO": "69f8add9bb406716",
    "ORPO": "3969ed2ef77a8450",
    "Reward": "cd26f47a614eefc5",
    "PPO": "3dcaf12b8f829462",
    "GRPO": "682906017dbbb659",
    "Distillation": "7b5632655642abdd",
    "RLOO": "682906017dbbb659",
    "SFT packed": "17f39d7a27a5f547",
    "SFT truncated": "0e7bc66ed3bf62e3",
    "SFT of last answers": "4d677521f59a3bfe",
    "DAPT of long documents": "74815e4916b0b09e",
    "DAPT unpacked": "96af1e03580670cc",
    "DPO of turns, full": "2a08eb8cf38737bc",
    "ORPO of turns": "23d15f9d2c6a9252",
    "KTO of turns, full": "04b11b200a909afd",
    "Reward of turns": "81c3959f1fe6c296",
    "SFT mixed": "c5922c24185b18dc",
    "DPO mixed": "63d1576a589abb30",
    "GRPO mixed": "305271db5b203e1d",
}


@pytest.mark.parametrize("name", CASES)
def test_the_batches_of_a_run_are_those_of_0_1_0(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path, name: str
) -> None:
    steps: dict[int, list[Any]] = defaultdict(list)
    step = Loop.training_step

    def noted(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        steps[self.state.global_step] += _rows(inputs) if name in BY_TOKENS else [_integers(inputs)]
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(Loop, "training_step", noted)
    variant, fields = CASES[name]
    runs.finish(_plan(make_plan, variant, tmp_path, tiny_model, **fields))
    found = hashlib.sha256()
    for batches in steps.values():
        for batch in sorted(batches) if name in BY_TOKENS else batches:
            found.update(json.dumps(batch).encode())
    assert found.hexdigest()[:16] == RECORDED[name]


def _plan(make_plan: Any, variant: str, folder: Path, model: Path, **fields: Any) -> Any:
    """Of 6 steps, which is more than an epoch, with held-out rows."""
    training = {"maxSteps": 6, "microBatchSize": 2, **fields.pop("training", {})}
    rows, mixed = fields.pop("rows", None), fields.pop("mixed", False)
    common = {"held_out": True, "evaluation": {"maxRows": 5, "samples": 1}, "training": training, **fields}
    plan = method_plans.plan_of(make_plan, variant, folder, model, **common)
    if rows is not None:
        for source in (*plan.datasets, *plan.evaluation_datasets):
            lines = [json.dumps(rows(number)) + "\n" for number in range(32)]
            Path(source.path).write_text("".join(lines))
            source.digest = f"sha256:{hashlib.sha256(Path(source.path).read_bytes()).hexdigest()}"
    if mixed:
        (train,), (held_out,) = plan.datasets, plan.evaluation_datasets
        plan.datasets = [train.model_copy(update={"share": "55%"}), held_out.model_copy(update={"share": "45%"})]
    return plan


def _rows(batch: Any) -> list[list[list[int]]]:
    """Ids and labels of each row of a batch without padding."""
    bounds = batch["cu_seq_lens_q"].tolist()
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    return [[ids[start:end], labels[start:end]] for start, end in pairwise(bounds)]


def _integers(value: Any) -> Any:
    """The integers of a batch: of tensors, lists, and objects that hold them."""
    import torch

    if isinstance(value, torch.Tensor):
        return None if value.is_floating_point() else [list(value.shape), value.int().flatten().tolist()]
    if isinstance(value, dict) or hasattr(value, "items"):
        return {name: _integers(inner) for name, inner in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_integers(inner) for inner in value]
    if hasattr(value, "prompts"):  # what PPO sampled; of answers only those of this machine are known
        return _integers(value.prompts)
    return value if isinstance(value, int | str) else None
