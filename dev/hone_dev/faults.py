"""`make faults`: the operator and the trainer under fault; prints what was tried and what held, and writes the table of
docs/reliability.md.

A fault is a test with `@pytest.mark.faults("O3")`, in the tier that runs the real part. `make test` runs a sample of
them; this runs all, for an hour or two on two cores.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FAULTS = {
    "O1": "Operator killed before, during and after each of its writes",
    "O2": "Operator killed at a write and again at the next one",
    "O3": "409 to a write, once and five times",
    "O4": "422 to a status",
    "O5": "429 with Retry-After, 500, 503, a cut connection",
    "O6": "Write carried out, answer lost",
    "O7": "Watch gone (410), in error, broken, ended, silent; reads refused with 403 and 404",
    "O8": "Old lists; events repeated, swapped and late",
    "O9": "Events that never arrive",
    "O10": "etcd and API server killed and started again",
    "O11": "Operator down while the job goes on",
    "O12": "Two operators at once",
    "O13": "Objects and namespaces deleted at every phase",
    "O14": "Spec edited while the job runs",
    "O15": "Quota, missing claim, missing ConfigMap",
    "O16": "Image cannot be pulled, container cannot start",
    "O17": "Out of memory",
    "O18": "Eviction, preemption, lost node",
    "O19": "Child deleted or replaced by hand, foreign object with a name of ours",
    "O20": "Objects, definitions and plans of an earlier version",
    "O21": "Operator's clock jumps",
    "T1": "SIGTERM at every step",
    "T2": "SIGKILL at every step",
    "T3": "SIGKILL inside the writing of a checkpoint",
    "T4": "Checkpoint damaged: byte, length, file, manifest",
    "T5": "Full disk",
    "T6": "Loss that is not finite",
    "T7": "Corrupted rows",
    "T8": "Rank dies, is stopped, cannot be reached",
    "T9": "Killed inside an export",
    "T10": "Progress server unreachable, slow, forged reports",
    "D1": "Registry or bucket fails in the middle of an upload: 500, half of a body, a lost answer",
    "D2": "Registry or bucket answers 503",
    "D3": "Registry or bucket is full",
    "D4": "Model altered at any place",
    "D5": "Signature by another key, or over other files",
    "D6": "Alias moved by two at once",
    "D7": "Approval withdrawn",
    "D8": "Operator killed at each write of signing, promotion and delivery",
}
"""By the numbers of the tests."""
BEGIN, END = "<!-- begin: written by make faults -->", "<!-- end: written by make faults -->"


class Tally:
    """Collects what was tried and what held, by fault."""

    def __init__(self) -> None:
        self.id_of: dict[str, str] = {}
        self.tried: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.not_held: list[str] = []
        self.not_run: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remember the fault that each marked test names."""
        for item in items:
            if marker := item.get_closest_marker("faults"):
                if not marker.args or marker.args[0] not in FAULTS:
                    raise pytest.UsageError(
                        f"{item.nodeid}: name a fault of hone_dev.faults: @pytest.mark.faults('O3')"
                    )
                self.id_of[item.nodeid] = marker.args[0]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test as one case, or as the cases that it recorded as [fault, name, held]."""
        fault = self.id_of.get(report.nodeid)
        if fault is None:
            return
        if report.skipped:
            self.not_run.append(report.nodeid)
        elif report.when == "call" or (report.failed and report.when == "setup"):
            recorded: Any = dict(report.user_properties).get("faults")
            cases: list[tuple[str, str, bool]] = recorded or [(fault, report.nodeid, report.passed)]
            for each, name, held in cases:
                self.tried[each] += 1
                if not held:
                    self.failed[each] += 1
                    self.not_held.append(f"{each}: {name}")
            if report.failed and all(held for *_, held in cases):
                self.failed[fault] += 1
                self.not_held.append(f"{fault}: {report.nodeid}")

    @property
    def held(self) -> bool:
        """Whether every case ran and held."""
        return bool(self.tried) and not self.not_held and not self.not_run

    def rows(self) -> list[tuple[str, str, int, int]]:
        """(fault, what it is, tried, held)."""
        return [(k, words, self.tried[k], self.tried[k] - self.failed[k]) for k, words in FAULTS.items()]

    def print(self) -> None:
        """One line a fault, and what did not hold by name."""
        table = Table("fault", "what happens", "tried", "held")
        for fault, words, tried, held in self.rows():
            if tried:
                table.add_row(fault, words, str(tried), str(held), style="bold red" if held < tried else "")
        console = Console()
        console.print(table)
        for name in self.not_held:
            console.print(f"not held: {name}", markup=False, soft_wrap=True)
        for name in self.not_run:
            console.print(f"not run: {name}", markup=False, soft_wrap=True)

    def markdown(self, minutes: float) -> str:
        """The table of docs/reliability.md."""
        lines = ["| Fault | What happens | Cases tried | Cases held |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {k} | {words} | {tried or 'not tested'} | {held if tried else ''} |"
            for k, words, tried, held in self.rows()
        ]
        total = self.tried.total()
        words = f"{total} cases, {total - self.failed.total()} held; {minutes:.0f} minutes on {os.cpu_count()} cores."
        return "\n".join([*lines, "", words])


class _Only:
    """Leaves out the tests of other faults."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep what is asked for."""
        if self.faults:
            items[:] = [i for i in items if (m := i.get_closest_marker("faults")) and m.args[0] in self.faults]


def replaced(page: str, table: str) -> str:
    """The page with this table between its two marks.

    Raises:
        ValueError: the page lacks them.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", page)


def run(only: list[str], sample: bool, write: bool) -> bool:
    """Run the tests of these faults, of all if empty; True if every case held."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(ROOT)
    tally, start = Tally(), time.monotonic()
    marks = "faults and not long" if sample else "faults"
    argv = ["-v", "-m", marks, "--tb=short", "--no-header", "-p", "no:cacheprovider"]
    code = pytest.main(argv, plugins=[_Only(only), tally])
    tally.print()
    if write:
        PAGE.write_text(replaced(PAGE.read_text(), tally.markdown((time.monotonic() - start) / 60)))
    return code == pytest.ExitCode.OK and tally.held
