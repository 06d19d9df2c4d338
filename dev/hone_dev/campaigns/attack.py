"""`make attack`: every hostile input against the part it is aimed at; prints how many were tried and how many held.

A new input is another parameter of a test with `@pytest.mark.attack("area")`, in the tier that runs the real part.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[3]


class Tally:
    """Collects the outcome of each attack by area. One input is one test case."""

    def __init__(self) -> None:
        self.area_of: dict[str, str] = {}
        self.tried: Counter[str] = Counter()
        self.not_held: dict[str, str] = {}
        self.not_run: dict[str, str] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remember the area that each marked test names."""
        for item in items:
            if marker := item.get_closest_marker("attack"):
                if not marker.args:
                    raise pytest.UsageError(f"{item.nodeid}: name the area: @pytest.mark.attack('area')")
                self.area_of[item.nodeid] = marker.args[0]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the call; an error of a fixture counts as an input that did not hold."""
        area = self.area_of.get(report.nodeid)
        if area is None:
            return
        if report.skipped:
            self.not_run[report.nodeid] = area
        elif report.when == "call":
            self.tried[area] += 1
            if report.failed:
                self.not_held[report.nodeid] = area
        elif report.failed:
            self.not_held.setdefault(report.nodeid, area)
            if report.when == "setup":
                self.tried[area] += 1

    def print(self) -> None:
        """One line an area, and the inputs that did not hold by name."""
        table = Table("area", "tried", "held", "not held")
        failed = Counter(self.not_held.values())
        for area in sorted(self.tried):
            tried, bad = self.tried[area], failed[area]
            table.add_row(area, str(tried), str(tried - bad), str(bad) if bad else "")
        total, bad = self.tried.total(), len(self.not_held)
        table.add_section()
        table.add_row("all", str(total), str(total - bad), str(bad) if bad else "")
        console = Console()
        console.print(table)
        for name in self.not_held:
            console.print(f"not held: {name}", markup=False, soft_wrap=True)
        for name in self.not_run:
            console.print(f"not run: {name}", markup=False, soft_wrap=True)
        print(f"{total - bad} passed, {bad} failed, {len(self.not_run)} skipped")

    @property
    def held(self) -> bool:
        """Whether every input ran and held."""
        return bool(self.tried) and not self.not_held and not self.not_run


def main() -> int:
    """Exit code 0 only when every input ran and held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", help="run only the areas whose name contains this text")
    parser.add_argument("--list", action="store_true", help="print each input without running it")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(ROOT)
    tally = Tally()
    argv = ["-q", "-m", "attack", "--tb=short", "--no-header", "-p", "no:cacheprovider"]
    if args.list:
        return int(pytest.main([*argv, "--collect-only"], plugins=[_Area(args.area), tally]))
    code = pytest.main(argv, plugins=[_Area(args.area), tally])
    tally.print()
    return 0 if code == pytest.ExitCode.OK and tally.held else 1


class _Area:
    """Leaves out the inputs of other areas."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep what is asked for."""
        if self.text:
            items[:] = [
                item
                for item in items
                if (marker := item.get_closest_marker("attack")) and self.text.lower() in str(marker.args).lower()
            ]


if __name__ == "__main__":
    sys.exit(main())
