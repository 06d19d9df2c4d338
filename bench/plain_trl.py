"""The reference of trainer_overhead.py: what one writes by hand with TRL and PEFT, with the same settings.

    .venv/bin/python bench/plain_trl.py PLAN

PLAN is a training plan of Hone, read for its settings alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def chat(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"]}],
    }


def main(plan_file: Path) -> None:
    plan = json.loads(plan_file.read_text())
    training = plan["training"]
    rows = load_dataset("json", data_files=plan["datasets"][0]["path"], split="train").map(chat)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(plan["modelPath"], dtype="float32"),
        processing_class=AutoTokenizer.from_pretrained(plan["modelPath"]),
        train_dataset=rows,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(
            output_dir=plan["outputPath"],
            max_steps=training["maxSteps"],
            per_device_train_batch_size=training["microBatchSize"],
            gradient_accumulation_steps=training["batchSize"] // training["microBatchSize"],
            learning_rate=float(training["learningRate"]),
            warmup_steps=0.03,
            max_length=1024,
            logging_steps=1,
            save_strategy="no",
            activation_checkpointing=False,
            use_cpu=True,
            bf16=False,
            seed=training["seed"],
            report_to="none",
        ),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
