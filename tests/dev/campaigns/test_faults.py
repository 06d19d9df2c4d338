"""The table of `make faults`: what is counted, and where it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest

from hone_dev.campaigns import faults
from hone_dev.tools import shell

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[3]


def report(name: str, outcome: Literal["passed", "failed", "skipped"], **properties: Any) -> pytest.TestReport:
    location = ("a.py", 1, name)
    return pytest.TestReport(name, location, {}, outcome, None, "call", user_properties=list(properties.items()))


def test_a_test_is_one_case_or_the_cases_that_it_recorded() -> None:
    tally = faults.Tally()
    tally.id_of = {"one": "T5", "many": "O3", "broken": "O7", "left out": "T6"}
    tally.pytest_runtest_logreport(report("one", "passed"))
    cases = [["O3", "409 at write 1", True], ["O5", "500 at write 2", False]]
    tally.pytest_runtest_logreport(report("many", "failed", faults=cases))
    tally.pytest_runtest_logreport(report("broken", "failed"))
    tally.pytest_runtest_logreport(report("left out", "skipped"))
    tally.pytest_runtest_logreport(report("not a fault", "failed"))
    counted = {fault: (tried, held) for fault, _, tried, held in tally.rows() if tried}
    assert counted == {"T5": (1, 1), "O3": (1, 1), "O5": (1, 0), "O7": (1, 0)}
    assert tally.not_held == ["O5: 500 at write 2", "O7: broken"]
    assert tally.not_run == ["left out"]
    assert not tally.held


def test_a_test_that_fails_though_its_cases_held_is_not_held() -> None:
    tally = faults.Tally()
    tally.id_of = {"many": "O3"}
    tally.pytest_runtest_logreport(report("many", "failed", faults=[["O3", "409 at write 1", True]]))
    assert not tally.held


def test_a_stopped_run_goes_on_with_what_the_ledger_of_its_commit_holds(tmp_path: Path) -> None:
    ledger = faults.Ledger(tmp_path / "one.jsonl", fresh=False)
    first = faults.Tally(ledger.results(), ledger.add)
    first.id_of = {"one": "T5", "many": "O3"}
    first.pytest_runtest_logreport(report("one", "failed"))
    first.pytest_runtest_logreport(report("many", "passed", faults=[["O3", "a", True], ["O5", "b", True]]))
    second = faults.Tally(faults.Ledger(ledger.path, fresh=False).results())
    assert second.rows() == first.rows()
    assert second.not_held == ["T5: one"]
    second.asked = {"one", "many", "still to run"}
    assert second.not_run == ["still to run"]
    assert faults.Ledger(ledger.path, fresh=True).results() == []


def test_a_line_that_was_being_written_when_the_run_was_stopped_costs_one_result(tmp_path: Path) -> None:
    ledger = faults.Ledger(tmp_path / "one.jsonl", fresh=False)
    ledger.add(faults.Result("one", (("T5", "one", True),)))
    ledger.path.write_text(ledger.path.read_text() + '{"test": "two", "ca')
    assert [result.test for result in ledger.results()] == ["one"]


def test_what_was_seen_before_a_file_was_edited_does_not_count(tmp_path: Path) -> None:
    shell.run("git", "init", "-q", cwd=tmp_path)
    file = tmp_path / "a.py"
    file.write_text("1")
    shell.run("git", "add", "a.py", cwd=tmp_path)
    shell.run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one", cwd=tmp_path)
    seen = [faults.version(tmp_path)]
    for text in ("2", "3"):
        file.write_text(text)
        seen.append(faults.version(tmp_path))
    (tmp_path / "b.py").write_text("new")
    seen.append(faults.version(tmp_path))
    assert len(set(seen)) == 4
    (tmp_path / "b.py").unlink()
    file.write_text("1")
    assert faults.version(tmp_path) == seen[0]


def test_the_table_goes_between_its_marks_of_the_page() -> None:
    page = faults.PAGE.read_text()
    written = faults.replaced(page, "| new |")
    assert written.count("| new |") == 1
    again = faults.replaced(written, "| newer |")
    assert "| new |" not in again
    assert again.replace("| newer |", "| new |") == written
    with pytest.raises(ValueError, match="the page has no"):
        faults.replaced("# Another page", "")


def test_a_run_of_some_faults_writes_their_rows_and_leaves_the_others() -> None:
    page = "| O1 | words | 7 | 7 | 0123abcd |\n| O3 | words | 1 | 1 | 0123abcd |"
    tally = faults.Tally([faults.Result("a", (("O3", "a", True), ("O3", "b", False))), faults.Result("b", ())])
    rows = tally.markdown(page, ["O3", "O4"], "89abcdef").splitlines()
    assert rows[2] == "| O1 | words | 7 | 7 | 0123abcd |"
    assert f"| O3 | {faults.FAULTS['O3']} | 2 | 1 | 89abcdef |" in rows
    assert f"| O4 | {faults.FAULTS['O4']} | not tested |  | 89abcdef |" in rows
    assert len(rows) == 2 + len(faults.FAULTS)


def test_every_fault_is_tested_by_something_or_the_page_says_that_it_is_not() -> None:
    marked = {
        fault
        for file in (ROOT / "tests").rglob("test_*.py")
        for fault in re.findall(r'"([OTD]\d+)"', file.read_text())
        if file != Path(__file__) and "pytest.mark.faults" in file.read_text()
    }
    assert marked <= faults.FAULTS.keys()
    untested = faults.FAULTS.keys() - marked
    page = faults.PAGE.read_text().partition("## Not covered")[2]
    assert [fault for fault in sorted(untested) if f"({fault})" not in page] == []
