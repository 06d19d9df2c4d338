"""Training on a GPU as Hone does it by default: tokens per second, memory, and what share of it is of rows.

    make setup && .venv/bin/python bench/gpu_throughput.py G1 [--image DIGEST] [--write]

Each case is one call of less than ten minutes on one card:

G1  Llama-3.1-8B's sizes, LoRA r16, 32 rows of 4,096 tokens a step; NeMo Automodel publishes 12,473 tokens/s on an H100
G2  Qwen3-0.6B's sizes, all weights, rows of 8,192 tokens; prime-rl commits 26,005 tokens/s on an H100
G3  Qwen3-4B's sizes, LoRA r16, rows of 16,384 tokens, in 80 GB
G4  Llama-3.2-1B's sizes, LoRA r16, log-normal lengths around 300 tokens: by default against packed rows
G5  Llama-3.1-8B's sizes, QLoRA r16, against a plain script of TRL

Weights are random. --write keeps the result in bench/baselines; a later run on such a card that is more than 5 %
slower ends with exit code 1, and so does a missed bound. Without a GPU that has bfloat16 a case is skipped.
--smoke runs the same on a CPU with tiny models: its numbers mean nothing, and no bound is judged.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from trainer_overhead import HERE, Run, alternate, measure, write_plan

from hone_api.blocks.shape import ModelShape
from hone_api.estimate import gpus
from hone_api.estimate.cost import CPU_TFLOPS, model_flops
from hone_trainer.models import read_shape

BASELINES = HERE / "baselines"
WARM_UP, GATE = 3, 0.95
LONGEST = 4096
"""Tokens of the longest row of log-normal lengths."""
CPU = "one CPU core"
GPU_NAME = """
from torch import cuda
print(cuda.get_device_name() if cuda.is_available() and cuda.is_bf16_supported(including_emulation=False) else "")
"""
_LLAMA = {"num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 32_768}
_QWEN = {"num_key_value_heads": 8, "vocab_size": 151_936, "head_dim": 128, "max_position_embeddings": 32_768}
_8B = {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32, **_LLAMA}
_1B = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, **_LLAMA}
_06B = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, **_QWEN}
_4B = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, **_QWEN}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


@dataclass(frozen=True)
class Load:
    """What is trained.

    Args:
        model: model type and sizes of its config.
        lengths: tokens of each row of a step; sigma of log-normal ones if it is a fraction.
        against: what else runs: packed rows, or a plain script of TRL.
        least: of the speed of what it is compared with, or of `published`.
        published: tokens per second that somebody else states for an H100.
    """

    model: tuple[str, dict[str, Any]]
    adapter: str
    lengths: int | float
    rows: int
    steps: int
    training: dict[str, Any] = field(default_factory=dict)
    against: str = ""
    least: float = 0.0
    published: float = 0.0


_SAVES = {"gradientCheckpointing": True}
CASES = {
    "G1": Load(("llama", {**_8B, "tie_word_embeddings": False}), "LoRA", 4096, 32, 9, _SAVES, "", 0.85, 12_473),
    "G2": Load(("qwen3", {**_06B, "tie_word_embeddings": True}), "None", 8192, 16, 12, _SAVES, "", 0.85, 26_005),
    "G3": Load(("qwen3", {**_4B, "tie_word_embeddings": True}), "LoRA", 16_384, 4, 8, _SAVES),
    "G4": Load(("llama", {**_1B, "tie_word_embeddings": True}), "LoRA", 1.0, 64, 20, {}, "packed", 0.9),
    "G5": Load(("llama", {**_8B, "tie_word_embeddings": False}), "QLoRA", 1024, 8, 12, _SAVES, "TRL", 0.98),
}


def tiny(load: Load) -> Load:
    """The case for a CPU."""
    kind, sizes = load.model
    more = {"tie_word_embeddings": sizes["tie_word_embeddings"], "num_key_value_heads": 2}
    adapter = "LoRA" if load.adapter == "QLoRA" else load.adapter  # its kernels are for GPUs
    lengths = load.lengths if isinstance(load.lengths, float) else 64
    return replace(load, model=(kind, {**TINY, **more}), adapter=adapter, lengths=lengths, rows=8, steps=6)


def lengths_of(load: Load, longest: int = LONGEST) -> list[int]:
    """Tokens of each row of the run."""
    count = load.rows * load.steps
    if isinstance(load.lengths, int):
        return [load.lengths] * count
    draw = random.Random(1)
    return [min(longest, max(8, int(draw.lognormvariate(5.7, load.lengths)))) for _ in range(count)]


def random_model(folder: Path, load: Load, device: str) -> ModelShape:
    """A model with random weights in bfloat16, with the tokenizer of the tiny test model.

    A process of its own makes it, which gives the GPU's memory back: what is measured is all memory in use.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        apart.submit(_write_random_model, folder, load, device).result()
    shape = read_shape.shape(folder)
    assert shape is not None
    return shape


def _write_random_model(folder: Path, load: Load, device: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from hone_dev.models import models

    models.tiny(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind, sizes = load.model
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(kind, **{"vocab_size": len(tokenizer), **sizes}, **tokens)
    torch.manual_seed(0)
    with torch.device("cuda" if device else "cpu"):
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def gpu_name(device: str) -> str:
    """Of the CUDA device; empty where there is none, or none with bfloat16.

    A process of its own looks, since CUDA keeps some of the GPU's memory for each process that has used it.
    """
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": device}
    return subprocess.run(
        [sys.executable, "-c", GPU_NAME], env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def driver() -> str:
    """Version of NVIDIA's driver; empty where there is none."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return ""


def peak_tflops(name: str) -> float | None:
    """By the name that CUDA gives, e.g. 'NVIDIA A100-SXM4-80GB'; None where the peak is not known."""
    if name == CPU:
        return CPU_TFLOPS
    found = gpus.find(name.replace(" ", "-"))
    return found.tflops if found else None


@dataclass(frozen=True)
class Measured:
    """One side of a case: of the steps after the warm-up.

    Args:
        spread: of the seconds of steps, 90th percentile less 10th, divided by the median.
        useful: share of the computed tokens that are of rows; None for a side that does not say it.
        estimated: bytes by Hone's estimate; 0 for a side that has none.
    """

    tokens_per_second: float
    spread: float
    peak_bytes: int
    estimated: int = 0
    useful: float | None = None
    attention: str = ""


def times(folder: Path) -> list[float]:
    """Seconds at which the steps of the last run ended."""
    return [float(line.split()[0]) for line in (folder / "steps").read_text().splitlines()]


def spread(ends: list[float]) -> float:
    """See `Measured`."""
    seconds = sorted(b - a for a, b in pairwise(ends[WARM_UP - 1 :]))
    tenth = len(seconds) // 10
    return (seconds[-1 - tenth] - seconds[tenth]) / statistics.median(seconds)


def of_hone(folder: Path, run: Run) -> Measured:
    """The run of Hone that ended last in `folder`."""
    result = json.loads((folder / "termination").read_text())["result"]
    (curve,) = (folder / "out").glob("*/metrics.jsonl")
    points = [json.loads(line) for line in curve.read_text().splitlines()]
    tokens = {point["step"]: point["num_tokens"] for point in points if "num_tokens" in point}
    useful = [point["useful_tokens"] for point in points if "useful_tokens" in point]
    return Measured(
        (tokens[max(tokens)] - tokens[WARM_UP]) / run.steps,
        spread(times(folder)),
        int(run.peak * 2**20),
        result["estimatedMemoryBytes"],
        useful[-1] if useful else None,
        str(result["resolved"].get("attention", "")),
    )


def run_case(folder: Path, load: Load, device: str) -> dict[str, Measured]:
    """Hone as it is by default, and what it is compared with."""
    lengths = lengths_of(load, 512 if not device else LONGEST)
    # One character is one token of this tokenizer; the end-of-turn token comes on top.
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": "#" * (n - 1)}) + "\n" for n in lengths))
    training = {
        "maxSteps": load.steps,
        "learningRate": "1e-4",
        "batchSize": load.rows,
        "seed": 1,
        "precision": "BFloat16" if device else "Float32",
        **load.training,
    }
    model, adapter = folder / "model", {"type": load.adapter}
    if load.against == "TRL":
        plan = write_plan(folder, model, {**training, "microBatchSize": load.rows}, adapter=adapter)
        (theirs,), (ours,) = alternate(plan, 1, load.adapter, device)
        tokens = sum(lengths[: load.rows * (load.steps - WARM_UP)])
        other = Measured(tokens / theirs.steps, 0.0, int(theirs.peak * 2**20))
        return {"TRL": other, "Hone": of_hone(folder, ours)}
    result = {}
    if load.against == "packed":
        most, of_step = max(lengths), sum(lengths) / load.steps
        packed = {**training, "packing": True, "maxLength": most, "batchSize": max(1, round(of_step / most))}
        result["packed"] = of_hone(folder, hone(folder, packed, adapter, device))
    result["Hone"] = of_hone(folder, hone(folder, training, adapter, device))
    return result


def hone(folder: Path, training: dict[str, Any], adapter: dict[str, str], device: str) -> Run:
    """A run of Hone."""
    plan = write_plan(folder, folder / "model", training, adapter=adapter)
    return measure(folder, ["-m", "hone_trainer", "run", str(plan)], WARM_UP, device)


def missed(load: Load, sides: dict[str, Measured], baseline: dict[str, Any] | None) -> list[str]:
    """Bounds that a case on a GPU does not hold, in words."""
    ours = sides["Hone"]
    other = sides.get(load.against)
    compared = other.tokens_per_second if other else load.published
    found = []
    if compared and ours.tokens_per_second < load.least * compared:
        found.append(f"{ours.tokens_per_second / compared:.0%} of {compared:,.0f} tokens/s, at least {load.least:.0%}")
    before = baseline["tokens_per_second"] if baseline else 0.0
    if ours.tokens_per_second < GATE * before:
        found.append(f"more than {1 - GATE:.0%} slower than the baseline's {before:,.0f} tokens/s")
    if not 0.95 <= ours.estimated / ours.peak_bytes <= 1.10:
        found.append(f"the estimate is {ours.estimated / ours.peak_bytes:.2f} of the peak, 0.95 to 1.10")
    return found


def baseline_file(case: str, card: str) -> Path:
    """Where the result of a case on such a card is kept."""
    return BASELINES / f"{case}-{card.replace(' ', '-')}.json"


def record(
    case: str, load: Load, sides: dict[str, Measured], shape: ModelShape, card: str, image: str
) -> dict[str, Any]:
    """What is kept of a case."""
    import torch

    ours, mean = sides["Hone"], statistics.mean(lengths_of(load))
    tflops = ours.tokens_per_second * model_flops(shape, mean, frozen=load.adapter != "None") / 1e12
    peak = peak_tflops(card)
    return {
        "case": case,
        "card": card,
        "driver": driver(),
        "image": image,
        "torch": str(torch.__version__),
        **asdict(ours),
        "tflops": tflops,
        "mfu": tflops / peak if peak else None,
        "others": {name: asdict(side) for name, side in sides.items() if name != "Hone"},
    }


def show(title: str, sides: dict[str, Measured]) -> None:
    """Print the sides of a case."""
    table = Table("", *sides, title=title, title_justify="left")
    columns = sides.values()
    table.add_row("tokens/s", *(f"{side.tokens_per_second:,.0f}" for side in columns))
    table.add_row("spread of steps", *(f"{side.spread:.1%}" for side in columns))
    table.add_row("of rows", *("" if side.useful is None else f"{side.useful:.1%}" for side in columns))
    table.add_row("peak memory, GiB", *(f"{side.peak_bytes / 2**30:.2f}" for side in columns))
    table.add_row("estimated, GiB", *(f"{side.estimated / 2**30:.2f}" for side in columns))
    table.add_row("attention", *(side.attention for side in columns))
    Console(width=110).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--image", default="", help="digest of the image that it runs in, for the record")
    parser.add_argument("--write", action="store_true", help="keep the result as the baseline of this card")
    parser.add_argument("--smoke", action="store_true", help="tiny models on the CPU, to see that all of it runs")
    args = parser.parse_args()
    device = "" if args.smoke else os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    card = CPU if args.smoke else gpu_name(device)
    if not card:
        print("skipped: there is no GPU that computes in bfloat16")
        return 0
    wrong = []
    for case in args.cases:
        load = tiny(CASES[case]) if args.smoke else CASES[case]
        with tempfile.TemporaryDirectory() as temporary:
            shape = random_model(Path(temporary) / "model", load, device)
            sides = run_case(Path(temporary), load, device)
        result = record(case, load, sides, shape, card, args.image)
        show(f"{case}: {load.adapter}, {shape.parameters:,} weights, on {card}", sides)
        print(json.dumps(result))
        file = baseline_file(case, card)
        baseline = json.loads(file.read_text()) if file.is_file() else None
        if not args.smoke:
            wrong += [f"{case}: {words}" for words in missed(load, sides, baseline)]
        if args.write and not args.smoke:
            BASELINES.mkdir(exist_ok=True)
            file.write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
