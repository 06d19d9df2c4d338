"""What a killed attempt at a Dataset of 1 GiB and more leaves for the next one, and whether the rows are the same.

    .venv/bin/python bench/dataset_attempts.py --folder /var/tmp [--megabytes 1100] [--kill checking writing]

A file of made rows is materialized with near duplicates removed by `python -m hone_trainer materialize`: once
undisturbed, then in several attempts; each except the last gets SIGKILL at one of the moments. Printed are, for
each attempt, what earlier ones had kept, the CPU time of all its processes, how much less that is than undisturbed, and
the peak memory of the largest process; of a killed attempt what it took until then.

Exit code 1 when the last attempt leaves other bytes than the undisturbed one (rows, report.json, removed and rejected
rows: every file of the manifest), a worker outlives its killed parent, something is kept after the last row, or a
process takes more than 1.5 GiB. 1,100 MB take 6 GB of disk.

With --ignored BYTES, each row has another column of so many bytes, which spec.ignoreColumns leaves out: most of the
file is then read and not trained on, and attempts take less time. What the killed attempt had written of the rows is
removed before the next one, as a sweep of the store does.
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
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dataset_steps import BUDGET_MIB, COLUMNS, QUIET, write_rows

POLL_SECONDS = 0.1
WORKERS_END_SECONDS = 30
"""How long processes may live on without their parent."""
IGNORED = "page"
MOMENTS = ("reading", "checking", "writing")


@dataclass(frozen=True)
class Kept:
    """Sizes in bytes of what an attempt has written so far."""

    parts: int = 0
    checked: int = 0
    rows: int = 0
    """Of the file of the split, which is written last."""
    has_begun: bool = False
    """Whether it has read the file once, and begins with the rows."""

    def largest(self, other: Kept) -> Kept:
        """The larger one of each number."""
        return Kept(*map(max, self._numbers, other._numbers))

    @property
    def _numbers(self) -> tuple[int, int, int, bool]:
        return self.parts, self.checked, self.rows, self.has_begun


IS_MOMENT: dict[str, Callable[[Kept, Kept], bool]] = {
    "reading": lambda now, _: now.has_begun,
    "checking": lambda now, whole: now.parts >= whole.parts / 3,
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


class Place:
    """A store with what a Dataset keeps between attempts."""

    def __init__(self, folder: Path, rows: Path) -> None:
        self._folder = folder
        self._kept, self._store, self._plan = folder / "kept", folder / "store", folder / "plan.json"
        self._kept.mkdir(parents=True)
        plan = {
            "kind": "Materialize",
            "name": "bench",
            "store": str(self._store),
            "source": {"uri": f"pvc://bench/{rows.name}"},
            "sourcePath": str(rows),
            "columns": COLUMNS,
            "ignoreColumns": [IGNORED],
            "splits": {"validation": "0%"},
            "curation": {"deduplicate": "Near"},
            "downloadsPath": str(self._kept),
        }
        self._plan.write_text(json.dumps(plan))

    def attempt(self, is_moment: Callable[[Kept], bool] = lambda _: False) -> Attempt:
        """Materialize, or begin to and kill the process once `is_moment`."""
        command = [sys.executable, "-m", "hone_trainer", "materialize", str(self._plan)]
        started, largest = time.monotonic(), Kept()
        with open(self._folder / "log", "ab") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **QUIET}, stdout=log, stderr=log, start_new_session=True
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
        )

    def written(self) -> Kept:
        """What there is now."""
        parts = _sizes(self._kept.glob("checked/*.parquet"))
        return Kept(
            parts=len(parts),
            checked=sum(parts),
            rows=sum(_sizes(self._store.glob("datasets/.work-*/content/train.jsonl"))),
            has_begun=(self._kept / "checked").is_dir(),
        )

    def sweep(self) -> None:
        """Remove what a killed attempt had written of the rows."""
        for work in self._store.glob("datasets/.work-*"):
            shutil.rmtree(work)

    def result(self) -> dict[str, Any]:
        """The digest, and the manifest of the files next to it; the rows themselves are hashed in it."""
        (folder,) = (self._store / "datasets").iterdir()
        return {"digest": folder.name, **json.loads((folder / "manifest.json").read_text())}

    def counts(self) -> str:
        """Rows of the report."""
        (report,) = self._store.glob("datasets/*/report.json")
        splits = json.loads(report.read_text())["result"]["splits"]
        return ", ".join(f"{split['name']} {split['rows']:,}" for split in splits)

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


def compare(rows: Path, work: Path, moments: list[str]) -> list[str]:
    """Prints a line for each attempt; gives what is wrong."""
    print(f"{'':12} {'kept: parts':>12} {'MB':>6} {'clock s':>8} {'CPU s':>7}", end=" ")
    print(f"{'less':>6} {'peak MiB':>9}", flush=True)
    alone = Place(work / "alone", rows)
    whole = alone.attempt()
    _print("undisturbed", Kept(), whole, whole)
    if wrong := _wrong("undisturbed", whole):
        return wrong
    expected = alone.result()
    print(f"{expected['digest']}: {alone.counts()}; the most that was kept: {whole.kept}", flush=True)
    shutil.rmtree(work / "alone")
    place = Place(work / "killed", rows)
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
    wrong += _wrong("the last one", last)
    if not last.code:
        wrong += [] if place.result() == expected else ["the last attempt left other files"]
        wrong += [] if place.is_tidy() else ["something is kept after the last row"]
    return wrong


def _wrong(name: str, attempt: Attempt) -> list[str]:
    wrong = [f"{name}: ended with {attempt.code}"] if attempt.code else []
    return wrong + ([f"{name}: {attempt.peak_mib:,.0f} MiB"] if attempt.peak_mib > BUDGET_MIB else [])


def _print(name: str, kept: Kept, attempt: Attempt, whole: Attempt) -> None:
    print(f"{name:12} {kept.parts:12,} {kept.checked / 1e6:6,.0f}", end=" ")
    print(f"{attempt.seconds:8,.1f} {attempt.cpu:7,.1f} {1 - attempt.cpu / whole.cpu:6.0%}", end=" ")
    print(f"{attempt.peak_mib:9,.0f}", flush=True)


def write_wide(path: Path, megabytes: int, ignored: int) -> int:
    """Makes the file, with a column of so many bytes that is ignored in each row; gives its rows."""
    narrow = path.with_name("narrow.jsonl")
    count = write_rows(narrow, megabytes * 1150 // (1150 + ignored))  # a row has 1,150 bytes on average
    text = "".join(f"Word {n} of the page. " for n in range(ignored // 18 + 2))
    with open(narrow, "rb") as lines, open(path, "wb") as file:
        for number, line in enumerate(lines):
            page = json.dumps(f"{number} {text[number % 18 :][:ignored]}").encode()
            file.write(line[:-2] + b', "' + IGNORED.encode() + b'": ' + page + b"}\n")
    narrow.unlink()
    return count


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="What killed attempts at a large Dataset leave for the next one.")
    parser.add_argument("--megabytes", type=int, default=1100, help="from 1,074 on (1 GiB) something is kept")
    parser.add_argument("--ignored", type=int, default=0, metavar="BYTES", help="of each row, in a column of their own")
    parser.add_argument("--folder", type=Path, help="for six times the size; default: temporary")
    parser.add_argument("--kill", nargs="+", choices=MOMENTS, default=list(MOMENTS), help="default: at each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-dataset-") as folder:
        rows = Path(folder) / "rows.jsonl"
        count = write_wide(rows, options.megabytes, options.ignored)
        print(f"{rows.stat().st_size / 1e6:,.0f} MB, {count:,} rows", flush=True)
        wrong = compare(rows, Path(folder), options.kill)
    print("".join(f"MISSED: {bound}\n" for bound in wrong) or "all bounds are held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
