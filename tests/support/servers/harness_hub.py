"""Data sets in the layout of those that lm-eval's tasks read, and the command that stages tasks."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from hone_api.contract.report import TasksResult
from hone_api.contract.termination import TerminationMessage, parse_outcome

TOKEN = "hf_canaryCanaryCanary42"
WORDS = ["river", "tower", "bridge", "market", "harbour", "garden", "Rome", "Oslo", "Lima", "Cairo", "Quito", "Tokyo"]
CARD = """\
---
license: cc-by-4.0
configs:
{configs}
---
# Made for tests
"""


def card(**files: dict[str, str]) -> str:
    """A card as the hub's data sets have it: configuration -> split -> glob."""
    lines = []
    for config, splits in files.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {glob}" for split, glob in splits.items()]
    return CARD.format(configs="\n".join(lines))


def sentence(draw: random.Random, length: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(length))


def choices(seed: int, rows: int) -> list[dict[str, Any]]:
    """In the layout of allenai/ai2_arc."""
    draw = random.Random(seed)
    return [
        {
            "id": f"{seed}-{n}",
            "question": f"Where is the {sentence(draw, 4)}?",
            "choices": {"text": [sentence(draw, 1 + n % 4) for _ in range(4)], "label": ["A", "B", "C", "D"]},
            "answerKey": draw.choice("ABCD"),
        }
        for n in range(rows)
    ]


def sums(seed: int, rows: int) -> list[dict[str, Any]]:
    """In the layout of openai/gsm8k; half of the answers are 4."""
    draw = random.Random(seed)
    return [
        {"question": f"How many {sentence(draw, 2)}?", "answer": f"Count them.\n#### {4 if n % 2 else 7}"}
        for n in range(rows)
    ]


def pages(seed: int, rows: int) -> list[dict[str, Any]]:
    """In the layout of EleutherAI/wikitext_document_level."""
    draw = random.Random(seed)
    return [{"page": f" = {sentence(draw, 1)} = \n\n {sentence(draw, 5 + n)} . \n"} for n in range(rows)]


def hard(seed: int, rows: int) -> list[dict[str, Any]]:
    """In the layout of Idavidrein/gpqa, whose task shuffles the choices."""
    draw = random.Random(seed)
    names = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
    return [
        {"Question": sentence(draw, 6), **{name: f"{sentence(draw, 2)} {i}" for i, name in enumerate(names)}}
        for _ in range(rows)
    ]


ARC = {
    (config, split): choices(number, 12)
    for number, (config, split) in enumerate(
        (c, s) for c in ("ARC-Challenge", "ARC-Easy") for s in ("train", "validation", "test")
    )
}
SPLITS = ("train", "validation", "test")
GSM = {split: sums(number, 10) for number, split in enumerate(("train", "test"))}


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


MANY = """\
import os, sys
from hone_trainer.__main__ import main
for name in sys.argv[1:]:
    os.environ["HONE_TERMINATION_LOG"] = f"{name}.log"
    main(["tasks", f"{name}.json"])
"""
"""Commands one after the other in one process: lm-eval's index is read once."""


class Stage:
    """Runs `python -m hone_trainer tasks` in a folder."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.endpoint, self.store, self.output = folder, endpoint, folder / "store", ""

    def __call__(self, *tasks: str, **fields: Any) -> TerminationMessage:
        self._write("plan", list(tasks), **fields)
        self._run("-m", "hone_trainer", "tasks", "plan.json")
        return self._outcome("plan")

    def many(self, plans: dict[str, dict[str, Any]]) -> dict[str, TerminationMessage]:
        """The outcome of each plan, by name."""
        for name, fields in plans.items():
            self._write(name, **fields)
        self._run("-c", MANY, *plans)
        return {name: self._outcome(name) for name in plans}

    def _write(self, name: str, tasks: list[str], secret: dict[str, str] | None = None, **fields: Any) -> None:
        limits = fields.pop("limits", {})
        plan = {"kind": "Tasks", "harness": {"tasks": tasks, **fields}, "store": "store", "limits": limits}
        if secret is not None:
            plan["secretPath"] = f"secret-{name}"
            (self.folder / f"secret-{name}").mkdir(exist_ok=True)
            for key, value in secret.items():
                (self.folder / f"secret-{name}" / key).write_text(value)
        (self.folder / f"{name}.json").write_text(json.dumps(plan))

    def _run(self, *arguments: str) -> None:
        home = {"HOME": str(self.folder), "HF_HOME": str(self.folder / "hf"), "HF_HUB_OFFLINE": "1"}
        log = {"HF_ENDPOINT": self.endpoint, "HONE_TERMINATION_LOG": "plan.log"}
        environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | home | log
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        self.output = done.stdout + done.stderr

    def _outcome(self, name: str) -> TerminationMessage:
        outcome = parse_outcome((self.folder / f"{name}.log").read_text())
        assert outcome is not None, self.output
        return outcome

    def staged(self, *tasks: str, **fields: Any) -> TasksResult:
        outcome = self(*tasks, **fields)
        assert isinstance(outcome.result, TasksResult), f"{outcome}\n{self.output}"
        return outcome.result

    def inputs(self, result: TasksResult) -> dict[str, Any]:
        """As `harnessTasks` of a training plan."""
        told = result.to_json()
        return {
            "path": str(self.store / result.path),
            **{name: told[name] for name in ("digest", "version", "dataSets")},
        }


TASKS = ("arc_easy", "gsm8k", "wikitext")
FURTHER = ("ai2_arc", "gpqa_main_zeroshot")
"""A group, and a task whose data set is gated and whose choices are shuffled."""
