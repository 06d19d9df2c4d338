"""Start-up and memory of a rank, with few rows and with ten million: from process start to the end of the first step.

    make setup && .venv/bin/python bench/start.py [--cases SFT,packed,KTO] [--rows 10000000] [--billion] [--busy]
    .venv/bin/python bench/start.py --quick

Each run is `python -m hone_trainer run` of a tiny model on a CPU, whose rows were encoded before. The rows are those
that Hone's encoder makes of 20,000 generated lines; for more rows they are repeated, so the files have their real size.

Seconds are `loading` and `firstStep` of the run's outcome, CPU seconds are those of all its processes. Memory is read
at the end of the first step: the peak of the resident set of a rank, and with two ranks their proportional set (PSS),
in which a page that both map counts half. Memory that is not shared has no file behind it.

Exit code 1 when a bound is missed: 5 s (with --busy, for a machine that others use, of CPU) and 150 MiB a rank more for
the many rows than for a thousand; of the files that two ranks map, each has half in its PSS, except for 16 MiB of rows
that it alone reads; with --billion a run of 5 steps on a billion tokens of 4 bytes within 4 GiB, all processes,
mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FEW, LINES = 1000, 20_000
"""Rows of the run that the others are compared with; lines that are really encoded."""
SECONDS, MIB = 5.0, 150.0
"""Bounds: more for many rows than for few, a rank."""
ALONE_MIB = 16.0
"""Of the files that two ranks map, what only one of them has read at its first step."""
POD_MIB, TOKENS = 4096.0, 10**9
"""Bounds of --billion: memory of all processes, and the size of its data."""
WORDS = [f"{a}{b}" for a in "bcdfgklm" for b in ("ab", "ek", "im", "os")]


@dataclass(frozen=True)
class Case:
    """A method, and the texts of its rows with their number of words."""

    method: str = "SFT"
    texts: dict[str, int] = field(default_factory=lambda: {"prompt": 3, "completion": 3})
    more: Callable[[int], dict[str, Any]] = lambda _: {}
    training: dict[str, Any] = field(default_factory=dict)


CASES = {
    "SFT": Case(),
    "packed": Case(training={"packing": True, "maxLength": 256}),
    "DPO": Case("DPO", {"prompt": 3, "chosen": 3, "rejected": 3}),
    "KTO": Case("KTO", more=lambda number: {"label": bool(number % 2)}),
}


@dataclass
class Rank:
    """A process at the end of the first step, in MiB."""

    peak: float
    private: float
    rss: float
    pss: float
    rows: tuple[float, float]
    """Resident and proportional set of the files of encoded rows."""


@dataclass
class Start:
    """A run: seconds by the clock to the end of its first step and CPU seconds of all its processes, its ranks, and the
    most memory that all its processes had together."""

    clock: float
    cpu: float
    ranks: list[Rank]
    together: float


# -- the run ---------------------------------------------------------------------------------------------------------


def write_plan(folder: Path, model: Path, case: Case, ranks: int, steps: int) -> Path:
    """A plan for the rows of folder/rows.jsonl."""
    plan = {
        **{"kind": "Training", "method": case.method, "run": "bench"},
        **{"modelPath": str(model), "modelUri": "pvc://bench/model", "processesPerNode": ranks},
        "datasets": [{"name": "rows", "path": str(folder / "rows.jsonl"), "digest": "sha256:" + "0" * 64}],
        "training": {"maxSteps": steps, "batchSize": 8, "microBatchSize": 4, **case.training},
        "evaluation": {"samples": 0},
        "output": {"modelName": "bench"},
        "templateDate": "2026-01-01",  # else the run sets its own, and encodes again
        **{"workPath": str(folder / "work"), "outputPath": str(folder / "out")},
    }
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    return path


def write_rows(folder: Path, plan_file: Path, case: Case, rows: int, vocabulary: int | None = None) -> int:
    """Make folder/rows.jsonl, and put its encoded rows where the run of the plan looks for them.

    Args:
        vocabulary: that of the files; None: the model's.

    Returns:
        Bytes of the encoded rows.
    """
    from hone_api.plan_reading import parse_plan
    from hone_trainer.encoding import chunks, writing
    from hone_trainer.encoding.split_file import Policy
    from hone_trainer.methods import METHODS
    from hone_trainer.models import base_model
    from hone_trainer.run import encode

    choose = random.Random(0)
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(min(rows, LINES)):
            lengths = {name: choose.randint(1, 2 * words - 1) for name, words in case.texts.items()}
            texts = {name: " ".join(choose.choices(WORDS, k=length)) for name, length in lengths.items()}
            file.write(json.dumps({**texts, **case.more(number)}) + "\n")
    plan: Any = parse_plan(plan_file.read_bytes())
    base, (source,) = base_model.open_base(plan.model_path), plan.datasets
    encoder = METHODS[plan.method].encoder(plan, base)
    task = writing.Task(Path(source.path), encoder, Policy(None), vocabulary or base.vocabulary, "rows/train")
    parts = [writing.encode_chunk(task, chunk) for chunk in chunks.chunks(task.path)]
    target = encode.place(plan, source)
    writing.assemble(task, target, _repeated(parts, rows), lambda lines, tokens: None)
    return sum(file.stat().st_size for file in target.iterdir())


def _repeated(parts: list[Any], rows: int) -> Iterator[Any]:
    """The parts, again and again, until there are about so many rows."""
    times = max(1, round(rows / sum(part.counts.rows for part in parts)))
    return chain.from_iterable(repeat(parts, times))


def run(plan: Path) -> Start:
    """Train as the plan says.

    Raises:
        RuntimeError: the run fails.
    """
    for path in (plan.parent / "out", *(plan.parent / "work").iterdir()):
        if path.name != "encoded":
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    env["HONE_TERMINATION_LOG"] = str(plan.parent / "termination")
    command = [sys.executable, "-m", "hone_trainer", "run", str(plan)]
    with (plan.parent / "log").open("w+") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        at_first, together = _watch(process, plan.parent / "log")
        if process.returncode or at_first is None:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{log.read()[-3000:]}")
    if len(list(plan.parent.glob("work/encoded/*"))) != 1:
        raise RuntimeError("the run encoded its rows again")
    phases = json.loads((plan.parent / "work" / "outcome.json").read_text())["phases"]
    cpu, ranks = at_first
    return Start(phases["loading"] + phases["firstStep"], cpu, ranks, together)


def _watch(process: subprocess.Popen[bytes], log: Path) -> tuple[tuple[float, list[Rank]] | None, float]:
    """CPU seconds and ranks when the log says that the first step ended, and the most MiB of all processes."""
    at_first, together, length = None, 0.0, 0
    while process.poll() is None:
        time.sleep(0.02)
        family = _family(process.pid)
        if at_first is None and (text := log.read_text()) and len(text) != length:
            length = len(text)
            if re.search(r"Training [1-9]", text):  # lines are at least a second apart
                workers = family[1:] or family
                at_first = sum(map(_cpu, family)), [rank for pid in workers if (rank := _rank(pid))]
        together = max(together, sum(_status(pid).get("VmRSS", 0.0) for pid in family))
    return at_first, together


def _family(pid: int) -> list[int]:
    """A process and what it started, the oldest first."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def _cpu(pid: int) -> float:
    """Seconds of a process, and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int) -> dict[str, float]:
    """MiB by name."""
    return _sizes(Path(f"/proc/{pid}/status"))


def _sizes(path: Path) -> dict[str, float]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0].rstrip(":"): int(line[1]) / 1024 for line in lines if line[-1] == "kB"}


def _rank(pid: int) -> Rank | None:
    """None if the process has ended or is not a rank."""
    status, rollup = _status(pid), _sizes(Path(f"/proc/{pid}/smaps_rollup"))
    if not status or not rollup or status["VmRSS"] < 100:
        return None
    return Rank(status["VmHWM"], status["RssAnon"], rollup["Rss"], rollup["Pss"], _mapped(pid))


def _mapped(pid: int) -> tuple[float, float]:
    """Resident and proportional set of the files of encoded rows, in MiB."""
    rss = pss = 0.0
    is_rows = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = line.split(maxsplit=5)
        if not head[0].endswith(":"):
            is_rows = "/encoded/" in line
        elif is_rows and head[0] in ("Rss:", "Pss:"):
            rss += int(head[1]) / 1024 * (head[0] == "Rss:")
            pss += int(head[1]) / 1024 * (head[0] == "Pss:")
    return rss, pss


# -- what is compared ------------------------------------------------------------------------------------------------


def compare(name: str, folder: Path, model: Path, options: argparse.Namespace, table: Table) -> list[str]:
    """One rank with few rows and with many, then two ranks; gives the bounds that are missed."""
    case, starts = CASES[name], dict[int, Start]()
    for rows in (FEW, options.rows):
        place = folder / str(rows)
        place.mkdir(parents=True)
        plan = write_plan(place, model, case, ranks=1, steps=1)
        size = write_rows(place, plan, case, rows)
        starts[rows] = min((run(plan) for _ in range(options.repeats)), key=lambda start: start.cpu)
        _add(table, f"{name}, {rows:,} rows, {size / 1e6:,.0f} MB", starts[rows])
    two = run(write_plan(place, model, case, ranks=2, steps=1))
    _add(table, f"{name}, {options.rows:,} rows, two ranks", two)
    shutil.rmtree(folder)
    few, many = starts[FEW], starts[options.rows]
    seconds, cpu = many.clock - few.clock, many.cpu - few.cpu
    memory = many.ranks[0].peak - few.ranks[0].peak
    table.add_row(f"{name}: more for many", f"{seconds:+.1f}", f"{cpu:+.1f}", f"{memory:+.0f}", end_section=True)
    halves = all(rank.rows[1] <= 0.5 * rank.rows[0] + ALONE_MIB for rank in two.ranks)
    missed = {
        f"first step: {SECONDS:.0f} s": (cpu if options.busy else seconds) > SECONDS,
        f"memory: {MIB:.0f} MiB": memory > MIB,
        "shared pages": len(two.ranks) != 2 or not halves,
    }
    return [f"{name}, {what}" for what, is_missed in missed.items() if is_missed]


def billion(folder: Path, model: Path, table: Table) -> list[str]:
    """Five steps on a billion tokens."""
    case = Case(texts={"prompt": 50, "completion": 50})
    folder.mkdir()
    plan = write_plan(folder, model, case, ranks=1, steps=5)
    write_rows(folder, plan, case, FEW)
    rows = FEW * TOKENS // _tokens(folder)
    shutil.rmtree(folder / "work")
    size = write_rows(folder, plan, case, rows, vocabulary=2**17)
    start = run(plan)
    _add(table, f"{_tokens(folder) / 1e9:.2f} billion tokens, {rows:,} rows, {size / 1e9:.1f} GB, 5 steps", start)
    table.add_row("the same: all processes at the peak", "", "", f"{start.together:.0f}")
    shutil.rmtree(folder)
    return [] if start.together <= POD_MIB else [f"a billion tokens: {POD_MIB:.0f} MiB"]


def _tokens(folder: Path) -> int:
    (counts,) = folder.glob("work/encoded/*/counts.json")
    return int(json.loads(counts.read_text())["tokens"])


def _add(table: Table, name: str, start: Start) -> None:
    for number, rank in enumerate(start.ranks):
        first = (name, f"{start.clock:.1f}", f"{start.cpu:.1f}") if number == 0 else ("", "", "")
        numbers = (rank.peak, rank.private, rank.rss, rank.pss, *rank.rows)
        table.add_row(*first, *(f"{value:.0f}" for value in numbers))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Start-up and memory of a rank by the number of rows.")
    parser.add_argument("--cases", default="SFT,packed,KTO", help=f"with commas between them, of {', '.join(CASES)}")
    parser.add_argument("--rows", type=int, default=10_000_000, help="the many rows")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each kind; the one with the least CPU counts")
    parser.add_argument("--billion", action="store_true", help="also train on a billion tokens, a file of 4.6 GB")
    parser.add_argument("--busy", action="store_true", help="others use the machine: bound the CPU seconds")
    parser.add_argument("--quick", action="store_true", help="packed rows alone, a million of them, bound by CPU")
    options = parser.parse_args()
    if options.quick:
        options.cases, options.rows, options.busy = "packed", 10**6, True
    table = Table(title="to the end of the first step")
    for column in ("", "clock s", "CPU s", "peak MiB", "private", "RSS", "PSS", "rows RSS", "rows PSS"):
        table.add_column(column, justify="left" if not column else "right")
    missed = []
    with tempfile.TemporaryDirectory(prefix="bench-start-") as temporary:
        from hone_dev import models

        folder = Path(temporary)
        models.tiny(model := folder / "model")
        for name in filter(None, options.cases.split(",")):
            missed += compare(name, folder / name, model, options, table)
        if options.billion:
            missed += billion(folder / "billion", model, table)
    console = Console(width=140)
    console.print(table)
    for name in missed:
        console.print(f"[red]missed: {name}")
    console.print(f"bounds: {f'{len(missed)} missed' if missed else 'all held'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
