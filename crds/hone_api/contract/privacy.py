"""Outcomes without the text of rows, for installations where people read the status who may not read the data."""

from __future__ import annotations

import re

from hone_api.contract.report import DatasetResult, TrainingResult
from hone_api.contract.termination import TerminationMessage
from hone_api.words.failures import FAILURES, ExitCode

ROWS_ENV = "HONE_ROWS_IN_STATUS"
"""Environment variable of a pod; `false`: what it leaves for the status contains no text of a row."""
WITHHELD = "What happened may quote rows and is withheld (privacy.rowsInStatus of the chart): see the pod's log."
_QUOTED = re.compile("“[^”]*”")
_MAY_QUOTE = (ExitCode.DATA, ExitCode.SOFTWARE)


def without_rows(outcome: TerminationMessage) -> TerminationMessage:
    """A copy with codes, counts, row numbers and digests, and without examples, samples and quoting messages."""
    copy = outcome.model_copy(deep=True)
    if copy.failure and _may_quote(copy.failure.code):
        copy.failure.message = WITHHELD
    if isinstance(copy.result, DatasetResult):
        hide_rows(copy.result)
    if isinstance(copy.result, TrainingResult):
        copy.result.samples = []
    return copy


def quoted(text: str) -> str:
    """A row's text inside a sentence, on one line, in quotation marks that `hide_rows` recognises."""
    inner = " ".join(text.split()).replace("”", '"').encode("utf-8", "replace").decode()
    return f"“{inner}”"


def hide_rows(result: DatasetResult) -> None:
    """Remove examples of rejected and removed rows, and quotes in advice, in place; counts and numbers stay."""
    result.advice = [_QUOTED.sub("“…”", sentence) for sentence in result.advice]
    for error in result.errors:
        error.example = None
    for step in result.curation:
        step.example = None


def _may_quote(code: str) -> bool:
    failure = FAILURES.get(code)
    return failure is None or failure.exit_code in _MAY_QUOTE
