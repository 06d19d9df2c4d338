"""A split's file to rows of token ids and labels, within the maximal length; everything left out is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_trainer.encoder import IGNORED, Encoder, Row, RowRefusedError
from hone_trainer.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_MAX_ROWS_NAMED = 10


@dataclass
class Refused:
    """Lines refused for one reason, with the first line numbers."""

    count: int = 0
    lines: list[int] = field(default_factory=list)
    example: str = ""


@dataclass
class Counts:
    """What became of a split. Lines are of the file; rows and tokens are of the result unless said otherwise."""

    lines: int = 0
    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    rows_with_end_mark: int = 0
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
    refused: dict[str, Refused] = field(default_factory=dict)
    end_marks: set[int] = field(default_factory=set)
    """Token ids that end a turn: generation must stop at them."""
    prompt_options: dict[str, Any] = field(default_factory=dict)
    """Options of the chat template that prompts need at serving, e.g. {'enable_thinking': False}."""

    def summary(self) -> str:
        """One line for the log."""
        parts = [f"{self.rows} rows, {self.tokens} tokens, {self.trained_tokens} trained"]
        if self.too_long:
            what = f"{self.truncated} truncated, {self.too_long - self.truncated} dropped"
            parts.append(f"{self.too_long} over the maximal length ({what}, {self.tokens_lost} tokens lost)")
        parts += [
            f"{r.count} refused: {code} (e.g. line {r.lines[0]}: {r.example})" for code, r in self.refused.items()
        ]
        return "; ".join(parts)


@dataclass(frozen=True)
class Encoded:
    """A split, ready for the trainer."""

    rows: list[Row]
    counts: Counts


def encode_split(
    path: str | Path,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int | None,
    truncation: str = "Drop",
    train_on: str = "Assistant",
) -> Encoded:
    """Encode a JSON Lines file of normalised rows: {messages}, {prompt, completion} or {text}.

    Args:
        max_length: tokens per row; None for no bound (`counts.longest` tells the need).
        truncation: Drop rows over max_length, Truncate their end, or Refuse the split.
        train_on: Assistant (every assistant turn) or LastAssistant.

    Raises:
        ConfigError: UnsupportedModel, when the tokenizer cannot be used.
        DataError: InvalidRow, RowTooLong (policy Refuse), or NoTrainableRows.
    """
    encoder = Encoder(tokenizer, train_on)
    counts = Counts(end_marks=encoder.end_marks, prompt_options=encoder.prompt_options)
    rows: list[Row] = []
    for number, record in _records(Path(path)):
        counts.lines += 1
        try:
            found = encoder.encode(record, number)
        except RowRefusedError as error:
            _count_refusal(counts, error, number)
            continue
        for row in found:
            counts.longest = max(counts.longest, len(row.input_ids))
            fitted = _fit(row, max_length, truncation, counts, Path(path))
            if fitted is not None:
                _count_row(counts, fitted)
                rows.append(fitted)
    if not rows:
        raise DataError(
            "NoTrainableRows", f"{path}: none of {counts.lines} lines can be trained on: {counts.summary()}"
        )
    return Encoded(rows, counts)


def _fit(row: Row, max_length: int | None, truncation: str, counts: Counts, path: Path) -> Row | None:
    """The row within max_length, or None when the policy or the loss of every label drops it."""
    length = len(row.input_ids)
    if max_length is None or length <= max_length:
        return row
    if truncation == "Refuse":
        message = f"{path.name}, line {row.number}: {length} tokens, training.maxLength is {max_length}"
        raise DataError("RowTooLong", message)
    counts.too_long += 1
    cut = Row(row.input_ids[:max_length], row.labels[:max_length], row.number)
    if truncation == "Drop" or all(label == IGNORED for label in cut.labels):
        counts.without_labels += truncation != "Drop"
        counts.tokens_lost += length
        return None
    counts.truncated += 1
    counts.tokens_lost += length - max_length
    return cut


def _count_row(counts: Counts, row: Row) -> None:
    counts.rows += 1
    counts.tokens += len(row.input_ids)
    counts.trained_tokens += sum(label != IGNORED for label in row.labels)
    counts.rows_with_end_mark += row.labels[-1] in counts.end_marks


def _count_refusal(counts: Counts, error: RowRefusedError, number: int) -> None:
    entry = counts.refused.setdefault(error.code, Refused(example=str(error)))
    entry.count += 1
    if len(entry.lines) < _MAX_ROWS_NAMED:
        entry.lines.append(number)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError("InvalidRow", f"{path}, line {number}: not JSON: {error}") from None
            if not isinstance(record, dict) or not ({"messages", "text"} & set(record) or "completion" in record):
                message = f"{path}, line {number}: has neither messages, nor prompt and completion, nor text"
                raise DataError("InvalidRow", message)
            yield number, record
