"""The same run on one rank, on two ranks, on two nodes, and with each stage of ZeRO: do all have the same losses?

    make setup && .venv/bin/python bench/same_losses.py [--steps 50] [--adapters LoRA,None] [--only offload]

One model, one seed, float32, a batch of 8 rows in each step; the layouts only divide it. Printed is the largest
difference of a step's loss to that of one rank. On CPUs, with gloo; nodes are processes on loopback. Exit code 1 when
a difference exceeds 1e-3.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from trainer_overhead import CASES, random_llama, write_plan, write_rows

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
BOUND = 1e-3
LAYOUTS: dict[str, dict[str, Any]] = {
    "1 rank": {},
    "2 ranks": {"processesPerNode": 2},
    "2 nodes": {"nodes": 2, "masterAddress": "127.0.0.1"},
    **{f"2 ranks, ZeRO {s}": {"processesPerNode": 2, "deepspeed": {"zeroStage": s}} for s in (1, 2, 3)},
    **{
        f"2 ranks, ZeRO {s}, offload {what}": {
            "processesPerNode": 2,
            "deepspeed": {"zeroStage": s, "offload": what},
        }
        for s, what in ((2, "Optimizer"), (3, "Optimizer"), (3, "OptimizerAndParameters"))
    },
}


@dataclass(frozen=True)
class Curve:
    """What a layout trained."""

    losses: list[float]
    """Of each step."""
    seconds: float
    """From start to end of all its processes."""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(folder: Path, plan: Path, nodes: int, form: str) -> Curve:
    """Run a plan to its end, one process for each node.

    Raises:
        RuntimeError: a process failed; with the end of its output.
    """
    since, processes = time.monotonic(), []
    for node in range(nodes):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "JOB_COMPLETION_INDEX": str(node)}
        environment["HONE_TERMINATION_LOG"] = str(folder / f"termination-{node}")
        with (folder / f"log-{node}").open("w") as log:
            command = [sys.executable, "-m", "hone_trainer", "run", str(plan)]
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    codes = [process.wait() for process in processes]
    if any(codes):
        failed = next(node for node, code in enumerate(codes) if code)
        raise RuntimeError(
            f"node {failed} ended with {codes[failed]}:\n{(folder / f'log-{failed}').read_text()[-3000:]}"
        )
    lines = (folder / "out" / form / "metrics.jsonl").read_text().splitlines()
    losses = [point["loss"] for point in map(json.loads, lines) if "loss" in point]
    return Curve(losses, time.monotonic() - since)


def compare(root: Path, model: Path, adapter: str, steps: int, only: str) -> bool:
    """Print the layouts whose name contains `only` next to one rank; True when all differences are within the bound."""
    table = Table(f"adapter {adapter}", "steps", "first loss", "last loss", "largest difference", "held", "seconds")
    reference, held = None, True
    for name, layout in LAYOUTS.items():
        if reference and only not in name:
            continue
        folder = root / f"{adapter}-{name}".replace(" ", "-").replace(",", "")
        folder.mkdir()
        write_rows(folder / "rows.jsonl", 8 * steps, CASES["SFT"])
        training = {"maxSteps": steps, "learningRate": "1e-3", "batchSize": 8, "microBatchSize": 2, "seed": 1}
        options = {**layout, **({"masterPort": free_port()} if "nodes" in layout else {}), "adapter": {"type": adapter}}
        plan = write_plan(folder, model, {"precision": "Float32", **training}, **options)
        curve = run(folder, plan, layout.get("nodes", 1), "full" if adapter == "None" else "adapter")
        reference = reference or curve
        gaps = [abs(ours - theirs) for ours, theirs in zip(curve.losses, reference.losses, strict=True)]
        held &= max(gaps) <= BOUND and len(gaps) == steps
        first, last = f"{curve.losses[0]:.4f}", f"{curve.losses[-1]:.4f}"
        fits = "yes" if max(gaps) <= BOUND else "NO"
        table.add_row(name, str(len(gaps)), first, last, f"{max(gaps):.1e}", fits, f"{curve.seconds:.0f}")
    Console(width=120).print(table)
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50, help="optimiser steps of each run; default 50")
    parser.add_argument("--adapters", default="LoRA,None", help="with commas between them; default LoRA,None")
    parser.add_argument("--only", default="", help="layouts with this in their name, next to one rank, e.g. offload")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        model = random_llama(root / "model", SMALL)
        results = [compare(root, model, adapter, args.steps, args.only) for adapter in args.adapters.split(",")]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
