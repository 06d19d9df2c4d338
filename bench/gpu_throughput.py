"""Our SFT on a GPU against a plain script of TRL: a model of 1B from random weights, bfloat16, by LoRA and by QLoRA.

    make setup && .venv/bin/python bench/gpu_throughput.py [--adapters LoRA,QLoRA] [--pairs 3] [--steps 30]

All rows have the same length, so both sides train the same tokens a step and nothing is padded. Ratios are medians
over the pairs, from the end of the third step to the end of the last one. Memory is all that is in use on the GPU,
where nothing else may run; what Hone reports is what torch has reserved, without the CUDA context. Skipped, with exit
code 0, where no GPU has bfloat16. Exit code 1 when a bound is missed. --smoke runs the same on a CPU with a tiny model:
its numbers mean nothing, and no bound is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from trainer_overhead import WARM_UP, Run, alternate, random_llama, write_plan

from hone_api.blocks.shape import ModelShape
from hone_api.estimate import gpus
from hone_api.estimate.cost import CPU_TFLOPS
from hone_api.estimate.memory import gib
from hone_trainer.models import read_shape

SLOWEST, MOST_MEMORY, LOWEST_ESTIMATE = 0.98, 1.05, 0.95
CPU = "one CPU core"
Comparison = tuple[list[Run], list[Run], dict[str, Any]]
"""The runs of the plain script, ours, and the result that the last of ours reports."""
GPU_NAME = """
from torch import cuda
print(cuda.get_device_name() if cuda.is_available() and cuda.is_bf16_supported(including_emulation=False) else "")
"""


@dataclass(frozen=True)
class Load:
    """What is trained: sizes of LlamaConfig, tokens of a row, rows of a step."""

    model: dict[str, int]
    length: int
    batch: int


ONE_B = Load(
    {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096,
    },
    length=1024,
    batch=8,
)
"""The sizes of Llama-3.2-1B."""
TINY = Load(
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}, length=64, batch=4
)


@dataclass(frozen=True)
class Work:
    """What a run computes, and the peak of what computes it."""

    tokens: int
    """Of the steps after the warm-up."""
    flops: float
    """A token."""
    tflops: float | None
    """Peak of dense bfloat16 products; None where it is not known."""

    def speed(self, run: Run) -> float:
        """Tokens a second."""
        return self.tokens / run.steps

    def reached(self, run: Run) -> float:
        """TFLOP/s of the model's own operations."""
        return self.speed(run) * self.flops / 1e12


def flops_per_token(shape: ModelShape, length: int) -> float:
    """Operations of training an adapter on one token, as model FLOPs utilisation counts them.

    PaLM (arXiv 2204.02311, appendix B): 6 for each of N weights, and 12 L H Q T for attention, as if no token were
    masked; what checkpointing computes again does not count. Of the 6, 2 are for the gradients of the weights, and a
    frozen base has none: 4 N. The adapter's own products, about 1 % of it, are left out.

    Args:
        length: tokens of a row.
    """
    return 4 * shape.parameters + 12 * shape.layers * shape.query * length


def gpu_name(device: str) -> str:
    """Of the CUDA device; empty where there is none, or none with bfloat16.

    A process of its own looks, since CUDA keeps some of the GPU's memory for each process that has used it.
    """
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": device}
    return subprocess.run(
        [sys.executable, "-c", GPU_NAME], env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def peak_tflops(name: str) -> float | None:
    """By the name that CUDA gives, e.g. 'NVIDIA A100-SXM4-80GB'; None where the peak is not known."""
    if name == CPU:
        return CPU_TFLOPS
    found = gpus.find(name.replace(" ", "-"))
    return found.tflops if found else None


def compare(folder: Path, adapter: str, load: Load, args: argparse.Namespace, device: str) -> Comparison:
    """Both sides, alternating, in `folder`, which holds the model."""
    # One character is one token of this tokenizer; the end-of-turn token comes on top.
    row = json.dumps({"text": "#" * (load.length - 1)}) + "\n"
    (folder / "rows.jsonl").write_text(row * load.batch * args.steps)
    training = {
        "maxSteps": args.steps,
        "learningRate": "1e-4",
        "batchSize": load.batch,
        "microBatchSize": load.batch,
        "gradientCheckpointing": args.checkpointing,
        "seed": 1,
        "precision": "BFloat16" if device else "Float32",
    }
    plan = write_plan(folder, folder / "model", training, adapter={"type": adapter})
    plain, ours = alternate(plan, args.pairs, adapter, device)
    return plain, ours, json.loads((folder / "termination").read_text())["result"]


def report(title: str, work: Work, found: Comparison) -> bool:
    """Print medians of both sides and of the ratios of each pair; True when the bounds are held."""
    *sides, result = found
    pairs = list(zip(*sides, strict=True))
    estimated, worst = result["estimatedMemoryBytes"], max(ours.peak for _, ours in pairs) * 2**20
    speed = statistics.median(plain.steps / ours.steps for plain, ours in pairs)
    memory = statistics.median(ours.peak / plain.peak for plain, ours in pairs)
    estimate = estimated / worst
    held = speed >= SLOWEST, memory <= MOST_MEMORY, estimate >= LOWEST_ESTIMATE
    words = ["yes" if one else "NO" for one in held]

    def both(value: Callable[[Run], float], show: Callable[[float], str]) -> list[str]:
        return [show(statistics.median(map(value, runs))) for runs in sides]

    table = Table("", "plain TRL", "Hone", "ratio", "bound", "held", title=title, title_justify="left")
    table.add_row("tokens/s", *both(work.speed, "{:,.0f}".format), f"{speed:.3f}", f">= {SLOWEST}", words[0])
    table.add_row("model TFLOP/s", *both(work.reached, "{:.3g}".format))
    if peak := work.tflops:
        table.add_row(f"  of {peak:g} (MFU)", *both(lambda run: work.reached(run) / peak, "{:.1%}".format))
    in_use = both(lambda run: run.peak * 2**20, gib)
    table.add_row("peak memory", *in_use, f"{memory:.3f}", f"<= {MOST_MEMORY}", words[1])
    table.add_row("  as Hone reports it", "", gib(result["peakMemoryBytes"]))
    table.add_row("  as estimated before", "", gib(estimated), f"{estimate:.3f}", f">= {LOWEST_ESTIMATE}", words[2])
    Console(width=110).print(table)
    return all(held)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", default="LoRA,QLoRA", help="with commas between them")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side, alternating")
    parser.add_argument("--steps", type=int, default=30, help="optimiser steps of each run")
    parser.add_argument("--checkpointing", action="store_true", help="with gradient checkpointing, on both sides")
    parser.add_argument("--smoke", action="store_true", help="a tiny model on the CPU, to see that all of it runs")
    args = parser.parse_args()
    device = "" if args.smoke else os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    name = CPU if args.smoke else gpu_name(device)
    if not name:
        print("skipped: there is no GPU that computes in bfloat16")
        return 0
    load = TINY if args.smoke else ONE_B
    held = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shape = read_shape.shape(random_llama(folder / "model", load.model, "bfloat16"))
        assert shape is not None
        tokens = (args.steps - WARM_UP) * load.batch * load.length
        work = Work(tokens, flops_per_token(shape, load.length), peak_tflops(name))
        for adapter in args.adapters.split(","):
            found = compare(folder, adapter, load, args, device)
            title = f"{adapter}, {shape.parameters:,} weights, {found[2]['resolved']['precision']}, on {name}"
            held.append(report(title, work, found))
    return 0 if all(held) or args.smoke else 1


if __name__ == "__main__":
    sys.exit(main())
