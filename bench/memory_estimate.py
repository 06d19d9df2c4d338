"""The estimate of memory against real runs on a CPU, over a grid of small models: the error of each and the median.

    make setup && .venv/bin/python bench/memory_estimate.py [--only TEXT]

Each run is a process of its own, `python -m hone_trainer run`; its peak is what it reports itself (ru_maxrss), the
estimate is the one in the same outcome. Exit code 1 when the median error is over 10 %, or when an estimate is more
than 5 % below the peak: such a run would be said to fit, and be killed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from trainer_overhead import random_llama

MEDIAN, BELOW = 0.10, 0.05
STEPS = 3


@dataclass(frozen=True)
class Case:
    """A model and what is done to it. Lengths in tokens."""

    name: str
    hidden: int = 512
    layers: int = 8
    length: int = 256
    vocabulary: int = 512
    micro_batch: int = 4
    method: str = "SFT"
    adapter: dict[str, Any] = field(default_factory=lambda: {"type": "LoRA"})
    checkpointing: bool = False


CASES = (
    Case("lora"),
    Case("lora long", length=1024),
    Case("lora wide rank", hidden=768, adapter={"type": "LoRA", "rank": 64}),
    Case("lora checkpointing", length=1024, micro_batch=8, checkpointing=True),
    Case("lora vocabulary", vocabulary=49_152, length=512),
    Case("full", adapter={"type": "None"}),
    Case("full large", hidden=1024, adapter={"type": "None"}),
    Case("full long", length=1024, adapter={"type": "None"}),
    Case("full checkpointing", hidden=1024, length=1024, adapter={"type": "None"}, checkpointing=True),
    Case("qlora", hidden=1024, adapter={"type": "QLoRA"}),
    Case("dora", adapter={"type": "DoRA"}),
    Case("dora checkpointing", layers=10, length=900, adapter={"type": "DoRA"}, checkpointing=True),
    Case("dpo", method="DPO"),
    Case("kto", method="KTO", length=300),
    Case("orpo vocabulary", method="ORPO", layers=6, vocabulary=16_384, length=384),
    Case("logits", method="Distillation", vocabulary=16_384, length=512),
)


def model(folder: Path, case: Case) -> None:
    """A random Llama of these sizes with the tokenizer of the tiny test model."""
    sizes = {
        "vocab_size": case.vocabulary,
        "hidden_size": case.hidden,
        "intermediate_size": int(2.75 * case.hidden) // 64 * 64,
        "num_hidden_layers": case.layers,
        "num_attention_heads": case.hidden // 64,
        "num_key_value_heads": max(1, case.hidden // 128),
        "max_position_embeddings": 4096,
    }
    random_llama(folder, sizes)


def rows(file: Path, case: Case) -> None:
    """Rows of about `length` tokens: of this byte-level tokenizer, one of these characters is one token."""
    text = "#" * (case.length - 32)
    row: dict[str, Any] = {"prompt": "go", "completion": text}
    if case.method in ("DPO", "ORPO", "KTO"):
        row = {"prompt": "go", "chosen": text, "rejected": "?" * len(text)}
    file.write_text("".join(json.dumps(row) + "\n" for _ in range(STEPS * case.micro_batch)))


def measure(case: Case, folder: Path) -> tuple[int, int]:
    """Estimated and measured peak, bytes."""
    base = folder / "model"
    base.mkdir()
    model(base, case)
    rows(folder / "rows.jsonl", case)
    training = {
        "maxSteps": STEPS,
        "batchSize": case.micro_batch,
        "microBatchSize": case.micro_batch,
        "gradientCheckpointing": case.checkpointing,
    }
    plan = {
        "kind": "Training",
        "run": "estimate",
        "method": case.method,
        "modelPath": "model",
        "modelUri": "hf://bench/model",
        "datasets": [{"name": "rows", "path": "rows.jsonl", "digest": "sha256:" + "0" * 64}],
        "adapter": case.adapter,
        "training": training,
        "output": {"modelName": "estimate"},
        "workPath": "work",
        "outputPath": "out",
    }
    if case.method == "Distillation":  # a teacher of the student's own sizes
        plan["distillation"] = {"teacherModelVersion": "large-v1", "level": "Logits"}
        plan["models"] = {"large-v1": {"path": "model"}}
    (folder / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run(
        [sys.executable, "-m", "hone_trainer", "run", str(folder / "plan.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{case.name}: {done.stderr[-2000:]}")
    result = json.loads((folder / "work" / "outcome.json").read_text())["result"]
    return result["estimatedMemoryBytes"], result["peakMemoryBytes"]


def main() -> int:
    """Run the grid.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    table, errors = Table("case", "estimated MiB", "measured MiB", "error"), []
    for case in (c for c in CASES if options.only in c.name):
        with tempfile.TemporaryDirectory(prefix="hone-estimate-") as folder:
            estimated, measured = measure(case, Path(folder))
        errors.append(estimated / measured - 1)
        table.add_row(case.name, f"{estimated / 2**20:.0f}", f"{measured / 2**20:.0f}", f"{errors[-1]:+.1%}")
        print(f"{case.name}: {errors[-1]:+.1%}", file=sys.stderr, flush=True)
    console = Console()
    console.print(table)
    median = statistics.median(map(abs, errors))
    console.print(f"median error {median:.1%} (bound {MEDIAN:.0%}), lowest {min(errors):+.1%} (bound {-BELOW:+.0%})")
    return int(median > MEDIAN or min(errors) < -BELOW)


if __name__ == "__main__":
    sys.exit(main())
