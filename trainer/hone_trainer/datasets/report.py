"""The whole report of a Dataset: report.json for programs, report.html for people, from the same numbers.

The page is one file that loads nothing. Rows are untrusted input: everything from them is escaped, and a content
security policy forbids scripts besides.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_api.contract.report import DatasetResult
from hone_api.contract.termination import FailureReport
from hone_api.words.rowcodes import ROW_CODES
from hone_trainer.datasets.row_statistics import Tally
from hone_trainer.datasets.sources import sources
from hone_trainer.reporting import html
from hone_trainer.store.contents import REPORT

if TYPE_CHECKING:
    from jinja2 import Template

PAGE, DATA = "report.html", REPORT


def write(tally: Tally, result: DatasetResult, folder: Path, failure: FailureReport | None = None) -> None:
    """Write both files into folder."""
    report = data(tally, result, failure)
    (folder / DATA).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(report), encoding="utf-8")


def data(tally: Tally, result: DatasetResult, failure: FailureReport | None = None) -> dict[str, Any]:
    """Everything that is known, as JSON."""
    plan = tally.plan
    return _storable(
        {
            "name": plan.name,
            "source": {**plan.source.to_json(), "uri": sources.shown(plan.source.uri)},
            "splits": plan.splits.to_json(),
            "checks": plan.checks.to_json(),
            "failure": failure.to_json() if failure else None,
            # The report has no time of reading and no path, so that equal rows have equal reports.
            "result": result.model_copy(update={"source_version": None, "report": None}).to_json(),
            "lengths": [{"upTo": bound, "rows": rows} for bound, rows in tally.lengths.histogram()],
            "profile": tally.profile.to_json(),
            "rejectedExamples": {error.code: tally.examples[error.code] for error in result.errors},
            "curatedExamples": tally.curated_examples,
        }
    )


def page(report: dict[str, Any]) -> str:
    """The report as one HTML page."""
    return _template().render(report=report, codes=ROW_CODES)


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    """Half of a surrogate pair, as a refused row can hold, has no UTF-8 form: it becomes `?`."""
    storable: dict[str, Any] = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return storable


@cache
def _template() -> Template:
    return html.template(Path(__file__).with_name("report.html.j2"))
