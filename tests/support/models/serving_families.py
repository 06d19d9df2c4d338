"""A family from training to serving: Hone trains and exports, PEFT and vLLM's build for CPUs load what it left.

Both load it in a fresh process of vLLM's Python, which has other versions of torch and transformers than the trainer.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from support.models import families, tiny
from support.runs import split_files

from hone_dev.models import vllm

BASE = "tests/families"
"""Name of the base model, as a server serves it."""
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ATTENTION_OF = {
    "deepseek_v3": ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"],
    "phi3": ["qkv_proj", "o_proj"],
}
NEW = 8
"""Tokens after each prompt, as in `vllm_answers`."""
TOLERANCE = 1e-3
"""Largest difference of a log-probability in 32 bits."""
MOVED = 0.05
"""Least difference that training makes to some log-probability after a prompt, so that a lost adapter is noticed."""
WORKS = "works"
FLAGGED = "works with [two settings](#experts-in-vllm)"
Answers = dict[str, dict[str, Any]]
"""By name."""
PROGRAM = Path(__file__).with_name("vllm_answers.py")


@dataclass(frozen=True)
class Export:
    """What a run left: folders."""

    base: Path
    adapter: Path
    merged: Path


@dataclass(frozen=True)
class Seen:
    """What vLLM made of it, in the words of the page."""

    merged: str
    attention: str
    everything: str


def versions() -> str:
    """Of what trains and of what serves."""
    ours = [f"{name} {version(name)}" for name in ("transformers", "peft", "torch")]
    listed = subprocess.run([vllm.python(), PROGRAM, "versions"], check=True, capture_output=True, text=True)
    return f"{', '.join(ours)}; served by {listed.stdout.splitlines()[-1]}"


def look(names: Sequence[str], folder: Path) -> dict[str, Seen]:
    """Train, export, load and serve the models of these families.

    Args:
        folder: for all files of them.
    """
    tasks = [task(family, folder / family) for family in names]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return {family: judge(*pair) for family, *pair in zip(names, *answers(folder), strict=True)}


def judge(peft: Answers, served: Answers) -> Seen:
    """What vLLM's answers are, next to PEFT's."""
    for name in ("attention", "everything"):
        moved = max(map(_largest, peft["base"]["log_probs"][::NEW], peft[name]["log_probs"][::NEW]))
        assert moved > MOVED, f"training changed no log-probability by more than {moved:.2g}"
    merged = verdict(served["merged"], peft["everything"])
    alone = verdict(served["attention"], peft["attention"])
    whole = verdict(served["everything"], peft["everything"])
    if whole != WORKS and "flagged" in served and verdict(served["flagged"], peft["everything"]) == WORKS:
        whole = FLAGGED
    return Seen(merged, alone, whole)


def task(family: str, folder: Path) -> dict[str, Any]:
    """Train and export a family; what is to be answered."""
    folder.mkdir()
    attention = export(family, folder, "attention", ATTENTION_OF.get(family, ATTENTION))
    everything = export(family, folder, "everything", None)
    return {
        "name": BASE,
        "base": str(attention.base),
        "merged": str(everything.merged),
        "adapters": {"attention": str(attention.adapter), "everything": str(everything.adapter)},
        "mixture": family in families.MIXTURES,
        "prompts": [tiny.tokenizer()(question)["input_ids"] for question, _ in tiny.sentences()[:3]],
    }


def export(family: str, folder: Path, name: str, targets: list[str] | None) -> Export:
    """A run of Hone of a few steps, with an adapter and a merged model."""
    from hone_trainer.run import pipeline
    from hone_trainer.signals import Stop

    base = folder / "base"
    if not base.exists():
        families.build(family).save_pretrained(base)
        tiny.tokenizer().save_pretrained(base)
    pipeline.run_plan(_plan(base, folder / name, targets), Stop())
    out = folder / name / "out"
    return Export(base, out / "adapter", out / "merged")


def _plan(base: Path, folder: Path, targets: list[str] | None) -> Any:
    from hone_api.plan import TrainingPlan

    folder.mkdir()
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in tiny.sentences()]
    rows = [{"messages": messages} for messages in turns]
    body: dict[str, Any] = {
        "run": "family",
        "modelPath": str(base),
        "modelUri": f"hf://{BASE}@main",
        "modelCommit": "0123abcd",
        "datasets": [split_files.write(folder / "rows.jsonl", rows, "places", "train")],
        "evaluationDatasets": [],
        "adapter": {"type": "LoRA", "rank": 8, **({"targets": targets} if targets else {})},
        "training": {"maxSteps": 8, "batchSize": 8, "learningRate": "2e-2", "precision": "Float32"},
        "evaluation": {"everySteps": 8, "samples": 0},
        "checkpoints": {"everySteps": 8},
        "output": {"modelName": "family", "merge": True},
        "workPath": str(folder / "work"),
        "outputPath": str(folder / "out"),
    }
    return TrainingPlan.model_validate(body)


def answers(folder: Path) -> list[list[Answers]]:
    """Tokens and log-probabilities of each task by PEFT, and by vLLM, or why there are none."""
    env = {**os.environ, **vllm.EAGER, "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    env |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1"}
    written, log = [folder / f"{library}.jsonl" for library in ("peft", "vllm")], folder / "answers.log"
    with open(log, "wb") as file:
        argv = [vllm.python(), PROGRAM, folder / "tasks.json", *written]
        ended = subprocess.run(argv, env=env, stdout=file, stderr=subprocess.STDOUT)
    assert ended.returncode == 0, log.read_text(errors="replace")[-4000:]
    return [[json.loads(line) for line in each.read_text().splitlines()] for each in written]


def verdict(seen: dict[str, Any], expected: dict[str, Any]) -> str:
    """Whether vLLM answers as PEFT does, in the words of the page."""
    if refusal := seen.get("refused"):
        return f"refused: {refusal}"
    if seen["tokens"] != expected["tokens"]:
        return "goes on with other tokens"
    difference = max(
        abs(value - expected["log_probs"][place][int(token)])
        for place, likeliest in enumerate(seen["log_probs"])
        for token, value in likeliest.items()
    )
    return WORKS if difference < TOLERANCE else f"same tokens, a log-probability is off by {difference:.1g}"


def _largest(left: list[float], right: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(left, right, strict=True))
