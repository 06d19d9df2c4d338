"""For how long does a checkpoint stop a run, with all weights of a model and with LoRA?

    make setup && .venv/bin/python bench/checkpoint_stall.py [--saves 3] [--adapters None,LoRA]

SmolLM2-135M is trained in float32 on a CPU, with a checkpoint after each step. Printed are the size of a checkpoint,
for how long it stopped the run (phase `saving`), and the share of a run's time that the checkpoints of `cadence: Auto`
take at one failure a day: if a checkpoint takes S and failures are M apart, the interval that costs the least is
sqrt(2 S M), so checkpoints take sqrt(S / 2 M) of the time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from trainer_overhead import CASES, write_plan, write_rows

from hone_dev.models import models

DAY = 86400


@dataclass(frozen=True)
class Stall:
    """What the checkpoints of a run cost."""

    size: float
    """Bytes of one."""
    saving: float
    """Seconds of one."""
    step: float
    """Seconds of an optimiser step."""


def measure(folder: Path, adapter: str, saves: int) -> Stall:
    """Train for so many steps, with a checkpoint after each.

    Raises:
        RuntimeError: the run failed; with the end of its output.
    """
    folder.mkdir()
    write_rows(folder / "rows.jsonl", 8 * saves, CASES["SFT"])
    training = {"precision": "Float32", "maxSteps": saves, "batchSize": 8, "microBatchSize": 4}
    file = write_plan(folder, models.smollm2(), training, adapter={"type": adapter})
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"checkpoints": {"everySteps": 1, "keep": max(2, saves)}})
    )
    message = folder / "termination"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HONE_TERMINATION_LOG": str(message),
    }
    command = [sys.executable, "-m", "hone_trainer", "run", str(file)]
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode:
        raise RuntimeError(f"the run ended with {ended.returncode}:\n{ended.stdout[-3000:]}")
    phases = json.loads(message.read_text())["phases"]
    checkpoints = [path for path in (folder / "work" / "checkpoints").iterdir() if path.is_dir()]
    size = sum(file.stat().st_size for path in checkpoints for file in path.rglob("*") if file.is_file())
    trained = phases.get("training", 0) / max(1, saves - 1)  # the first step is a phase of its own
    return Stall(size / len(checkpoints), phases["saving"] / len(checkpoints), trained)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--saves", type=int, default=3, help="steps of each run, with a checkpoint after each; default 3"
    )
    parser.add_argument("--adapters", default="None,LoRA", help="with commas between them; default None,LoRA")
    args = parser.parse_args()
    table = Table("adapter", "a checkpoint, MB", "stops the run, s", "a step, s", "of the time, at a failure a day")
    with tempfile.TemporaryDirectory() as temporary:
        for adapter in args.adapters.split(","):
            stall = measure(Path(temporary) / adapter, adapter, args.saves)
            share = math.sqrt(stall.saving / (2 * DAY))
            size, seconds, step = f"{stall.size / 1e6:,.0f}", f"{stall.saving:.2f}", f"{stall.step:.1f}"
            table.add_row(adapter, size, seconds, step, f"{share:.2%}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
