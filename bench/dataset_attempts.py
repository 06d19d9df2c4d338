"""A large Dataset in as little memory as a pod has, and what a killed attempt at it leaves for the next one.

    sudo .venv/bin/python bench/dataset_attempts.py --rows 10000000 --memory 2048 --folder /var/tmp [--near] [--kill]

So many short rows are materialized by `python -m hone_trainer materialize` with duplicates removed: once undisturbed,
then in several attempts; each except the last gets SIGKILL at one of the moments. A tenth of the rows repeats another
one, a hundredth is one with another word, and a thousandth is broken. With --memory, all its processes are in a
control group with this limit, in which pages of files count as in a pod, and which the process sees as a pod does:
over it the kernel kills. Printed are, for each attempt, what earlier ones had kept, the CPU time of all its processes,
how much less that is than undisturbed, and the peak memory of the largest process and of the group.

Exit code 1 when rows are neither written nor counted with a reason, the last attempt leaves other bytes than the
undisturbed one (rows, report.json, removed and rejected rows: every file of the manifest), a worker outlives its
killed parent, or something is kept after the last row. Ten million rows take 5 GB of disk, with --near 8 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy
from dataset_steps import COLUMNS, QUIET
from memory_group import Group, limited

POLL_SECONDS = 0.1
WORKERS_END_SECONDS = 30
"""How long processes may live on without their parent."""
MOMENTS = ("reading", "checking", "judging", "writing")
REPEATED, ALIKE, BROKEN = 10, 100, 1000
"""One row in so many is another one again, one with another word, or no JSON."""
BATCH = 50_000
CONTAINER = 'mount --bind "$1" "$2"; shift 2; exec "$@"'
"""A command as in a container: what it finds as the root of all control groups is its own group."""


@dataclass(frozen=True)
class Kept:
    """Sizes in bytes of what an attempt has written so far."""

    parts: int = 0
    checked: int = 0
    rows: int = 0
    """Of the file of the split, which is written last."""
    has_begun: bool = False
    """Whether it has read the first rows, and begins with the others."""
    judges: bool = False
    """Whether all rows are checked, and it begins with what needs all of them."""

    def largest(self, other: Kept) -> Kept:
        """The larger one of each number."""
        return Kept(*map(max, self._numbers, other._numbers))

    @property
    def _numbers(self) -> tuple[int, int, int, bool, bool]:
        return self.parts, self.checked, self.rows, self.has_begun, self.judges


IS_MOMENT: dict[str, Callable[[Kept, Kept], bool]] = {
    "reading": lambda now, _: now.has_begun,
    "checking": lambda now, whole: now.parts >= whole.parts / 3,
    "judging": lambda now, _: now.judges,
    "writing": lambda now, whole: now.rows >= whole.rows / 2,
}
"""By what an attempt has written, and what the undisturbed one had: whether to kill it now."""


def _is_reached(moment: str, whole: Kept, now: Kept) -> bool:
    return IS_MOMENT[moment](now, whole)


@dataclass(frozen=True)
class Attempt:
    """One that came to its end, killed or not."""

    code: int
    seconds: float
    cpu: float
    peak_mib: float
    kept: Kept
    """The largest sizes that were seen."""
    outlived: int
    """Processes that lived on without their parent."""
    group_mib: float = 0
    """The most that all processes had together, where they have a limit."""


class Place:
    """A store with what a Dataset keeps between attempts."""

    def __init__(self, folder: Path, rows: Path, settings: Settings) -> None:
        self._folder, self._memory = folder, settings.memory
        self._kept, self._store, self._plan = folder / "kept", folder / "store", folder / "plan.json"
        self._kept.mkdir(parents=True)
        plan = {
            "kind": "Materialize",
            "name": "bench",
            "store": str(self._store),
            "source": {"uri": f"pvc://bench/{rows.name}"},
            "sourcePath": str(rows),
            "columns": COLUMNS,
            "splits": {"validation": "1%"},
            "curation": {"deduplicate": "Near" if settings.near else "Exact"},
            "downloadsPath": str(self._kept),
        }
        self._plan.write_text(json.dumps(plan))

    def attempt(self, is_moment: Callable[[Kept], bool] = lambda _: False) -> Attempt:
        """Materialize, or begin to and kill the process once `is_moment`."""
        with limited(self._memory) if self._memory else nullcontext() as group:
            return self._attempt(is_moment, group)

    def _attempt(self, is_moment: Callable[[Kept], bool], group: Group | None) -> Attempt:
        command = [sys.executable, "-m", "hone_trainer", "materialize", str(self._plan)]
        if group:
            there = [str(group.folder), str(group.root)]
            command = ["unshare", "--mount", "--cgroup", "sh", "-ec", CONTAINER, "sh", *there, *command]
        started, largest = time.monotonic(), Kept()
        with open(self._folder / "log", "ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **QUIET},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=group.join if group else None,
            )
            cpu = 0.0
            while True:
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                if ended:
                    break
                now = self.written()
                largest = largest.largest(now)
                if is_moment(now):
                    cpu = cpu or _cpu(process.pid)
                    process.send_signal(signal.SIGKILL)
                time.sleep(POLL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
        return Attempt(
            process.returncode,
            time.monotonic() - started,
            cpu or usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss / 1024,
            largest,
            _outlived(process.pid),
            group.peak if group else 0,
        )

    def written(self) -> Kept:
        """What there is now."""
        parts = _sizes(self._kept.glob("checked/*.parquet"))
        return Kept(
            parts=len(parts),
            checked=sum(parts),
            rows=sum(_sizes(self._store.glob("datasets/.work-*/content/train.jsonl"))),
            has_begun=(self._kept / "checked").is_dir(),
            judges=any(self._store.glob("datasets/.work-*/relation")),
        )

    def sweep(self) -> None:
        """Remove what a killed attempt had written of the rows."""
        for work in self._store.glob("datasets/.work-*"):
            shutil.rmtree(work)

    def result(self) -> dict[str, Any]:
        """The digest, and the manifest of the files next to it; the rows themselves are hashed in it."""
        (folder,) = (self._store / "datasets").iterdir()
        return {"digest": folder.name, **json.loads((folder / "manifest.json").read_text())}

    def counts(self) -> dict[str, int]:
        """Rows of the report, by what became of them."""
        (report,) = self._store.glob("datasets/*/report.json")
        result = json.loads(report.read_text())["result"]
        steps = {step["step"]: step["removed"] for step in result["curation"]}
        return {**{one["name"]: one["rows"] for one in result["splits"]}, **steps, "rejected": result["rejected"]}

    def lines(self) -> int:
        """Of all files of rows: what was written."""
        (folder,) = (self._store / "datasets").iterdir()
        return sum(_lines(path) for path in folder.glob("*.jsonl"))

    def log(self) -> str:
        """The end of what attempts said."""
        return (self._folder / "log").read_text()[-1000:]

    def is_tidy(self) -> bool:
        """Whether nothing is kept any more."""
        return not any(self._kept.iterdir())


def _sizes(paths: Iterator[Path]) -> list[int]:
    sizes = []
    for path in paths:
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


def _cpu(session: int) -> float:
    """CPU seconds of the processes of the session that live."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12]) if int(fields[3]) == session else 0
    return total / os.sysconf("SC_CLK_TCK")


def _outlived(session: int) -> int:
    """Processes of the session that are there although its first one is not, after some time to notice it."""
    deadline = time.monotonic() + WORKERS_END_SECONDS
    while (alive := sum(1 for stat in Path("/proc").glob("[0-9]*/stat") if _session_of(stat) == session)) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    return alive


def _session_of(stat: Path) -> int | None:
    with suppress(OSError):
        state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        return None if state == "Z" else int(session)
    return None


@dataclass(frozen=True)
class Settings:
    """What the Dataset is asked for, and in how much memory."""

    near: bool
    memory: int
    """MiB; 0: no limit."""


def compare(rows: Path, count: int, work: Path, moments: list[str], settings: Settings) -> list[str]:
    """Prints a line for each attempt; gives what is wrong."""
    print(f"{'':12} {'kept: parts':>12} {'MB':>6} {'clock s':>8} {'CPU s':>7}", end=" ")
    print(f"{'less':>6} {'peak MiB':>9} {'group MiB':>9}", flush=True)
    alone = Place(work / "alone", rows, settings)
    whole = alone.attempt()
    _print("undisturbed", Kept(), whole, whole)
    if whole.code:
        return [f"undisturbed: ended with {whole.code}: {alone.log()}"]
    expected, counts = alone.result(), alone.counts()
    print(f"{expected['digest']}: {counts}; the most that was kept: {whole.kept}", flush=True)
    wrong = [] if sum(counts.values()) == alone.lines() == count else [f"{count:,} rows came, {alone.lines():,} left"]
    shutil.rmtree(work / "alone")
    if not moments:
        return wrong
    place = Place(work / "killed", rows, settings)
    for moment in moments:
        before = place.written()
        attempt = place.attempt(partial(_is_reached, moment, whole.kept))
        place.sweep()
        _print(moment, before, attempt, whole)
        wrong += [f"{moment}: ended with {attempt.code}"] if attempt.code != -signal.SIGKILL else []
        wrong += [f"{moment}: {attempt.outlived} processes outlived the killed one"] if attempt.outlived else []
    before = place.written()
    last = place.attempt()
    _print("the last one", before, last, whole)
    if last.code:
        return [*wrong, f"the last one: ended with {last.code}: {place.log()}"]
    wrong += [] if place.result() == expected else ["the last attempt left other files"]
    return wrong + ([] if place.is_tidy() else ["something is kept after the last row"])


def _print(name: str, kept: Kept, attempt: Attempt, whole: Attempt) -> None:
    print(f"{name:12} {kept.parts:12,} {kept.checked / 1e6:6,.0f}", end=" ")
    print(f"{attempt.seconds:8,.1f} {attempt.cpu:7,.1f} {1 - attempt.cpu / whole.cpu:6.0%}", end=" ")
    print(f"{attempt.peak_mib:9,.0f} {attempt.group_mib:9,.0f}", flush=True)


def _lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(partial(file.read, 2**20), b""))


def write_short(path: Path, rows: int) -> None:
    """Makes the file."""
    random = numpy.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ne", "tu") for b in _PARTS for c in _PARTS]
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, rows, BATCH):
            made = list[str]()
            for n, some in enumerate(random.integers(0, len(words), (min(BATCH, rows - start), 18)).tolist()):
                said = [words[at] for at in some]
                line = f'{{"question": "{" ".join(said[:7])}?", "answer": "{" ".join(said[7:])} {start + n}."}}\n'
                if n and n % BROKEN == 0:
                    line = line[:-9] + "\n"
                elif n % ALIKE == 5:
                    line = made[-1].replace('."}', f' {said[0]}."}}')
                elif n % REPEATED == 3:
                    line = made[-2]
                made.append(line)
            file.write("".join(made))


_PARTS = [f"{a}{b}" for a in "bdfgklmnprstvz" for b in ("a", "en", "i", "or", "u")]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="A large Dataset in little memory, and what killed attempts leave.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="from 64 MiB of rows on, parts outlast an attempt")
    parser.add_argument("--memory", type=int, default=0, metavar="MIB", help="of all processes together")
    parser.add_argument("--near", action="store_true", help="remove near duplicates as well")
    parser.add_argument("--folder", type=Path, help="for the rows and what is made of them; default: temporary")
    parser.add_argument("--kill", nargs="*", choices=MOMENTS, help="default: never; without a moment: at each")
    options = parser.parse_args()
    moments = list(MOMENTS) if options.kill == [] else options.kill or []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-dataset-") as folder:
        rows = Path(folder) / "rows.jsonl"
        write_short(rows, options.rows)
        print(f"{rows.stat().st_size / 1e6:,.0f} MB, {options.rows:,} rows", flush=True)
        settings = Settings(options.near, options.memory)
        wrong = compare(rows, options.rows, Path(folder), moments, settings)
    print("".join(f"MISSED: {bound}\n" for bound in wrong) or "all bounds are held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
