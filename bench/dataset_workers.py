"""What a second worker gives when a Dataset is prepared, and whether memory and time hold at 10 GB.

    .venv/bin/python bench/dataset_workers.py [--megabytes 1000]
    .venv/bin/python bench/dataset_workers.py --megabytes 1000 --against 4398decb~
    .venv/bin/python bench/dataset_workers.py --gigabytes 1 2 4 10 --folder /var/tmp

Validation, deduplication and tokenising (of the first 60,000 rows that are left) by one worker and by two: seconds by
the clock and of CPU. The clock says little on a machine with other work. There, the critical path is what an idle one
takes: of each phase the CPU time of the parent's busiest thread, or that of all processes by two if it is longer. A
statement of SQL, whose threads share its work, is a phase of its own; nothing else runs where the parent is alone.
Exit code 1 when two workers are less than 1.8 times as fast as one, by that path, or a process takes more than
1.5 GiB. 1,000 MB take 6 GB of disk.

With --against REVISION, the code of that revision does the same steps in one process, and two workers of this code do
them for comparison. 4398decb~ is the last commit before rows were encoded ahead of a run and workers shared the work.
There, a row was tokenised in each rank and not written; here, it is.

With --gigabytes, validation and deduplication by two workers at each of these sizes: a verdict on the memory of each
process, and on the CPU time by gigabyte at the smallest and at each other size. Files need 3.1 times the largest size.
Rows that lie in the folder as rows-<megabytes>.jsonl are not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from itertools import islice
from pathlib import Path

from dataset_steps import BENCH, BUDGET_MIB, QUIET, WORKERS, measure, write_rows

STEPS = ("validate", "deduplicate", "tokenise")
TOKENISED_ROWS = 60_000
"""Rows that are tokenised; the time of all is as many times longer."""
SPEED_UP = 1.8
"""Of two workers on two idle cores: validation, deduplication and tokenising together."""
DISK = 3.1
"""Times the size that the rows, what is kept of them meanwhile and the result have together."""
LINEAR = 0.15
"""How much the CPU time by gigabyte may differ."""
Pair = tuple[dict[str, float], dict[str, float]]
"""A step by one worker, and by two."""


def compare(megabytes: int, folder: Path) -> list[str]:
    """Prints each step by one worker and by two; gives the bounds that are missed."""
    rows, sample = folder / "rows.jsonl", folder / "sample.jsonl"
    begin_table(rows, megabytes)
    steps: dict[str, Pair] = {}
    for step in STEPS:
        if step == "tokenise":
            write_sample(folder / "deduplicate-1" / "train", sample)
        source = sample if step == "tokenise" else rows
        one, several = (measure(f"hone_{step}", source, folder / f"{step}-{n}", n) for n in (1, WORKERS))
        print_line(f"{step}, 1 worker", one)
        print_line(f"{step}, {WORKERS} workers", several)
        report_step(step, one, several)
        steps[step] = (one, several)
    clock, by_cpu = ratio(steps, "seconds", "seconds"), ratio(steps, "cpu", "critical")
    print(f"validate + deduplicate + tokenise: {WORKERS} workers / 1 {clock:.2f} times as fast by the clock,", end=" ")
    print(f"{by_cpu:.2f} by CPU (bound {SPEED_UP})")
    peak = max(made["peak_mib"] for pair in steps.values() for made in pair)
    missed = {
        f"two workers are {by_cpu:.2f} times as fast as one at {megabytes} MB": by_cpu < SPEED_UP,
        f"{peak:,.0f} MiB at {megabytes} MB: over {BUDGET_MIB} MiB": peak > BUDGET_MIB,
    }
    return [bound for bound, is_missed in missed.items() if is_missed]


def compare_with(revision: str, megabytes: int, folder: Path) -> list[str]:
    """Prints each step by the code of the revision and by two workers of this one; gives the bounds that are missed."""
    code = checked_out(revision, folder / "code")
    rows, sample = folder / "rows.jsonl", folder / "sample.jsonl"
    begin_table(rows, megabytes)
    steps: dict[str, Pair] = {}
    for step in STEPS:
        if step == "tokenise":
            write_sample(folder / "deduplicate-now" / "train", sample)
        source = sample if step == "tokenise" else rows
        then = measure_old(code, f"hone_{step}", source, folder / f"{step}-then")
        now = measure(f"hone_{step}", source, folder / f"{step}-now", WORKERS)
        print_line(f"{step}, {revision}", then)
        print_line(f"{step}, {WORKERS} workers", now)
        print(f"{step}: {then['seconds'] / now['seconds']:.2f} times as fast", flush=True)
        steps[step] = (then, now)
    clock, by_cpu = ratio(steps, "seconds", "seconds"), ratio(steps, "cpu", "critical")
    print(f"validate + deduplicate + tokenise: {WORKERS} workers / {revision} {clock:.2f} times as fast", end=" ")
    print(f"by the clock, {by_cpu:.2f} by CPU (bound {SPEED_UP})")
    return [f"{by_cpu:.2f} times as fast as {revision} at {megabytes} MB"] if by_cpu < SPEED_UP else []


def begin_table(rows: Path, megabytes: int) -> None:
    """Makes the file of rows, and prints the head of the table."""
    count = write_rows(rows, megabytes)
    print(f"{f'{megabytes} MB, {count:,} rows':24} {'clock s':>8} {'CPU s':>8} {'critical s':>10} {'peak MiB':>9}")


def write_sample(rows: Path, sample: Path) -> None:
    """The first rows of a file, to be tokenised."""
    with open(rows, "rb") as left, open(sample, "wb") as file:
        file.writelines(islice(left, TOKENISED_ROWS))


def print_line(name: str, made: dict[str, float]) -> None:
    """One line of the table."""
    critical = made.get("critical", made["cpu"])
    print(f"{name:24} {made['seconds']:8.1f} {made['cpu']:8.1f} {critical:10.1f} {made['peak_mib']:9,.0f}", flush=True)


def checked_out(revision: str, folder: Path) -> Path:
    """The files of the revision, without a work tree of git."""
    archive = folder.with_suffix(".tar")
    subprocess.run(["git", "-C", str(BENCH.parent), "archive", "-o", str(archive), revision], check=True)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder


def measure_old(code: Path, step: str, rows: Path, work: Path) -> dict[str, float]:
    """The step by the code in the folder, in one process: as `measure` gives it."""
    work.mkdir()
    command = [sys.executable, str(code / "bench/dataset.py"), "--measure", step, str(rows), str(work)]
    paths = os.pathsep.join(str(code / package) for package in ("trainer", "crds", "dev"))
    environment = {**os.environ, **QUIET, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    made: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return made


def report_step(step: str, one: dict[str, float], several: dict[str, float]) -> None:
    """What workers give by the clock, and what their CPU times allow on an idle machine."""
    clock, share = one["seconds"] / several["seconds"], several["parent"] / several["cpu"]
    print(f"{step}: {WORKERS} workers / 1 {clock:.2f} times as fast by the clock,", end=" ")
    print(f"{one['cpu'] / several['critical']:.2f} by CPU; CPU {several['cpu'] / one['cpu']:.2f} times,", end=" ")
    print(f"{share:.0%} of it the parent's", flush=True)


def ratio(steps: dict[str, Pair], one: str, other: str) -> float:
    """Of the first figure by the second for all rows. Deduplication validates as well; only a sample is tokenised."""
    weights = {"deduplicate": 1.0, "tokenise": steps["deduplicate"][1]["rows"] / steps["tokenise"][1]["rows"]}
    first = sum(weight * steps[step][0][one] for step, weight in weights.items())
    return first / sum(weight * steps[step][1][other] for step, weight in weights.items())


def kept(folder: Path | None, megabytes: int) -> Path | None:
    """The rows of this size that `write_rows` left in the folder at another time, `rows-<megabytes>.jsonl`."""
    path = (folder or Path(tempfile.gettempdir())) / f"rows-{megabytes}.jsonl"
    return path if path.exists() else None


def _lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def grow(sizes: list[int], folder: Path | None) -> list[str]:
    """Validation and deduplication by two workers at each size in MB: prints a line for each, gives what is missed."""
    first, missed = 0.0, []
    print(f"{'MB':>7} {'rows in':>11} {'left':>11} {'clock s':>9} {'CPU s':>9} {'s/GB':>7} {'critical s':>10}", end="")
    print(f" {'parent MiB':>10} {'worker MiB':>10}")
    for size in sorted(sizes):
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-dataset-") as work:
            rows = kept(folder, size) or Path(work) / "rows.jsonl"
            if not rows.exists() and shutil.disk_usage(work).free < DISK * size * 10**6:
                missed.append(f"{size} MB are not measured: {DISK} times as much must be free in {work}")
                continue
            count = _lines(rows) if rows.exists() else write_rows(rows, size)
            made = measure("hone_deduplicate", rows, Path(work) / "hone", WORKERS)
        each = made["cpu"] / size * 1000
        first = first or each
        print(f"{size:7,} {count:11,} {made['rows']:11,.0f} {made['seconds']:9,.1f} {made['cpu']:9,.1f}", end="")
        print(
            f" {each:7.1f} {made['critical']:10,.1f} {made['parent_mib']:10,.0f} {made['worker_mib']:10,.0f}",
            flush=True,
        )
        if abs(each / first - 1) > LINEAR:
            missed.append(f"{each:.1f} CPU s/GB at {size} MB, {first:.1f} at the smallest: over {LINEAR:.0%} apart")
        if made["peak_mib"] > BUDGET_MIB:
            missed.append(f"{made['peak_mib']:,.0f} MiB at {size} MB: over {BUDGET_MIB} MiB")
    return missed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Two workers by one, and growth with the size.")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--gigabytes", type=float, nargs="+", help="only validation and deduplication, at each size")
    parser.add_argument(
        "--folder", type=Path, help="for six times the size, or 3.1 times the largest; default: temporary"
    )
    parser.add_argument("--against", metavar="REVISION", help="compare with the code of this revision, in one process")
    options = parser.parse_args()
    if options.gigabytes and options.against:
        parser.error("--against is for --megabytes")
    if options.gigabytes:
        missed = grow([round(1000 * size) for size in options.gigabytes], options.folder)
    else:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-dataset-") as folder:
            if options.against:
                missed = compare_with(options.against, options.megabytes, Path(folder))
            else:
                missed = compare(options.megabytes, Path(folder))
    print("".join(f"MISSED: {bound}\n" for bound in missed) or "all bounds are held")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
