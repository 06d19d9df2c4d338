"""What a format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hone_trainer.datasets.formats import expressions
from hone_trainer.datasets.readers.rows import Record, RowError

Fields = dict[str, Any]
"""Role to value, for the roles of the format that the row has."""


def read(column: str, row: dict[str, Any]) -> Any:
    """The value of a column, or else of an expression.

    Raises:
        RowError: the expression cannot be evaluated.
    """
    return row[column] if column in row else expressions.evaluate(column, row)


@dataclass(frozen=True)
class RowFormat:
    """A shape of rows. Roles are the format's names for columns; a column has its role's name unless it is mapped."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    convert: Callable[[Fields], Record]
    """Fields to a record; raises RowError."""
    recognises: Callable[[Fields], bool]
    """Whether a row has this shape, for Auto."""
    why: str
    """What Auto saw, for people: 'every row has …'."""
    absent: str = "MissingColumn"
    """Code for a row without a required column."""
    by_columns: bool = True
    """Whether Auto takes rows with its columns for it though they contain something else: their errors say what."""
    is_answered: bool = False
    """Whether a row is a question and answers in columns, so that an unread column may belong to the question."""

    @property
    def roles(self) -> tuple[str, ...]:
        return self.required + self.optional

    def fields(self, row: dict[str, Any], columns: dict[str, str]) -> Fields:
        """The row's values by role.

        Raises:
            RowError: an expression cannot be evaluated.
        """
        values: Fields = {}
        for role in self.roles:
            if role in columns:
                value = read(columns[role], row)
                if value is not None or columns[role] in row:
                    values[role] = value
            elif role in row:
                values[role] = row[role]
        return values

    def normalise(self, row: dict[str, Any], columns: dict[str, str]) -> Record:
        """The normalised record of a row.

        Raises:
            RowError: with what is wrong.
        """
        fields = self.fields(row, columns)
        missing = [columns.get(role, role) for role in self.required if fields.get(role) is None]
        if missing:
            has = ", ".join(sorted(map(str, row))[:20]) or "none"
            what = "null" if all(column in row for column in missing) else "missing"
            lists = [column for column in missing if column.endswith("[0]")]
            hint = f"; for rows with an empty list, write e.g. {lists[0]} || 'I do not know.'" if lists else ""
            raise RowError(self.absent, f"column {' and '.join(missing)} is {what}{hint}; the row has: {has}"[:600])
        return self.convert(fields)
