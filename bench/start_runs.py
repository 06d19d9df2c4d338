"""Runs of a tiny model on a CPU whose rows were encoded before, for `start.py` and `start_billion.py`.

The rows are those that Hone's encoder makes of 20,000 generated lines; for more rows they are repeated, so the files
have their real size. Memory is read at the end of the first step: the peak of the resident set of a rank, and with two
ranks their proportional set (PSS), in which a page that both map counts half.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from rich.table import Table

LINES = 20_000
"""Lines that are really encoded."""
WORDS = [f"{a}{b}" for a in "bcdfgklm" for b in ("ab", "ek", "im", "os")]
INTERRUPTED = 75
"""Exit code of a run that was told to stop, and saved."""
Prepare = Callable[[], None]
"""Called in the process of a run before it begins."""


@dataclass(frozen=True)
class Case:
    """A method, and the texts of its rows with their number of words."""

    method: str = "SFT"
    texts: dict[str, int] = field(default_factory=lambda: {"prompt": 3, "completion": 3})
    more: Callable[[int], dict[str, Any]] = lambda _: {}
    training: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    resumes: bool = False
    """Whether the run that is measured goes on from the checkpoint of another one."""


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
        **case.plan,
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
    from hone_api.contract.plan_reading import parse_plan
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
    writing.assemble(task, target, _repeated(parts, rows))
    return sum(file.stat().st_size for file in target.iterdir())


def _repeated(parts: list[Any], rows: int) -> Iterator[Any]:
    """The parts, again and again, until there are about so many rows."""
    times = max(1, round(rows / sum(part.counts.rows for part in parts)))
    return chain.from_iterable(repeat(parts, times))


def run(plan: Path, *, resumes: bool = False, prepare: Prepare | None = None) -> Start:
    """Train as the plan says.

    Args:
        resumes: after an attempt that is asked to stop at its first step.

    Raises:
        RuntimeError: the run fails.
    """
    for path in (plan.parent / "out", *(plan.parent / "work").iterdir()):
        if path.name != "encoded":
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if resumes:
        _attempt(plan, prepare, stops=True)
    cpu, ranks, together = _attempt(plan, prepare)
    if len(list(plan.parent.glob("work/encoded/*"))) != 1:
        raise RuntimeError("the run encoded its rows again")
    phases = json.loads((plan.parent / "work" / "outcome.json").read_text())["phases"]
    return Start(phases["loading"] + phases["firstStep"], cpu, ranks, together)


def _attempt(plan: Path, prepare: Prepare | None, stops: bool = False) -> tuple[float, list[Rank], float]:
    """CPU seconds and ranks when the first step ended, and the most MiB of all processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    env["HONE_TERMINATION_LOG"] = str(plan.parent / "termination")
    command = [sys.executable, "-m", "hone_trainer", "run", str(plan)]
    with (plan.parent / "log").open("w+") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, preexec_fn=prepare)
        at_first, together = _watch(process, plan.parent / "log", stops)
        if process.returncode != (INTERRUPTED if stops else 0) or at_first is None:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{log.read()[-3000:]}")
    return *at_first, together


def _watch(process: subprocess.Popen[bytes], log: Path, stops: bool) -> tuple[tuple[float, list[Rank]] | None, float]:
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
                if stops:
                    process.send_signal(signal.SIGTERM)
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


def tokens(folder: Path) -> int:
    """Of the encoded rows."""
    (counts,) = folder.glob("work/encoded/*/counts.json")
    return int(json.loads(counts.read_text())["tokens"])


def new_table() -> Table:
    """A table for `add_row`."""
    table = Table(title="to the end of the first step")
    for column in ("", "clock s", "CPU s", "peak MiB", "private", "RSS", "PSS", "rows RSS", "rows PSS"):
        table.add_column(column, justify="left" if not column else "right")
    return table


def add_row(table: Table, name: str, start: Start) -> None:
    """A row for each rank of a run."""
    for number, rank in enumerate(start.ranks):
        first = (name, f"{start.clock:.1f}", f"{start.cpu:.1f}") if number == 0 else ("", "", "")
        numbers = (rank.peak, rank.private, rank.rss, rank.pss, *rank.rows)
        table.add_row(*first, *(f"{value:.0f}" for value in numbers))
