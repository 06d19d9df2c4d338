"""Auto: the format of rows from the first of them, with the reason."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hone_api.dataset.dataset import Format
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.formats import FORMATS, RowFormat, base, expressions
from hone_trainer.datasets.formats.pairs import class_name
from hone_trainer.datasets.formats.shapes import DISTINCT, USUAL, RefusedShape, Shape, judged_of, named_answers
from hone_trainer.datasets.formats.unread import MEDIA, SPANS, has_value, notes, problem, refuse_content
from hone_trainer.datasets.formats.verifiable import answer_text
from hone_trainer.datasets.readers.rows import Record, RowError, label_text
from hone_trainer.errors import ConfigError, DataError

SAMPLE_ROWS = 100
_MOST_PLAIN = 1000
"""Sets of columns whose roles are remembered."""
# Next to a text, these columns are the question, and the text is not a document.
_LABELS = {"category", "label", "intent", "class"}
_ANSWERS = ("answer", "response", "completion", "output", "target", "summary", "highlights", "code", "solution")
"""Next to a text and without a question, these columns are what is learned. Formats have some of these names."""
_ANSWER = re.compile("(?:answer|response|completion)_?([12]|[ab](?![a-z]))", re.IGNORECASE)
"""One of two answers."""
# Names in the wild for roles, for a hint only: their meaning for training is unknown.
_MEANT: tuple[dict[str, str], ...] = (
    {"question": "question", "oracle": "oracle_context", "distractors": "context", "answer": "cot_answer"},
    *({"prompt": "lines(text, question)", "completion": answer} for answer in ("answer", "response")),
    *(
        {"prompt": prompt, "completion": completion}
        for prompt, completion in (
            ("input", "output"),
            ("input", "target"),
            ("prompt", "canonical_solution"),
            *(("text", label) for label in (*sorted(_LABELS), *_ANSWERS)),
        )
    ),
    *({"text": text} for text in ("content", "document", "body", "page_content")),
)
RECORDED = "recorded"
GRADED = frozenset({"answer", RECORDED})
"""Roles of every format, where they are mapped: what rewards compare with, and what another model answered."""
_NO_HEADER = "If the first line of the file is a row already, add a line with the names of the columns before it."


@dataclass(frozen=True)
class Detected:
    """A format, the columns that its roles are read from, and for Auto the evidence."""

    format: RowFormat
    columns: dict[str, str] = field(default_factory=dict)
    """Role to column or expression."""
    ignored: frozenset[str] = frozenset()
    reason: str | None = None
    seen: frozenset[str] | None = None
    """Columns with a value in the sample, for which it is known whether they may be left out; None: not examined."""
    labels: frozenset[str] = frozenset()
    """Labels of format KTO in the sample."""
    notes: tuple[str, ...] = ()
    """What people should know of columns and keys that are not read."""

    def __str__(self) -> str:
        return f"{self.format.name} (Auto: {self.reason})" if self.reason else self.format.name

    @cached_property
    def _known(self) -> frozenset[str]:
        return self.ignored | _read(self.format, self.columns)

    def normalise(self, row: dict[str, Any]) -> Record:
        """The normalised record of a row.

        Raises:
            RowError: with what is wrong.
        """
        names = tuple(row)
        if names not in self._plain and len(self._plain) < _MOST_PLAIN:
            self._plain[names] = self._plain_roles(row.keys())
        if roles := self._plain.get(names):
            fields = {role: row[column] for role, column in roles}
            if None not in fields.values():
                return self.format.convert(fields)
        return self._normalise(row)

    @cached_property
    def _plain(self) -> dict[tuple[str, ...], list[tuple[str, str]] | None]:
        """By the names of a row's columns, as `_plain_roles`."""
        return {}

    def _plain_roles(self, names: Collection[str]) -> list[tuple[str, str]] | None:
        """The roles of rows with these columns, with the column of each; None where their values matter as well:
        for a column that must not be left out, an expression, or labels."""
        columns = [(role, self.columns.get(role, role)) for role in self.format.roles]
        roles = [(role, column) for role, column in columns if column in names]
        is_plain = (
            not self.labels
            and self.seen is not None
            and {*names} <= self.seen
            and {*names}.isdisjoint(self.ignored & {column for _, column in roles})
            and {*names}.isdisjoint({*MEDIA, *SPANS} - self._known)
            and {*self.columns} <= {role for role, _ in roles}
            and {*self.format.required} <= {role for role, _ in roles}
        )
        return roles if is_plain else None

    def is_plain(self, roles: Collection[str]) -> bool:
        """Whether rows that have these roles, and nothing in a column that `matters`, are read by them alone."""
        columns = {self.columns.get(role, role) for role in roles}
        others = {self.columns.get(role, role) for role in self.format.roles if role not in roles}
        is_known = self.seen is not None and columns <= self.seen and not self.labels
        return bool(roles) and is_known and {*self.columns} <= {*roles} and columns.isdisjoint(self.ignored | others)

    def matters(self, column: str) -> bool:
        """Whether a value in this column may change what a row is that has the roles of a plain one."""
        if column in self.ignored:
            return False
        others = {self.columns.get(role, role) for role in self.format.roles} | ({*MEDIA, *SPANS} - self._known)
        return column in others or self.seen is None or column not in self.seen

    def _normalise(self, row: dict[str, Any]) -> Record:
        if self.ignored:
            row = {name: value for name, value in row.items() if name not in self.ignored}
        refuse_content(row, self._known)
        record = self.format.normalise(row, self.columns)
        for role in sorted(self.columns.keys() & GRADED - {*self.format.roles}):  # a line is the same in each process
            if text := answer_text(base.read(self.columns[role], row), role):
                record[role] = text
        self._refuse_late(row)
        if self.labels:
            _refuse_mixed({*self.labels, *_labels(self.format, self.columns, [row])})
        return record

    def _refuse_late(self, row: dict[str, Any]) -> None:
        """Refuse a row with a column that no row of the sample has, and that must not be left out."""
        if self.seen is None or row.keys() <= self.seen:
            return
        late = {name: value for name, value in row.items() if name not in self.seen and has_value(value)}
        if late and (why := problem(self.format, self._known, [late], [_fields(self.format, self.columns, row)])):
            raise RowError(
                "UnsupportedField", f"the first {SAMPLE_ROWS} rows have no column {', '.join(late)}. {why}"[:600]
            )


def choose(
    format: str, columns: dict[str, str], sample: Sequence[dict[str, Any]], ignored: Collection[str] = ()
) -> Detected:
    """The format that was named, or the one that the sample's rows have.

    Args:
        format: a `Format`; Auto looks at the sample.
        columns: role to column or expression.
        sample: the first rows that could be read.
        ignored: columns that are not read on purpose.

    Raises:
        ConfigError: a format that is not supported yet, a role that the format does not have, or a wrong expression.
        DataError: UnknownFormat, naming the columns that were seen; UnreadColumns for a column that must not be
            left out.
    """
    _check_expressions(columns, sample)
    rows = [{name: value for name, value in row.items() if name not in ignored} for row in sample]
    if format == Format.AUTO:
        detected = _recognise({role: text for role, text in columns.items() if role != RECORDED}, rows)
    elif format in FORMATS:
        detected = Detected(FORMATS[format], columns)
    else:
        raise ConfigError(f"format {format}: this version knows {', '.join(FORMATS)}", FailureCode.NOT_SUPPORTED_YET)
    detected = replace(detected, columns={**detected.columns, **columns})
    unknown = sorted(set(columns) - set(detected.format.roles) - GRADED)
    if unknown:
        roles = ", ".join(detected.format.roles)
        raise ConfigError(f"columns {', '.join(unknown)}: format {detected.format.name} has the roles {roles}")
    if why := _left_out(detected, rows):
        raise DataError(FailureCode.UNREAD_COLUMNS, why)
    seen = frozenset(name for row in rows for name, value in row.items() if has_value(value))
    labels = _labels(detected.format, detected.columns, rows) if detected.format.name == Format.KTO else frozenset()
    try:
        _refuse_mixed(labels)
    except RowError as error:
        raise DataError(FailureCode.UNKNOWN_FORMAT, str(error)) from None
    fields = [_fields(detected.format, detected.columns, row) for row in rows]
    left = notes(detected.format, _read(detected.format, detected.columns), rows, fields)
    return replace(detected, ignored=frozenset(ignored), seen=seen, labels=labels, notes=left)


def _labels(entry: RowFormat, columns: dict[str, str], rows: Sequence[dict[str, Any]]) -> frozenset[str]:
    values = (_fields(entry, columns, row).get("label") for row in rows)
    return frozenset(label_text(value) for value in values if value is not None)


def _refuse_mixed(labels: Collection[str]) -> None:
    """Refuse rows with the label 0 together with rows with -1: next to -1, 0 mostly stands for neither good nor bad.

    Raises:
        RowError: WrongLabel.
    """
    if {"0", "-1"} <= {*labels}:
        raise RowError(
            "WrongLabel",
            "some labels are 0 and some are -1, and both alone mean a bad answer. Write what they mean, e.g."
            ' spec.columns {label: \'pick(label, {"1": `true`, "-1": `false`})\'}: rows with another label are refused',
        )


def _left_out(detected: Detected, sample: Sequence[dict[str, Any]]) -> str | None:
    """Why columns of the rows that have the format must not be left out."""
    shaped = [
        row for row in sample if _has_shape(detected.format, detected.columns, row) or _is_accepted(detected, row)
    ]
    fields = [_fields(detected.format, detected.columns, row) for row in shaped]
    read = _read(detected.format, detected.columns)
    if shaped and (judged := judged_of(shaped)) and not {judged[1].label, judged[1].second} & read:
        return judged[1].doubt(judged[0], shaped)
    named = named_answers(shaped) if shaped and detected.format.name == Format.PREFERENCE else None
    if named and not {named[1].first, named[1].second} & read:
        return named[1].doubt(named[0], shaped)
    return problem(detected.format, read, shaped, fields)


def _is_accepted(detected: Detected, row: dict[str, Any]) -> bool:
    """Whether the row is one of the format's, though Auto would not know it: a KTO label of 0 or 1."""
    try:
        detected.normalise(row)
    except RowError:
        return False
    return True


def _check_expressions(columns: dict[str, str], sample: Sequence[dict[str, Any]]) -> None:
    roles = sorted({role for entry in FORMATS.values() for role in entry.roles} | GRADED)
    for role, text in columns.items():
        if role not in roles:
            raise ConfigError(f"columns {role}: no format has this role{_did_you_mean(role, roles)}")
        if any(text in row for row in sample):
            continue
        try:
            expressions.compiled(text)
        except ValueError as error:
            raise ConfigError(
                f"columns.{role}: {text[:100]!r} is neither a column nor an expression: {error}"
            ) from None


def _did_you_mean(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _absent(columns: dict[str, str], sample: Sequence[dict[str, Any]]) -> str:
    """Which plain columns of the mapping no row of the sample has, as a sentence."""
    seen = {str(name) for row in sample for name in row}
    absent = [text for text in columns.values() if text not in seen and expressions.compiled(text) is None]
    return f" No row has the column {absent[0]}{_did_you_mean(absent[0], seen) or '.'}" if absent else ""


def _read(format: RowFormat, columns: dict[str, str]) -> set[str]:
    """The columns that the roles read."""
    named = {name for text in columns.values() for name in {text, *expressions.columns_read(text)}}
    return named | {role for role in format.roles if role not in columns}


def _recognise(columns: dict[str, str], sample: Sequence[dict[str, Any]]) -> Detected:
    seen = sorted({str(key)[:40] for row in sample for key in row})
    if len(sample) == 1 and _is_columns(sample[0]) and "input_ids" not in sample[0]:
        raise DataError(
            FailureCode.UNKNOWN_FORMAT, f"the rows have the columns {', '.join(seen[:20])}. {_way_out(sample)}"
        )
    if not columns and (shape := _shape(DISTINCT, sample)):
        return shape
    if not columns and _is_labelled_text(sample):
        raise DataError(
            FailureCode.UNKNOWN_FORMAT, f"the rows have the columns {', '.join(seen[:20])}. {_way_out(sample)}"
        )
    for entry in FORMATS.values():
        if set(columns) <= set(entry.roles) and _share(entry, columns, sample) >= 0.5:
            if not columns and entry.name == Format.TEXT and (_is_answered_text(sample) or _is_short_text(sample)):
                raise DataError(
                    FailureCode.UNKNOWN_FORMAT, f"the rows have the columns {', '.join(seen[:20])}. {_way_out(sample)}"
                )
            reason = f"{_first_have(sample)} {_named(entry, columns)}{_idle(entry, columns, seen)}"
            return Detected(entry, columns, reason=reason)
    if not columns and (shape := _shape(USUAL, sample)):
        return shape
    for entry in (entry for entry in FORMATS.values() if entry.by_columns):
        # The columns exist but contain something else: the rows' own errors say what.
        needed = {columns.get(role, role) for role in entry.required}
        if set(columns) <= set(entry.roles) and sum(needed <= row.keys() for row in sample) * 2 > len(sample):
            reason = f"{_first_have(sample)} the columns {', '.join(sorted(needed))}"
            return Detected(entry, columns, reason=reason)
    raise DataError(
        FailureCode.UNKNOWN_FORMAT,
        f"the rows have the columns {', '.join(seen[:20]) or 'none'}.{_absent(columns, sample)} {_way_out(sample)}",
    )


def _first_have(sample: Sequence[dict[str, Any]]) -> str:
    return "the first row has" if len(sample) == 1 else f"the first {len(sample)} rows have"


def _shape(shapes: Sequence[Shape | RefusedShape], sample: Sequence[dict[str, Any]]) -> Detected | None:
    """The first of the shapes that most of the rows have.

    Raises:
        DataError: UnknownFormat, for a shape that is refused.
    """
    for shape in shapes:
        if not sample or 2 * sum(map(shape.has, sample)) < len(sample):
            continue
        if isinstance(shape, RefusedShape):
            raise DataError(FailureCode.UNKNOWN_FORMAT, f"These are {shape.name}. {shape.way_out}")
        if shape.judged and (why := shape.judged.doubt(shape.columns["prompt"], list(filter(shape.has, sample)))):
            raise DataError(FailureCode.UNKNOWN_FORMAT, why)
        entry = FORMATS[shape.format]
        seen = sorted({str(key)[:40] for row in sample for key in row})
        reads = ", ".join(f"{role} from {text}" for role, text in shape.columns.items())
        first = "the first row is" if len(sample) == 1 else f"the first {len(sample)} rows are"
        reason = f"{first} {shape.name}: {reads}{_idle(entry, shape.columns, seen)}"
        return Detected(entry, shape.columns, reason=reason)
    return None


def _is_labelled_text(sample: Sequence[dict[str, Any]]) -> bool:
    return bool(sample) and all("text" in row and _LABELS & row.keys() for row in sample)


def _is_answered_text(sample: Sequence[dict[str, Any]]) -> bool:
    """Whether a text stands next to what is probably its answer, or two that it judges."""
    named = [name for name, value in sample[0].items() if isinstance(value, str) and _ANSWER.search(name)]
    return len(named) > 1 or any(
        2 * sum(isinstance(row.get(name), str) for row in sample) > len(sample) for name in _ANSWERS
    )


def _is_short_text(sample: Sequence[dict[str, Any]]) -> bool:
    """Whether most rows have a text ten times as long in another column: then `text` may be a verdict or a title."""
    lengths = [{name: len(value) for name, value in row.items() if isinstance(value, str)} for row in sample]
    return 2 * sum(10 * row.get("text", 0) < max(row.values(), default=0) for row in lengths) > len(sample)


def _way_out(sample: Sequence[dict[str, Any]]) -> str:
    """The mapping to write, if the names of the columns or a single row make it clear."""
    row = sample[0] if sample else {}
    if len(sample) == 1 and (hint := _one_object(row)):
        return hint
    if len(row) == 1:
        (name, *_) = row
        if separator := next((mark for mark in ";\t|" if mark in name), None):
            return f"Fields seem to be separated by {separator!r}: a .csv has commas, a .tsv tabs."
    if (judged := judged_of(sample)) and (why := judged[1].doubt(judged[0], sample)):
        return why
    texts = bool(row) and all(isinstance(value, str) for value in row.values())
    if texts and any(_is_said(name) for name in row):
        return _NO_HEADER
    if "text" in row and _is_short_text(sample):
        longest = max((name for name in row if isinstance(row[name], str)), key=lambda name: len(row[name]))
        return f"The column {longest} is ten times as long as text: map what is learned, or set format Text."
    for mapping in _MEANT:
        if all(expressions.columns_read(column) <= row.keys() for column in mapping.values()):
            if classes := _classes(mapping.get("completion"), sample):
                mapping = {**mapping, "completion": class_name(mapping["completion"], classes)}
            pairs = ", ".join(f"{role}: {_quoted(column)}" for role, column in mapping.items())
            other = ", or format Text" if "text" in row else ""
            return f"Perhaps spec.columns {{{pairs}}} is meant{other}."
    if hint := _in_small_letters(sample):
        return hint
    shapes = "; ".join(f"{entry.name}: {entry.why}" for entry in FORMATS.values())
    header = f" {_NO_HEADER}" if texts and any(name.count(" ") > 1 for name in row) else ""
    return f"Map them in spec.columns to those of a format: {shapes}.{header}"


def _in_small_letters(sample: Sequence[dict[str, Any]]) -> str | None:
    """The mapping to write where columns are known except for capital letters, e.g. Question and Answer of a CSV."""
    names = {str(name).strip().lower(): name for name in (sample[0] if sample else ())}
    if not sample or len(names) < len(sample[0]) or names.keys() == sample[0].keys():
        return None
    try:
        detected = _recognise({}, [{small: row.get(name) for small, name in names.items()} for row in sample])
    except DataError:
        return None
    columns = {role: detected.columns.get(role, role) for role in detected.format.roles}
    mapped = {role: str(names[column]) for role, column in columns.items() if column in names}
    if not {*detected.columns, *detected.format.required} <= mapped.keys():
        return None
    pairs = ", ".join(f"{role}: {_quoted(name)}" for role, name in mapped.items())
    return f"Perhaps spec.columns {{{pairs}}} is meant."


def _quoted(column: str) -> str:
    """As YAML takes it inside braces."""
    is_plain = "," not in column and column == column.strip()
    return column if is_plain or column[0] in "'\"" else f'"{column}"'


def _classes(column: str | None, sample: Sequence[dict[str, Any]]) -> int:
    """How many classes the numbers of the column may stand for; 0: it has something else."""
    values = [row.get(column) for row in sample] if column else []
    numbers = [value for value in values if isinstance(value, int) and not isinstance(value, bool) and value >= 0]
    return max(numbers) + 1 if numbers and len(numbers) == len(values) else 0


def _one_object(row: dict[str, Any]) -> str | None:
    """What to write, where the only row is a whole set."""
    lists = [name for name, value in row.items() if isinstance(value, list)]
    rows = [name for name in lists if row[name] and all(isinstance(one, dict) for one in row[name])]
    if len(rows) == 1 and len(lists) == 1 and not any(isinstance(value, dict) for value in row.values()):
        return f"The file is one object: write the list in {rows[0][:40]!r} itself as the file."
    if _is_columns(row):
        return "The file is one object with a list for each column: write one object for each row."
    if len(row) > 1 and all(isinstance(value, dict) for value in row.values()):
        return "The file is one object with the rows as its values: write them as a list, or one a line."
    return None


def _is_columns(row: dict[str, Any]) -> bool:
    """Whether the row is a table by columns: lists of equal length, with no objects in them."""
    lists = [value for value in row.values() if isinstance(value, list)]
    plain = all(not isinstance(value, dict | list) for values in lists for value in values)
    return len(row) > 1 and len(lists) == len(row) and plain and len({*map(len, lists)}) == 1 and bool(lists[0])


def _is_said(name: str) -> bool:
    """Whether the name of a column is rather a text: a question, a sentence."""
    return len(name) > 60 or (" " in name and name.rstrip().endswith((".", "?", "!")))


def _share(entry: RowFormat, columns: dict[str, str], sample: Sequence[dict[str, Any]]) -> float:
    """Share of the sample that has the format's shape: a few broken rows must not hide it."""
    return sum(_has_shape(entry, columns, row) for row in sample) / len(sample) if sample else 0.0


def _has_shape(entry: RowFormat, columns: dict[str, str], row: dict[str, Any]) -> bool:
    return entry.recognises(_fields(entry, columns, row))


def _fields(entry: RowFormat, columns: dict[str, str], row: dict[str, Any]) -> dict[str, Any]:
    """The row's values by role; none where an expression cannot be evaluated."""
    try:
        return entry.fields(row, columns)
    except RowError:
        return {}


def _named(entry: RowFormat, columns: dict[str, str]) -> str:
    mapped = [f"{role} in {column}" for role, column in sorted(columns.items()) if role != column]
    return entry.why + (f", {', '.join(mapped)}" if mapped else "")


def _idle(entry: RowFormat, columns: dict[str, str], seen: list[str]) -> str:
    """Columns that are not read, so that users notice."""
    idle = [name for name in seen if name not in _read(entry, columns)]
    return f"; not read: {', '.join(idle[:5])}{', …' if len(idle) > 5 else ''}" if idle else ""
