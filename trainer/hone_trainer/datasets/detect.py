"""Auto: the format of rows from the first of them, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.dataset import Format
from hone_trainer.datasets.formats import FORMATS, RowFormat
from hone_trainer.errors import ConfigError, DataError

SAMPLE_ROWS = 100
# Beside a text these are what is to be answered, and the text is no document.
_LABELS = {"category", "label", "intent", "class"}
_TOLD_BY_COLUMNS = (Format.CHAT, Format.SHAREGPT, Format.ALPACA, Format.PROMPT_COMPLETION, Format.TEXT)
# Names in the wild for roles, for a hint: whether an answer is to be learned or checked, nobody can tell.
_MEANT: tuple[dict[str, str], ...] = (
    {"question": "question", "oracle": "oracle_context", "distractors": "context", "answer": "cot_answer"},
    *(
        {"prompt": prompt, "completion": completion}
        for prompt, completion in (
            ("question", "answer"),
            ("query", "response"),
            ("question", "response"),
            ("instruction", "response"),
            ("instruction", "completion"),
            ("prompt", "response"),
            ("input", "output"),
            ("input", "target"),
            ("prompt", "canonical_solution"),
            *(("text", label) for label in sorted(_LABELS)),
        )
    ),
    *({"text": text} for text in ("content", "document", "body", "page_content")),
)


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
    seen = sorted({str(key)[:40] for row in sample for key in row})
    if not columns and _is_labelled_text(sample):
        raise DataError("UnknownFormat", f"the rows have the columns {', '.join(seen[:20])}. {_way_out(sample)}")
    for entry in FORMATS.values():
        if set(columns) <= set(entry.roles) and _share(entry, columns, sample) >= 0.5:
            return Detected(
                entry, f"the first {len(sample)} rows have {_named(entry, columns)}{_idle(entry, columns, seen)}"
            )
    for entry in map(FORMATS.__getitem__, _TOLD_BY_COLUMNS):
        # The columns are there and hold something else: the rows' own errors say what.
        needed = {columns.get(role, role) for role in entry.required}
        if set(columns) <= set(entry.roles) and sum(needed <= row.keys() for row in sample) * 2 > len(sample):
            return Detected(entry, f"the first {len(sample)} rows have the columns {', '.join(sorted(needed))}")
    raise DataError("UnknownFormat", f"the rows have the columns {', '.join(seen[:20]) or 'none'}. {_way_out(sample)}")


def _is_labelled_text(sample: Sequence[dict[str, Any]]) -> bool:
    return bool(sample) and all("text" in row and _LABELS & row.keys() for row in sample)


def _way_out(sample: Sequence[dict[str, Any]]) -> str:
    """What to write, where the columns' names or the only row say what is meant."""
    row = sample[0] if sample else {}
    if len(row) == 1:
        (name, value), *_ = row.items()
        if len(sample) == 1 and isinstance(value, list):
            return f"The file is one object: write the list in {name[:40]!r} itself as the file."
        if separator := next((mark for mark in ";\t|" if mark in name), None):
            return f"Fields seem to be separated by {separator!r}: a .csv has commas, a .tsv tabs."
    for mapping in _MEANT:
        if set(mapping.values()) <= row.keys():
            wanted = ", ".join(f"{role}: {column}" for role, column in mapping.items())
            other = ", or format Text" if "text" in row else ""
            return f"Perhaps spec.columns {{{wanted}}} is meant{other}."
    shapes = "; ".join(f"{entry.name}: {entry.why}" for entry in FORMATS.values())
    return f"Map them in spec.columns to those of a format: {shapes}."


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
