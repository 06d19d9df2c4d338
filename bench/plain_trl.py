"""The reference of trainer_overhead.py: what one writes by hand with TRL and PEFT, with the same settings.

    .venv/bin/python bench/plain_trl.py PLAN

PLAN is a training plan of Hone, read for its method and settings alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

GPU = torch.cuda.is_available()
Plan = dict[str, Any]
Row = dict[str, Any]


def chat(row: Row) -> Row:
    """The row as turns, which TRL renders by the model's template."""
    roles = {"prompt": "user", **dict.fromkeys(("completion", "chosen", "rejected"), "assistant")}
    return {name: [{"role": role, "content": row[name]}] for name, role in roles.items() if name in row}


def settings(plan: Plan) -> dict[str, Any]:
    """Arguments that all of TRL's configurations share."""
    training = plan["training"]
    paged = {"optim": "paged_adamw_32bit"} if GPU and by_qlora(plan) else {}
    return {
        "output_dir": plan["outputPath"],
        "max_steps": training["maxSteps"],
        "per_device_train_batch_size": training["microBatchSize"],
        "gradient_accumulation_steps": training["batchSize"] // training["microBatchSize"],
        "learning_rate": float(training["learningRate"]),
        "warmup_steps": 0.03,
        "logging_steps": 1,
        "save_strategy": "no",
        "activation_checkpointing": training.get("gradientCheckpointing", False),
        "use_cpu": not GPU,
        "bf16": by_bfloat16(plan),
        "seed": training["seed"],
        "report_to": "none",
        **paged,
    }


def by_bfloat16(plan: Plan) -> bool:
    return bool(plan["training"]["precision"] == "BFloat16")


def by_qlora(plan: Plan) -> bool:
    return bool(plan.get("adapter", {}).get("type") == "QLoRA")


def language_model(plan: Plan) -> Any:
    options: dict[str, Any] = {"dtype": "bfloat16" if by_bfloat16(plan) else "float32"}
    if by_qlora(plan):
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=options["dtype"],
        )
    return AutoModelForCausalLM.from_pretrained(plan["modelPath"], **options)


def lora(task: str = "CAUSAL_LM") -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type=task)


def sft(plan: Plan, rows: Any, tokenizer: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(**settings(plan), max_length=1024)
    return SFTTrainer(language_model(plan), args, train_dataset=rows, processing_class=tokenizer, peft_config=lora())


def dapt(plan: Plan, rows: Any, tokenizer: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(**settings(plan), max_length=plan["training"]["maxLength"], packing=True)
    return SFTTrainer(language_model(plan), args, train_dataset=rows, processing_class=tokenizer, peft_config=lora())


def dpo(plan: Plan, rows: Any, tokenizer: Any) -> Any:
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(**settings(plan))
    return DPOTrainer(
        language_model(plan), None, args, train_dataset=rows, processing_class=tokenizer, peft_config=lora()
    )


def kto(plan: Plan, rows: Any, tokenizer: Any) -> Any:
    from trl import KTOConfig, KTOTrainer

    args = KTOConfig(**settings(plan))
    return KTOTrainer(
        language_model(plan), None, args, train_dataset=rows, processing_class=tokenizer, peft_config=lora()
    )


def orpo(plan: Plan, rows: Any, tokenizer: Any) -> Any:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    args = ORPOConfig(**settings(plan))
    return ORPOTrainer(language_model(plan), args, train_dataset=rows, processing_class=tokenizer, peft_config=lora())


def reward(plan: Plan, rows: Any, tokenizer: Any) -> Any:
    from trl import RewardConfig, RewardTrainer

    model = AutoModelForSequenceClassification.from_pretrained(
        plan["modelPath"], dtype="float32", num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    args = RewardConfig(**settings(plan))
    peft = lora("SEQ_CLS")
    peft.modules_to_save = ["score"]
    return RewardTrainer(model, args, train_dataset=rows, processing_class=tokenizer, peft_config=peft)


def grpo(plan: Plan, rows: Any, tokenizer: Any) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    options = plan["grpo"]

    def short(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(sum(ids) % 2) for ids in completion_ids]

    args = GRPOConfig(
        **settings(plan),
        num_generations=options["generations"],
        max_completion_length=options["maxCompletionLength"],
    )
    return GRPOTrainer(
        language_model(plan), short, args, train_dataset=rows, processing_class=tokenizer, peft_config=lora()
    )


METHODS: dict[str, Callable[[Plan, Any, Any], Any]] = {
    "SFT": sft,
    "DAPT": dapt,
    "DPO": dpo,
    "KTO": kto,
    "ORPO": orpo,
    "Reward": reward,
    "GRPO": grpo,
}


def main(plan_file: Path) -> None:
    plan = json.loads(plan_file.read_text())
    rows = load_dataset("json", data_files=plan["datasets"][0]["path"], split="train")
    tokenizer = AutoTokenizer.from_pretrained(plan["modelPath"])
    trainer = METHODS[plan["method"]](plan, rows.map(chat), tokenizer)
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
