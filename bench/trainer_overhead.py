"""Our run of a method against a plain script of TRL: same model, rows and settings, alternating in one run.

    make setup && .venv/bin/python bench/trainer_overhead.py [--methods SFT,DPO] [--pairs 5] [--steps 30]

Ratios are medians over the pairs. Tokens per second count from the end of the third step to the end of the last one;
both sides read the same rows, so their ratio is the inverse ratio of that time. Evaluation is off on both sides.
Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
WARM_UP = 3


@dataclass(frozen=True)
class Run:
    """One process: seconds to its first step; seconds, and CPU seconds, of the steps after the warm-up; MiB of the GPU
    at the peak, or of the process where there is none."""

    first_step: float
    steps: float
    cpu: float
    peak: float


MEDIUM = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "max_position_embeddings": 2048,
}
"""21 M parameters: big enough to be no toy step."""


def random_llama(folder: Path, sizes: Mapping[str, int], dtype: str = "float32") -> Path:
    """A random Llama with the tokenizer of the tiny test model.

    Args:
        sizes: of LlamaConfig; without vocab_size it is the tokenizer's.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from hone_dev.models import models

    models.tiny(folder)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        **{"vocab_size": len(tokenizer), **sizes},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Case:
    """What differs between methods: texts of a row with their words, more fields of rows, options of the plan."""

    texts: dict[str, int]
    more: Callable[[int], dict[str, Any]] = lambda _: {}
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


PAIR = Case({"prompt": 16, "chosen": 32, "rejected": 32})
REWARD = {"type": "Regex", "regex": {"pattern": "[aeiou]{2}", "match": "Search"}}
CASES = {
    "SFT": Case({"prompt": 16, "completion": 32}),
    "DAPT": Case({"text": 48}, training={"maxLength": 128}),
    "DPO": PAIR,
    "KTO": Case({"prompt": 16, "completion": 32}, lambda number: {"label": bool(number % 2)}),
    "ORPO": PAIR,
    "Reward": PAIR,
    "GRPO": Case({"prompt": 16}, options={"grpo": {"generations": 4, "maxCompletionLength": 32, "rewards": [REWARD]}}),
}


def write_rows(path: Path, count: int, case: Case) -> None:
    """Rows of equal length, so that their order does not change the padding."""
    choose = random.Random(0)
    words = [f"{a}{b}" for a in "bcdfgklm" for b in ("ab", "ek", "im", "os")]
    with path.open("w") as file:
        for number in range(count):
            texts = {name: " ".join(choose.choices(words, k=length)) for name, length in case.texts.items()}
            file.write(json.dumps({**texts, **case.more(number)}) + "\n")


def write_plan(folder: Path, model: Path, training: dict[str, object], method: str = "SFT", **options: object) -> Path:
    """A plan for folder/rows.jsonl that says nothing besides `training` and `options` where Hone has a default."""
    plan = {
        "kind": "Training",
        "method": method,
        **options,
        "run": "bench",
        "modelPath": str(model),
        "modelUri": "pvc://bench/model",
        "datasets": [{"name": "rows", "path": str(folder / "rows.jsonl"), "digest": "sha256:" + "0" * 64}],
        "training": training,
        "evaluation": {"samples": 0},
        "checkpoints": {"everySteps": 1_000_000},
        "output": {"modelName": "bench"},
        "workPath": str(folder / "work"),
        "outputPath": str(folder / "out"),
    }
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    return path


def measure(folder: Path, command: list[str], warm_up: int = WARM_UP, device: str = "") -> Run:
    """Run one side in a process of its own; the first `warm_up` steps do not count.

    Args:
        device: the CUDA device that it sees; none by default.

    Raises:
        RuntimeError: when it fails, with the end of its output.
    """
    for name in ("work", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)
    steps_file = folder / "steps"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": device}
    env["HONE_TERMINATION_LOG"] = str(folder / "termination")
    with (folder / "log").open("w+") as log:
        start = time.time()
        process = subprocess.Popen(
            [sys.executable, str(HERE / "step_times.py"), str(steps_file), *command], env=env, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{log.read()[-3000:]}")
    times = [tuple(map(float, line.split())) for line in steps_file.read_text().splitlines()]
    (wall, cpu, _), (last_wall, last_cpu, on_gpu) = times[warm_up - 1], times[-1]
    return Run(times[0][0] - start, last_wall - wall, last_cpu - cpu, on_gpu / 2**20 or usage.ru_maxrss / 1024)


def report(method: str, plain: list[Run], ours: list[Run]) -> bool:
    """Print medians of both and of the ratios of each pair; True when the bounds are held."""

    def median(runs: list[Run], name: str) -> float:
        return statistics.median(getattr(run, name) for run in runs)

    pairs = list(zip(plain, ours, strict=True))
    speed = statistics.median(p.steps / o.steps for p, o in pairs)
    memory = statistics.median(o.peak / p.peak for p, o in pairs)
    later = statistics.median(o.first_step - p.first_step for p, o in pairs)
    table = Table(method, "plain TRL", "Hone", "ratio or difference", "bound", "held")
    table.add_row(
        "steps after warm-up (tokens/s ratio)",
        f"{median(plain, 'steps'):.2f} s",
        f"{median(ours, 'steps'):.2f} s",
        f"{speed:.3f}",
        ">= 0.98",
        "yes" if speed >= 0.98 else "NO",
    )
    cpu = statistics.median(p.cpu / o.cpu for p, o in pairs)
    table.add_row(
        "CPU time of them (for a busy machine)",
        f"{median(plain, 'cpu'):.2f} s",
        f"{median(ours, 'cpu'):.2f} s",
        f"{cpu:.3f}",
    )
    table.add_row(
        "peak memory",
        f"{median(plain, 'peak'):.0f} MiB",
        f"{median(ours, 'peak'):.0f} MiB",
        f"{memory:.3f}",
        "<= 1.05",
        "yes" if memory <= 1.05 else "NO",
    )
    table.add_row(
        "first step reached",
        f"{median(plain, 'first_step'):.1f} s",
        f"{median(ours, 'first_step'):.1f} s",
        f"{later:+.1f} s",
        "<= +5 s",
        "yes" if later <= 5 else "NO",
    )
    Console(width=110).print(table)
    return speed >= 0.98 and memory <= 1.05 and later <= 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="SFT", help=f"with commas between them, of {', '.join(CASES)}")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side, alternating")
    parser.add_argument("--steps", type=int, default=30, help="optimiser steps of each run")
    parser.add_argument("--model", type=Path, help="folder of a model (default: a random Llama made for this)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = args.model or random_llama(folder / "model", MEDIUM)
        held = [report(method, *compare(folder, model, method, args)) for method in args.methods.split(",")]
    return 0 if all(held) else 1


def compare(folder: Path, model: Path, method: str, args: argparse.Namespace) -> tuple[list[Run], list[Run]]:
    """The runs of the plain script, and ours."""
    case = CASES[method]
    write_rows(folder / "rows.jsonl", 8 * args.steps, case)
    training = {"maxSteps": args.steps, "learningRate": "1e-4", "batchSize": 8, "microBatchSize": 4, "seed": 1}
    alike = {"precision": "Float32", **training, **case.training}
    plan = write_plan(folder, model, alike, method, **case.options)
    return alternate(plan, args.pairs, method)


def alternate(plan: Path, pairs: int, name: str, device: str = "") -> tuple[list[Run], list[Run]]:
    """The runs of the plain script, and ours, of one plan.

    Args:
        name: of the comparison, for people.
        device: see `measure`.
    """
    sides = {
        "plain": [str(HERE / "plain_trl.py"), str(plan)],
        "ours": ["-m", "hone_trainer", "run", str(plan)],
    }
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    for pair in range(pairs):
        # Who goes first alternates too, so that neither side always finds the warmer cache.
        for side in list(sides) if pair % 2 == 0 else reversed(list(sides)):
            runs[side].append(measure(plan.parent, sides[side], device=device))
            print(f"{name} pair {pair + 1}/{pairs} {side}: {runs[side][-1]}", file=sys.stderr)
    return runs["plain"], runs["ours"]


if __name__ == "__main__":
    sys.exit(main())
