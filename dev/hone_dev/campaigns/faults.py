"""`make faults`: the operator and the trainer under fault; prints what was tried and what held, and writes the table of
docs/reliability.md.

A fault is a test with `@pytest.mark.faults("O3")`, in the tier that runs the real part. `make test` runs a sample of
them; this runs all, for an hour or two on two cores. What was seen is kept for these files: a run that was stopped goes
on where it was, and two runs with different `--only` fill one table.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from hone_dev.tools import paths, shell

ROOT = Path(__file__).resolve().parents[3]
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
    "O22": "Admission webhook of others down",
    "O23": "Objects restored from a backup, to another place as well",
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
    "T11": "Store slow, and still for a while within a checkpoint",
    "T12": "Clock of the run's node jumps",
    "T13": "Kubelet and containerd of the run's node killed",
    "T14": "Hub, judge, teacher or MLflow away, or gone in the middle of an answer",
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


@dataclass(frozen=True)
class Result:
    """What one test found: its cases as (fault, name, held)."""

    test: str
    cases: tuple[tuple[str, str, bool], ...]
    ran: bool = True


class Ledger:
    """The results of one commit, one line of JSON a test: a campaign that was stopped goes on, and two can share it.

    A test whose result is not written whole runs again. Local changes have a ledger of their own, by what they change.
    """

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path = path
        if fresh:
            path.unlink(missing_ok=True)

    def add(self, result: Result) -> None:
        """Append it in one write."""
        with self.path.open("a") as file:
            file.write(json.dumps({"test": result.test, "cases": result.cases}) + "\n")

    def results(self) -> list[Result]:
        """The newest of each test."""
        if not self.path.exists():
            return []
        newest: dict[str, Result] = {}
        for text in self.path.read_text().splitlines():
            with suppress(ValueError):  # the run was stopped while it wrote the line
                line = json.loads(text)
                newest[line["test"]] = Result(line["test"], tuple((f, name, held) for f, name, held in line["cases"]))
        return list(newest.values())


class Tally:
    """Collects what was tried and what held, by fault."""

    def __init__(self, earlier: Sequence[Result] = (), keep: Callable[[Result], None] | None = None) -> None:
        self.id_of: dict[str, str] = {}
        self.results = {result.test: result for result in earlier}
        self.keep = keep
        self.asked: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remember the fault that each marked test names, and leave out what has a result."""
        for item in items:
            if marker := item.get_closest_marker("faults"):
                if not marker.args or marker.args[0] not in FAULTS:
                    raise pytest.UsageError(
                        f"{item.nodeid}: name a fault of hone_dev.campaigns.faults: @pytest.mark.faults('O3')"
                    )
                self.id_of[item.nodeid] = marker.args[0]
        self.asked = set(self.id_of)
        items[:] = [item for item in items if item.nodeid not in self.results]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test as one case, or as the cases that it recorded as [fault, name, held]."""
        fault = self.id_of.get(report.nodeid)
        if fault is None:
            return
        if report.skipped:
            self.results[report.nodeid] = Result(report.nodeid, (), ran=False)
        elif report.when == "call" or report.failed:
            recorded: Any = dict(report.user_properties).get("faults")
            cases = tuple((f, name, held) for f, name, held in recorded or [(fault, report.nodeid, report.passed)])
            if report.failed and all(held for *_, held in cases):
                cases = (*cases, (fault, report.nodeid, False))
            self.results[report.nodeid] = Result(report.nodeid, cases)
            if self.keep:
                self.keep(self.results[report.nodeid])

    @property
    def cases(self) -> list[tuple[str, str, bool]]:
        """(fault, name, held) of all tests."""
        return [case for result in self.results.values() for case in result.cases]

    @property
    def not_held(self) -> list[str]:
        """The cases that did not hold, by fault and name."""
        return [f"{fault}: {name}" for fault, name, held in self.cases if not held]

    @property
    def not_run(self) -> list[str]:
        """The tests that were asked for and have no result."""
        ran = {result.test for result in self.results.values() if result.ran}
        return sorted((self.asked | self.results.keys()) - ran)

    @property
    def held(self) -> bool:
        """Whether every case ran and held."""
        return bool(self.cases) and not self.not_held and not self.not_run

    def rows(self) -> list[tuple[str, str, int, int]]:
        """(fault, what it is, tried, held)."""
        tried = Counter(fault for fault, *_ in self.cases)
        held = Counter(fault for fault, _, held in self.cases if held)
        return [(k, words, tried[k], held[k]) for k, words in FAULTS.items()]

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

    def markdown(self, page: str, faults: Collection[str], commit: str) -> str:
        """The table of docs/reliability.md.

        Args:
            page: has the rows of the faults that were not run.
            faults: those that were run.
            commit: what they were run on.
        """
        lines = ["| Fault | What happens | Cases tried | Cases held | Commit |", "| --- | --- | --- | --- | --- |"]
        for fault, words, tried, held in self.rows():
            kept = re.search(rf"^\| {fault} \|.*$", page, re.MULTILINE)
            if kept and fault not in faults:
                lines.append(kept[0])
            else:
                lines.append(f"| {fault} | {words} | {tried or 'not tested'} | {held if tried else ''} | {commit} |")
        return "\n".join(lines)


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


def ledger(fresh: bool) -> Ledger:
    """That of the files as they are: of this commit, or of these local changes to it."""
    return Ledger(paths.cache("faults") / f"{version(ROOT)}.jsonl", fresh)


def version(root: Path) -> str:
    """Of all files that git does not ignore, except the page that a run writes: the commit, and what differs."""
    commit = shell.run("git", "rev-parse", "--short=12", "HEAD", cwd=root).strip()
    new = shell.run("git", "ls-files", "--others", "--exclude-standard", "-z", cwd=root).split("\0")[:-1]
    changes = shell.run("git", "diff", "HEAD", "--binary", "--", f":!{PAGE.relative_to(ROOT)}", cwd=root).encode()
    for name in new:
        changes += name.encode() + ((root / name).read_bytes() if (root / name).is_file() else b"")
    return f"{commit}-{hashlib.sha256(changes).hexdigest()[:12]}" if changes else commit


def run(only: list[str], sample: bool, write: bool, fresh: bool) -> bool:
    """Run the tests of these faults, of all if empty, that have no result for this commit; True if every case held."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(ROOT)
    kept = ledger(fresh)
    tally = Tally(kept.results(), kept.add)
    marks = "faults and not long" if sample else "faults"
    argv = ["-v", "-m", marks, "--tb=short", "--no-header", "-p", "no:cacheprovider"]
    code = pytest.main(argv, plugins=[_Only(only), tally])
    tally.print()
    if write and not tally.not_run:
        page, commit = PAGE.read_text(), version(ROOT)[:8]
        PAGE.write_text(replaced(page, tally.markdown(page, only or FAULTS, commit)))
    return code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and tally.held
