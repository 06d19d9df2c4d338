"""A row by itself: as read, then a valid row with its keys, or refused with a reason. Workers do this."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import batches, read
from hone_trainer.datasets.curation import personal_data
from hone_trainer.datasets.detect import Detected
from hone_trainer.datasets.rows import RawRow, RowError, canonical
from hone_trainer.datasets.spool import ValidRow
from hone_trainer.datasets.statistics import check_length


class RefusedRow(NamedTuple):
    """A row that is not valid, as people may see it: without personal data."""

    row: RawRow
    error: RowError


class Check:
    """What the plan and the format of its rows ask of each row."""

    def __init__(self, plan: MaterializePlan, detected: Detected) -> None:
        self._plan, self._detected = plan, detected

    def rows(self, batch: Sequence[batches.Packed]) -> list[ValidRow | RefusedRow]:
        """For each row a valid one, or the reason why it is not."""
        return [self._row(read.parsed(batches.unpacked(row))) for row in batch]

    def _row(self, row: RawRow) -> ValidRow | RefusedRow:
        plan = self._plan
        try:
            if row.value is None:
                raise row.error or RowError("WrongType", "the row is empty")
            record = self._detected.normalise(row.value)
            check_length(record, plan.checks.max_tokens)
            keys = (_group(plan, row.value), _label(plan, row.value), _stratum(plan, row.value))
            return ValidRow(row.number, canonical(record), *keys)
        except RowError as error:
            return refused(row, self._shown(error, row), plan)

    def _shown(self, error: RowError, row: RawRow) -> RowError:
        """The error as the row without personal data has it: messages quote the beginning of what they are about."""
        value = personal_data.redacted(row.value, self._plan)
        if value is row.value:
            return error
        try:
            self._detected.normalise(value)
        except RowError as clean:
            return clean
        return error


def refused(row: RawRow, error: RowError, plan: MaterializePlan) -> RefusedRow:
    """Row and error without personal data."""
    place = personal_data.redact_message(row.place, plan)
    shown = replace(row, value=personal_data.redacted(row.value, plan), place=place, error=None)
    return RefusedRow(shown, RowError(error.code, personal_data.redact_message(str(error), plan)))


def _group(plan: MaterializePlan, row: dict[str, Any]) -> str:
    """What must not cross splits: the value of splits.groupBy; empty: the row alone."""
    column = plan.splits.group_by
    return "" if column is None else _value(row, column, "splits.groupBy")


def _label(plan: MaterializePlan, row: dict[str, Any]) -> str:
    """The value that curation.balance counts."""
    balance = plan.curation.balance
    return "" if balance is None else _value(row, balance.column, "curation.balance")


def _stratum(plan: MaterializePlan, row: dict[str, Any]) -> str:
    """The value whose proportions every split keeps."""
    column = plan.splits.stratify_by
    return "" if column is None else _value(row, column, "splits.stratifyBy")


def _value(row: dict[str, Any], column: str, field: str) -> str:
    if row.get(column) is None:
        raise RowError("MissingColumn", f"column {column} ({field}) is missing")
    try:
        return json.dumps(row[column], sort_keys=True, default=str)
    except ValueError as error:
        raise RowError("WrongType", f"column {column}: {error}") from None
