"""Start-up and memory of a rank, with few rows and with ten million: from process start to the end of the first step.

    make setup && .venv/bin/python bench/start.py [--cases SFT,packed,DPO,KTO,GRPO,resume] [--rows 10000000] [--busy]
    .venv/bin/python bench/start.py --quick

Each run is `python -m hone_trainer run` of a tiny model on a CPU, whose rows were encoded before; see `start_runs.py`.
`resume` goes on from the checkpoint of an attempt that was asked to stop. `bench/start_billion.py` is the same for a
billion tokens within the memory of a pod.

Seconds are `loading` and `firstStep` of the run's outcome, CPU seconds are those of all its processes. Memory that is
not shared has no file behind it.

Exit code 1 when a bound is missed: 5 s (with --busy, for a machine that others use, of CPU) and 150 MiB a rank more for
the many rows than for a thousand; of the files that two ranks map, each has half in its PSS, except for 16 MiB of rows
that it alone reads.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from start_runs import Case, Start, add_row, new_table, run, write_plan, write_rows

FEW = 1000
"""Rows of the run that the others are compared with."""
SECONDS, MIB = 5.0, 150.0
"""Bounds: more for many rows than for few, a rank."""
ALONE_MIB = 16.0
"""Of the files that two ranks map, what only one of them has read at its first step."""
REWARD = {"type": "Regex", "regex": {"pattern": "e", "match": "Search"}}
"""Differs between random answers: a run whose reward is constant fails."""
CASES = {
    "SFT": Case(),
    "packed": Case(training={"packing": True, "maxLength": 256}),
    "DPO": Case("DPO", {"prompt": 3, "chosen": 3, "rejected": 3}),
    "KTO": Case("KTO", more=lambda number: {"label": bool(number % 2)}),
    "GRPO": Case(
        "GRPO",
        {"prompt": 3},
        more=lambda number: {"answer": str(number)},
        plan={"grpo": {"rewards": [REWARD], "generations": 4, "maxCompletionLength": 8}},
    ),
    "resume": Case(training={"maxSteps": 200}, resumes=True),
}


def compare(name: str, folder: Path, model: Path, options: argparse.Namespace, table: Table) -> list[str]:
    """One rank with few rows and with many, then two ranks; gives the bounds that are missed."""
    case, starts = CASES[name], dict[int, Start]()
    for rows in (FEW, options.rows):
        place = folder / str(rows)
        place.mkdir(parents=True)
        plan = write_plan(place, model, case, ranks=1, steps=1)
        size = write_rows(place, plan, case, rows)
        runs = [run(plan, resumes=case.resumes) for _ in range(options.repeats)]
        starts[rows] = min(runs, key=lambda start: start.cpu)
        add_row(table, f"{name}, {rows:,} rows, {size / 1e6:,.0f} MB", starts[rows])
    two = run(write_plan(place, model, case, ranks=2, steps=1), resumes=case.resumes)
    add_row(table, f"{name}, {options.rows:,} rows, two ranks", two)
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


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Start-up and memory of a rank by the number of rows.")
    parser.add_argument(
        "--cases", default="SFT,packed,DPO,KTO,GRPO,resume", help=f"with commas between them, of {', '.join(CASES)}"
    )
    parser.add_argument("--rows", type=int, default=10_000_000, help="the many rows")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each kind; the one with the least CPU counts")
    parser.add_argument("--busy", action="store_true", help="others use the machine: bound the CPU seconds")
    parser.add_argument("--quick", action="store_true", help="packed rows alone, a million of them, bound by CPU")
    options = parser.parse_args()
    if options.quick:
        options.cases, options.rows, options.busy = "packed", 10**6, True
    table, missed = new_table(), list[str]()
    with tempfile.TemporaryDirectory(prefix="bench-start-") as temporary:
        from hone_dev.models import models

        folder = Path(temporary)
        models.tiny(model := folder / "model")
        for name in options.cases.split(","):
            missed += compare(name, folder / name, model, options, table)
    console = Console(width=140)
    console.print(table)
    for name in missed:
        console.print(f"[red]missed: {name}")
    console.print(f"bounds: {f'{len(missed)} missed' if missed else 'all held'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
