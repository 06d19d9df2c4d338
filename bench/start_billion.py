"""A billion tokens of 4 bytes as a file of 4.6 GB: five steps of a tiny model within the memory of a pod of 4 GiB.

    make setup && sudo .venv/bin/python bench/start_billion.py [--tokens 1000000000] [--folder /var/tmp]

The run belongs to a control group of its own with this limit, in which pages of files that it reads count, as in
Kubernetes; the files are not in the system's cache when it begins. Printed are the time to the first step, the memory
of the rank, and the peak of the group, which the kernel keeps at the limit by dropping pages of files.

Exit code 1 when the run fails, when the kernel kills one of its processes, or when the resident sets of all processes,
mapped files included, are over 4 GiB together. Needs 5 GB in --folder, and root for the control group.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from memory_group import limited
from rich.console import Console
from start_runs import Case, add_row, new_table, run, tokens, write_plan, write_rows

POD_MIB, STEPS = 4096.0, 5
FEW = 1000
"""Rows whose tokens are counted first."""


def write(folder: Path, model: Path, most: int) -> tuple[Path, int, int]:
    """The plan of a run on so many tokens, its rows, and their bytes."""
    case = Case(texts={"prompt": 50, "completion": 50})
    plan = write_plan(folder, model, case, ranks=1, steps=STEPS)
    write_rows(folder, plan, case, FEW)
    rows = FEW * most // tokens(folder)
    shutil.rmtree(folder / "work")
    return plan, rows, write_rows(folder, plan, case, rows, vocabulary=2**17)


def leave(folder: Path) -> None:
    """Drops the pages of all files from the system's cache: whoever reads them next is charged for them."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="A billion tokens in a pod of 4 GiB.")
    parser.add_argument("--tokens", type=int, default=10**9)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the rows, removed afterwards")
    options = parser.parse_args()
    console, table = Console(width=140), new_table()
    with tempfile.TemporaryDirectory(prefix="bench-start-", dir=options.folder) as temporary, limited(POD_MIB) as group:
        from hone_dev.models import models

        folder = Path(temporary)
        models.tiny(model := folder / "model")
        plan, rows, size = write(folder, model, options.tokens)
        leave(folder)
        start = run(plan, prepare=group.join)
        title = f"{tokens(folder) / 1e9:.2f} billion tokens, {rows:,} rows, {size / 1e9:.1f} GB, {STEPS} steps"
        add_row(table, title, start)
        peak, killed = group.peak, group.killed
    console.print(table)
    console.print(f"all processes at the peak {start.together:,.0f} MiB, the group {peak:,.0f} of {POD_MIB:,.0f} MiB")
    is_missed = bool(killed) or start.together > POD_MIB
    console.print(f"bounds: {'missed' if is_missed else 'held'}; {killed} processes killed")
    return int(is_missed)


if __name__ == "__main__":
    sys.exit(main())
