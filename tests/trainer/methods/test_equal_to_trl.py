"""Each method next to a plain TRL script on the same data: the same tokens, the same curve over 20 steps.

The script gives TRL texts and turns, and TRL tokenises them itself, so equal curves also prove ids and masks. The chat
template has no line break after the last end-of-turn token: TRL would train it, we never do.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.trainer
STEPS = 20
SEED = 42
TEMPLATE = (
    "{% for m in messages %}{% if not loop.first %}\n{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}"
)
PLACES = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Tokyo", "Paris", "Delhi", "Accra", "Seoul"]
THINGS = ["river", "tower", "bridge", "market", "harbour", "garden", "station", "museum"]
QUESTIONS = [(f"Where is the {t} of {p}?", f"The {t} of {p} is near the {THINGS[-i]}.", f"No {t} in {p}.")
             for p in PLACES for i, t in enumerate(THINGS)]  # fmt: skip


def turns(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


PAIRS = [
    {"prompt": turns("user", q), "chosen": turns("assistant", good), "rejected": turns("assistant", bad)}
    for q, good, bad in QUESTIONS
]
JUDGED = [
    {"prompt": turns("user", q), "completion": turns("assistant", good if i % 2 else bad), "label": bool(i % 2)}
    for i, (q, good, bad) in enumerate(QUESTIONS)
]
ANSWERED = [{"prompt": turns("user", q), "completion": turns("assistant", good)} for q, good, _ in QUESTIONS]
CHATS = [{"messages": [*row["prompt"], *row["completion"]]} for row in ANSWERED]
TEXTS = [{"text": " ".join(QUESTIONS[i])} for i in range(len(QUESTIONS))]
COMMON = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,  # 0.03 of 20 steps
    "optim": "adamw_torch",
    "seed": SEED,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
}


def sft(model: Any, tokenizer: Any, out: str, peft: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(out, **COMMON, max_length=None)
    return SFTTrainer(model, args, train_dataset=data(ANSWERED), processing_class=tokenizer, peft_config=peft)


def dapt(model: Any, tokenizer: Any, out: str, peft: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(out, **COMMON, max_length=64, packing=True)
    return SFTTrainer(model, args, train_dataset=data(TEXTS), processing_class=tokenizer, peft_config=peft)


def dpo(loss: str) -> Callable[..., Any]:
    def make(model: Any, tokenizer: Any, out: str, peft: Any) -> Any:
        from trl import DPOConfig, DPOTrainer

        args = DPOConfig(out, **COMMON, max_length=None, loss_type=[loss])
        return DPOTrainer(model, None, args, train_dataset=data(PAIRS), processing_class=tokenizer, peft_config=peft)

    return make


def kto(model: Any, tokenizer: Any, out: str, peft: Any) -> Any:
    from trl import KTOConfig, KTOTrainer

    args = KTOConfig(out, **COMMON, max_length=None, train_sampling_strategy="sequential")
    rows = random.Random(SEED).sample(JUDGED, len(JUDGED))  # in sequence, so mixed beforehand
    return KTOTrainer(model, None, args, train_dataset=data(rows), processing_class=tokenizer, peft_config=peft)


def orpo(model: Any, tokenizer: Any, out: str, peft: Any) -> Any:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    args = ORPOConfig(out, **COMMON, max_length=256)
    rows = data(PAIRS)
    return ORPOTrainer(model, args, train_dataset=rows, processing_class=tokenizer, peft_config=peft)


def reward(model: Any, tokenizer: Any, out: str, peft: Any) -> Any:
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl import RewardConfig, RewardTrainer

    set_seed(SEED)
    pad = tokenizer.pad_token_id
    model = AutoModelForSequenceClassification.from_pretrained(model.name_or_path, num_labels=1, pad_token_id=pad)
    args = RewardConfig(out, **COMMON, max_length=None)
    if peft:
        peft.task_type, peft.modules_to_save = "SEQ_CLS", ["score"]
    return RewardTrainer(model, args, train_dataset=data(PAIRS), processing_class=tokenizer, peft_config=peft)


def data(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows)


CASES: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]], Callable[..., Any]]] = {
    "SFT": ("SFT", {}, CHATS, sft),
    "DAPT": ("DAPT", {"training": {"maxLength": 64}}, TEXTS, dapt),
    "DPO": ("DPO", {}, PAIRS, dpo("sigmoid")),
    "IPO": ("DPO", {"dpo": {"loss": "IPO"}}, PAIRS, dpo("ipo")),
    "Hinge": ("DPO", {"dpo": {"loss": "Hinge"}}, PAIRS, dpo("hinge")),
    "KTO": ("KTO", {}, JUDGED, kto),
    "ORPO": ("ORPO", {}, PAIRS, orpo),
    "Reward": ("Reward", {}, PAIRS, reward),
}
SAME = {("IPO", "None"), ("Hinge", "None")}
"""They differ from DPO in one formula, which the adapter's case compares."""
SELDOM = {(case, "None") for case in ("DAPT", "KTO", "ORPO", "Reward")} | {("IPO", "LoRA"), ("Hinge", "LoRA")}
"""Full fine-tuning is compared in `make test` for SFT and DPO, each method with an adapter. The losses of IPO and Hinge
are those of TRL in tests/trainer/training/batches/test_deferred.py."""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("equal") / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.mark.parametrize(
    ("case", "adapter"),
    [
        pytest.param(case, adapter, marks=pytest.mark.long if (case, adapter) in SELDOM else ())
        for case in CASES
        for adapter in ("LoRA", "None")
        if (case, adapter) not in SAME
    ],
)
def test_the_curve_is_that_of_a_plain_script(
    runs: Any, make_plan: Any, model_folder: Path, tmp_path: Path, case: str, adapter: str
) -> None:
    method, fields, rows, make = CASES[case]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"maxSteps": STEPS, "learningRate": "1e-3", "seed": SEED, **fields.get("training", {})}
    source = {"name": "rows", "path": str(file), "digest": "sha256:" + "0" * 64}
    common = {"held_out": False, "modelPath": str(model_folder), "datasets": [source], "adapter": {"type": adapter}}
    plan = make_plan(method=method, **common, **{**fields, "training": training})
    runs.finish(plan)
    ours = [loss for _, loss, _ in runs.curve(plan, "adapter" if adapter == "LoRA" else "full")]
    theirs = plain(make, model_folder, tmp_path, adapter)
    assert len(ours) == STEPS
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)
    assert ours[-1] < ours[0]


def plain(make: Callable[..., Any], folder: Path, out: Path, adapter: str) -> list[float]:
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    trainer = make(model, tokenizer, str(out / "plain"), lora if adapter == "LoRA" else None)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
