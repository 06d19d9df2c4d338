"""A split's file to examples of token ids, within the maximal length; everything left out is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from hone_api.words.failures import FailureCode
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.row import IGNORED, Row, RowRefusedError
from hone_trainer.errors import DataError

__all__ = ["IGNORED", "Counts", "Encoded", "Encoder", "Example", "RecordEncoder", "Row", "encode_split"]
_MAX_ROWS_NAMED = 10
NOT_NORMALISED = (TypeError, ValueError, LookupError, AttributeError)
"""What encoding raises for values of other types than a normalised row has: null, a number, a lone surrogate."""


class Example(Protocol):
    """What the trainer learns from: a row, a pair of answers, a prompt."""

    @property
    def number(self) -> int:
        """Line of the split's file, from 1; a line can give several examples."""

    @property
    def sequences(self) -> list[list[int]]:
        """Token ids of all that the model reads."""

    @property
    def prompt_ids(self) -> list[int]:
        """Token ids that the model is given when it answers; at most one where there is no prompt."""

    @property
    def trained(self) -> int:
        """Tokens that count."""

    def cut(self, length: int) -> Self | None:
        """The example with at most `length` tokens a sequence; None when nothing is left to learn."""

    @property
    def last_tokens(self) -> tuple[int, ...]:
        """The last token of each sequence that ends in an answer; `IGNORED` where it does not count."""


E_co = TypeVar("E_co", bound=Example, covariant=True)


class RecordEncoder(Protocol[E_co]):
    """Normalised records to examples, for one tokenizer."""

    end_of_turn_ids: set[int]
    """Token ids seen to end a turn; grows."""

    def takes(self, record: dict[str, Any]) -> str | None:
        """What is wrong with the record's shape, or None."""

    def encode(self, record: dict[str, Any], number: int) -> Sequence[E_co]:
        """The examples of one record.

        Raises:
            RowRefusedError: the record cannot be encoded with certainty.
        """


@dataclass
class RefusedLines:
    """Lines refused for one reason, with the first line numbers."""

    count: int = 0
    lines: list[int] = field(default_factory=list)
    example: str = ""

    def add(self, later: RefusedLines) -> None:
        """Count lines that follow these in the file."""
        self.count += later.count
        self.lines += later.lines[: _MAX_ROWS_NAMED - len(self.lines)]


@dataclass
class Counts:
    """What became of a split. Lines are of the file; rows and tokens are of the result unless said otherwise."""

    lines: int = 0
    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    """Tokens of the longest row before truncation."""
    too_long: int = 0
    """Rows over max_length, dropped or truncated by the policy."""
    truncated: int = 0
    """Rows cut and kept."""
    without_labels: int = 0
    """Rows dropped because truncation took every trained token."""
    tokens_lost: int = 0
    """Tokens of dropped rows, and tokens cut from truncated ones."""
    refused: dict[str, RefusedLines] = field(default_factory=dict)
    end_of_turn_ids: set[int] = field(default_factory=set)
    """Token ids that end a turn: generation must stop at them."""

    last_tokens: Counter[tuple[int, ...]] = field(default_factory=Counter)
    """How many rows end in which tokens: one for each sequence of a row, `IGNORED` where it is not trained."""

    @property
    def rows_with_end_of_turn(self) -> int:
        """Rows whose every sequence trains an end-of-turn token as its last one."""
        ended = (count for last, count in self.last_tokens.items() if self.end_of_turn_ids.issuperset(last))
        return sum(ended)

    def add(self, later: Counts) -> None:
        """Count lines that follow these in the file."""
        self.lines += later.lines
        self.rows += later.rows
        self.tokens += later.tokens
        self.trained_tokens += later.trained_tokens
        self.longest = max(self.longest, later.longest)
        self.too_long += later.too_long
        self.truncated += later.truncated
        self.without_labels += later.without_labels
        self.tokens_lost += later.tokens_lost
        for code, refused in later.refused.items():
            self.refused.setdefault(code, RefusedLines(example=refused.example)).add(refused)
        self.end_of_turn_ids |= later.end_of_turn_ids
        self.last_tokens.update(later.last_tokens)

    def summary(self, *, examples: bool = True) -> str:
        """One line for the log.

        Args:
            examples: whether it may quote a refused row.
        """
        parts = [f"{self.rows} rows, {self.tokens} tokens, {self.trained_tokens} trained"]
        if self.too_long:
            what = f"{self.truncated} truncated, {self.too_long - self.truncated} dropped"
            parts.append(f"{self.too_long} over the maximal length ({what}, {self.tokens_lost} tokens lost)")
        for code, r in self.refused.items():
            parts.append(f"{r.count} refused: {code} (e.g. line {r.lines[0]}{f': {r.example}' if examples else ''})")
        return "; ".join(parts)


@dataclass(frozen=True)
class Encoded:
    """A split, ready for the trainer."""

    rows: list[Any]
    """Examples, all of one kind."""
    counts: Counts


@dataclass(frozen=True)
class Policy:
    """What becomes of sequences that are too long."""

    max_length: int | None
    """Tokens per sequence; None for no bound."""
    truncation: str = "Drop"
    """Drop rows over max_length, Truncate their end, or Refuse the split."""


def encode_split(
    path: str | Path,
    encoder: RecordEncoder[Example],
    *,
    max_length: int | None,
    truncation: str = "Drop",
) -> Encoded:
    """Encode a JSON Lines file of normalised records.

    Args:
        max_length: tokens per sequence; None for no bound (`counts.longest` tells the need).
        truncation: Drop rows over max_length, Truncate their end, or Refuse the split.

    Raises:
        ConfigError: UnsupportedModel, when the tokenizer cannot be used.
        DataError: InvalidRow, DatasetFormatMismatch, RowTooLong (policy Refuse), or NoTrainableRows.
    """
    counts = Counts(end_of_turn_ids=encoder.end_of_turn_ids)
    policy = Policy(max_length, truncation)
    rows = list(encode_records(records(Path(path)), encoder, policy, Path(path), counts))
    refuse_empty(counts, path)
    return Encoded(rows, counts)


def encode_records(
    numbered: Iterable[tuple[int, dict[str, Any]]],
    encoder: RecordEncoder[Example],
    policy: Policy,
    path: Path,
    counts: Counts,
) -> Iterator[Example]:
    """The examples of normalised records.

    Args:
        numbered: line of the file and record.
        path: the file, for messages.
        counts: grows.

    Raises:
        ConfigError, DataError: as `encode_split`.
    """
    for number, record in numbered:
        counts.lines += 1
        try:
            if wrong := encoder.takes(record):
                raise DataError(FailureCode.DATASET_FORMAT_MISMATCH, f"{path}, line {number}: {wrong}")
            examples = encoder.encode(record, number)
        except RowRefusedError as error:
            _count_refusal(counts, error, number)
            continue
        except NOT_NORMALISED as error:
            what = f"not a row as `materialize` writes it ({type(error).__name__}: {str(error)[:200]})"
            raise DataError(FailureCode.INVALID_ROW, f"{path}, line {number}: {what}") from error
        for row in examples:
            counts.longest = max(counts.longest, longest(row))
            fitted = _fit(row, policy, counts, path)
            if fitted is not None:
                _count_row(counts, fitted)
                yield fitted


def refuse_empty(counts: Counts, path: str | Path) -> None:
    """Refuse a split without a row.

    Raises:
        DataError: NoTrainableRows.
    """
    if not counts.rows:
        raise DataError(
            FailureCode.NO_TRAINABLE_ROWS, f"{path}: none of {counts.lines} lines can be trained on: {counts.summary()}"
        )


def problem(example: Example, vocabulary: int) -> str | None:
    """Why an example cannot be trained on by a model of so many token ids, with its line; None: it can."""
    if (largest := max(map(max, example.sequences))) >= vocabulary:
        return (
            f"line {example.number}: token id {largest} is outside the model's vocabulary of "
            f"{vocabulary}: tokenizer and model do not fit together"
        )
    return None if example.trained else f"line {example.number}: no token counts in the loss"


def longest(example: Example) -> int:
    """Tokens of the example's longest sequence."""
    return max(map(len, example.sequences))


def _fit(row: Example, policy: Policy, counts: Counts, path: Path) -> Example | None:
    """The example within max_length, or None when the policy or the loss of all that counts drops it."""
    length, max_length, truncation = longest(row), policy.max_length, policy.truncation
    if max_length is None or length <= max_length:
        return row
    if truncation == "Refuse":
        message = f"{path.name}, line {row.number}: {length} tokens, training.maxLength is {max_length}"
        raise DataError(FailureCode.ROW_TOO_LONG, message)
    counts.too_long += 1
    cut = row.cut(max_length) if truncation == "Truncate" else None
    counts.tokens_lost += _tokens(row) - (_tokens(cut) if cut else 0)
    counts.without_labels += truncation == "Truncate" and cut is None
    counts.truncated += cut is not None
    return cut


def _tokens(row: Example) -> int:
    return sum(map(len, row.sequences))


def _count_row(counts: Counts, row: Example) -> None:
    counts.rows += 1
    counts.tokens += _tokens(row)
    counts.trained_tokens += row.trained
    counts.last_tokens[row.last_tokens] += 1


def _count_refusal(counts: Counts, error: RowRefusedError, number: int) -> None:
    entry = counts.refused.setdefault(error.code, RefusedLines(example=str(error)))
    entry.count += 1
    if len(entry.lines) < _MAX_ROWS_NAMED:
        entry.lines.append(number)


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line from 1, row) of a split's file.

    Raises:
        DataError: InvalidRow.
    """
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(_lines(file, path), 1):
            yield number, parsed(line, path, number)


def parsed(line: str, path: Path, number: int) -> dict[str, Any]:
    """The row of a line.

    Raises:
        DataError: InvalidRow.
    """
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(FailureCode.INVALID_ROW, f"{path}, line {number}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(FailureCode.INVALID_ROW, f"{path}, line {number}: not an object")
    return record


def _lines(file: Iterable[str], path: Path) -> Iterator[str]:
    number = 0
    try:
        for line in file:
            number += 1
            yield line
    except UnicodeDecodeError as error:
        raise DataError(FailureCode.INVALID_ROW, f"{path}, after line {number}: not UTF-8: {error}") from None
