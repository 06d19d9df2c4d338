"""The tables of `hone convert`: for each key of another tool the field of Hone, or the reason why there is none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

_FOLDER = Path(__file__).with_name("tables")


class ValueRow(BaseModel):
    """A key whose values have names."""

    model_config = ConfigDict(extra="forbid")

    to: str = ""
    """Target of a value; without it each value names its targets."""
    values: dict[str, Any]
    """Value, or pattern, to what it is here. None: what Hone does anyway. Texts that begin with `differs:`, `dropped:`
    and `refused:` are reasons; `partly:` has a value and a reason. A target `unless KEY` is a reason that holds
    where the source does not have that key in the same place."""


class KeyTable(BaseModel):
    """All keys of a tool. A pattern has `*`, and `[]` for any item of a list."""

    model_config = ConfigDict(extra="forbid")

    title: str
    link: str = ""
    notes: str = ""
    """For its guide."""
    detect: list[str] = []
    """Keys that distinguish it from the tables after it in the alphabet: its configurations have one of them."""
    uses: list[str] = []
    """Tables whose keys it also has."""
    defaults: dict[str, Any] = {}
    """Target to value, where the tool's default is not Hone's."""
    nulls: dict[str, list[str]] = {}
    """Key to the targets whose default does not hold where the source writes null: null is a value of this key."""
    keys: dict[str, str | list[str] | ValueRow] = {}
    """Pattern to target and conversion."""
    dropped: dict[str, list[str]] = {}
    """Reason to patterns: what is learned does not depend on them."""
    differs: dict[str, list[str]] = {}
    """Reason to patterns: what is learned differs if they are set."""
    refused: dict[str, list[str]] = {}
    """Reason to patterns: no job of Hone does this."""

    def row(self, key: str) -> TableRow | None:
        """What the table says of a key; the first exact pattern, then the first that matches."""
        general = re.sub(r"\[\d+\]", "[]", key)
        rows = _rows(self.title)
        return rows.exact.get(general) or next((row for regex, row in rows.patterns if regex.fullmatch(general)), None)

    def rows(self) -> Iterator[tuple[str, TableRow]]:
        """Patterns and what is said of them, its own before those of tables that it uses."""
        yield from ((key, TableRow("keys", target)) for key, target in self.keys.items())
        for kind in ("dropped", "differs", "refused"):
            for reason, keys in getattr(self, kind).items():
                yield from ((key, TableRow(kind, reason)) for key in keys)
        for name in self.uses:
            yield from tables()[name].rows()


class TableRow(NamedTuple):
    """One line of a table."""

    kind: str
    """keys, dropped, differs or refused."""
    to: str | list[str] | ValueRow
    """Targets, or the reason."""
    order: int = 0
    """Its place in the table: a later key writes over what an earlier one wrote."""


class _Rows(NamedTuple):
    exact: dict[str, TableRow]
    patterns: list[tuple[re.Pattern[str], TableRow]]


@cache
def tables() -> dict[str, KeyTable]:
    """The table of each tool by its name in `--from`."""
    import yaml

    return {
        file.stem: KeyTable.model_validate(yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader))
        for file in sorted(_FOLDER.glob("*.yaml"))
    }


@cache
def _rows(title: str) -> _Rows:
    table = next(each for each in tables().values() if each.title == title)
    exact: dict[str, TableRow] = {}
    patterns = []
    for order, (key, each) in enumerate(table.rows()):
        row = each._replace(order=order)
        if "*" in key:
            patterns.append((re.compile(re.escape(key).replace(r"\*", ".*")), row))
        else:
            exact.setdefault(key, row)
    return _Rows(exact, patterns)


def detected(keys: Iterable[str]) -> str | None:
    """The name of the tool whose configuration has these keys."""
    general = {re.sub(r"\[\d+\]", "[]", key) for key in keys}
    for name, table in tables().items():
        if any(key == own or key.startswith((f"{own}.", f"{own}[")) for own in table.detect for key in general):
            return name
    return None
