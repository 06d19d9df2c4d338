"""The reference of trainer_defaults.py: SFTTrainer with its own defaults.

.venv/bin/python bench/plain_trl_defaults.py PLAN
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer


def main(plan_file: Path) -> None:
    plan = json.loads(plan_file.read_text())
    training = plan["training"]
    trainer = SFTTrainer(
        model=plan["modelPath"],
        train_dataset=load_dataset("json", data_files=plan["datasets"][0]["path"], split="train"),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(
            plan["outputPath"],
            num_train_epochs=float(training["epochs"]),
            per_device_train_batch_size=training["batchSize"],
            use_cpu=True,
            report_to="none",
        ),
    )
    trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
