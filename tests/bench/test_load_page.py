"""The columns that `bench/operator_load.py --write` writes into docs/reliability.md."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.pure
BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("load_page")


def measured(jobs: int, **fields: Any) -> Any:
    """A load that holds every bound."""
    figures, active = importlib.import_module("load_figures"), importlib.import_module("active_jobs")
    reporters = active.Reporters(0)
    reporters.posts.accepted, reporters.posts.seconds = 9, [0.036]
    load = figures.Load(jobs, empty=100, created_cpu=jobs * 0.01, restart_cpu=jobs * 0.002, idle_cores=jobs / 60_000)
    load.restart, load.cores, load.rss, load.minutes, load.writes = 9.5, 0.12, 180, 2, 7
    load.latencies, load.deletion, load.deleted, load.after, load.restarted = [0.3], 200, jobs, 115, 100 + jobs / 64
    load.reporters = reporters
    for name, value in fields.items():
        setattr(load, name, value)
    return load


@pytest.fixture
def page(bench: Any) -> str:
    """With a column of 500 and one of 5,000 jobs."""
    table = [
        "| Figure | 500 jobs, 50 report | 5,000 jobs, 200 report | Bound |",
        "| --- | --- | --- | --- |",
        "| Commit | earlier | | |",
        "| CPU to start a job | 12.8 ms | 10.4 ms | |",
    ]
    return "\n".join(["# Load", bench.BEGIN, "", *table, "", bench.END, "The end."])


def cells(page: str, place: int) -> dict[str, str]:
    """A column of a page: its values by figure."""
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    return {line[0]: line[place] for line in table}


def test_a_column_comes_to_the_page_in_its_place(bench: Any, page: str) -> None:
    after = bench.written(page, [measured(2000)], "0123abcd")
    assert list(cells(after, 2).values()) == [
        *("2,000 jobs, 200 report", "---", "0123abcd", "10.0 ms", "2.0 ms", "1.0 ms", "16.0 KiB", "9.5 s", "0", "0.12"),
        *("3.50", "36 ms", "300 ms", "180 MiB", "200 s", "115 MiB"),
    ]
    assert [cells(after, place)["Figure"] for place in (1, 3)] == ["500 jobs, 50 report", "5,000 jobs, 200 report"]
    assert [cells(after, place)["Commit"] for place in (1, 3)] == ["earlier", ""]
    assert [cells(after, place)["CPU to start a job"] for place in (1, 3)] == ["12.8 ms", "10.4 ms"]
    assert (after.startswith("# Load\n"), after.endswith("\nThe end.")) == (True, True)
    assert bench.written(after, [measured(2000)], "0123abcd") == after


def test_a_column_of_the_same_number_of_jobs_is_replaced(bench: Any, page: str) -> None:
    after = bench.written(page, [measured(5000, restart=15.1), measured(500)], "0123abcd")
    assert [cells(after, place)["Commit"] for place in (1, 2)] == ["0123abcd"] * 2
    assert [cells(after, place)["Ready after a restart"] for place in (1, 2, 3)] == ["9.5 s", "**15.1 s**", "15 s"]


def test_what_misses_its_bound_is_bold(bench: Any, page: str) -> None:
    over = measured(2000, restart_writes=Counter({"patch jobs": 1}), cores=0.61, rss=251, after=121)
    column = cells(bench.written(page, [over], "0123abcd"), 2)
    bold = [value for value in column.values() if value.startswith("**")]
    assert bold == ["**{'patch jobs': 1}**", "**0.61**", "**251 MiB**", "**121 MiB**"]


def test_the_table_of_the_documentation_can_be_written(bench: Any) -> None:
    page = bench.PAGE.read_text()
    assert bench.written(page, [], "0123abcd") == page


def test_a_page_without_the_table_is_refused(bench: Any) -> None:
    with pytest.raises(ValueError, match="has no"):
        bench.written("# Reliability", [measured(500)], "0123abcd")
