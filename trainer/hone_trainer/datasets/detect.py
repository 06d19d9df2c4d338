"""Auto: the format of rows from the first of them, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.dataset import Format
from hone_trainer.datasets.formats import FORMATS, RowFormat
from hone_trainer.errors import ConfigError, DataError

SAMPLE_ROWS = 100
# Shapes that this version does not materialise, by the columns that tell them.
_LATER = (({"chosen", "rejected"}, "Preference"), ({"messages", "label"}, "Preference (unpaired)"))


@dataclass(frozen=True)
class Detected:
    """A format, and for Auto what it was told by."""

    format: RowFormat
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.format.name} (Auto: {self.reason})" if self.reason else self.format.name


def choose(format: str, columns: dict[str, str], sample: Sequence[dict[str, Any]]) -> Detected:
    """The format that was named, or the one that the sample's rows have.

    Args:
        format: a `Format`; Auto looks at the sample.
        columns: role to column.
        sample: the first rows that could be read.

    Raises:
        ConfigError: a format that is not supported yet, or a role that the format does not have.
        DataError: UnknownFormat, naming the columns that were seen.
    """
    if format != Format.AUTO:
        if format not in FORMATS:
            raise ConfigError(f"format {format}: this version has {', '.join(FORMATS)}", "NotSupportedYet")
        found = Detected(FORMATS[format])
    else:
        found = _recognise(columns, sample)
    unknown = sorted(set(columns) - set(found.format.roles))
    if unknown:
        roles = ", ".join(found.format.roles)
        raise ConfigError(f"columns {', '.join(unknown)}: format {found.format.name} has the roles {roles}")
    return found


def _recognise(columns: dict[str, str], sample: Sequence[dict[str, Any]]) -> Detected:
    for names, kind in _LATER:
        if sample and all(names <= row.keys() for row in sample):
            raise ConfigError(
                f"the rows look like {kind} (columns {', '.join(sorted(names))}), which this version does not"
                " materialise: name spec.format to read them otherwise",
                "NotSupportedYet",
            )
    seen = sorted({str(key)[:40] for row in sample for key in row})
    for entry in FORMATS.values():
        if set(columns) <= set(entry.roles) and _share(entry, columns, sample) >= 0.5:
            return Detected(
                entry, f"the first {len(sample)} rows have {_named(entry, columns)}{_idle(entry, columns, seen)}"
            )
    shapes = "; ".join(f"{entry.name}: {entry.why}" for entry in FORMATS.values())
    raise DataError("UnknownFormat", f"the rows have the columns {', '.join(seen[:20]) or 'none'}; formats: {shapes}")


def _share(entry: RowFormat, columns: dict[str, str], sample: Sequence[dict[str, Any]]) -> float:
    """Share of the sample that has the format's shape: a few broken rows must not hide it."""
    return sum(entry.recognises(entry.fields(row, columns)) for row in sample) / len(sample) if sample else 0.0


def _named(entry: RowFormat, columns: dict[str, str]) -> str:
    mapped = [f"{role} in {column}" for role, column in sorted(columns.items()) if role != column]
    return entry.why + (f", {', '.join(mapped)}" if mapped else "")


def _idle(entry: RowFormat, columns: dict[str, str], seen: list[str]) -> str:
    """Columns that are not read, so that nobody takes them for learned."""
    idle = [name for name in seen if name not in {columns.get(role, role) for role in entry.roles}]
    return f"; not read: {', '.join(idle[:5])}{', …' if len(idle) > 5 else ''}" if idle else ""
