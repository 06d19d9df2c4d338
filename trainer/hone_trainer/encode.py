"""Rows to token ids and labels: exactly the assistant content and its end mark, or the row is refused.

How a turn is proved, for any chat template:

1. The prompt is rendered as it is when the model is served: the turns before, and the generation prompt. Its token ids
   must be the first token ids of the conversation that ends with the turn. The turn starts there.
2. From there the tokens up to some added token (the end mark) must decode to the turn's content; only white space
   may differ, at either end. Those tokens and the end mark are trained; what follows (a line break) is not.

Templates without a generation prompt are read by their `{% generation %}` marks, under the same proof.
Templates that rewrite earlier turns (Qwen3 removes their reasoning) give one row per turn, each as it is served.
Labels are set by position, never by token id, so a pad token that equals the end mark changes nothing.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_trainer.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
"""Label of a token that does not count in the loss (torch's ignore_index)."""
_MAX_ROWS_NAMED = 10
# With the second, templates of hybrid reasoning models render the prompt for an answer without reasoning.
_PROMPT_OPTIONS: tuple[dict[str, Any], ...] = ({}, {"enable_thinking": False})

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One training row. input_ids and labels have equal length; labels are token ids, or -100 where masked."""

    input_ids: list[int]
    labels: list[int]
    number: int
    """Line of the split's file, from 1; a line can give several rows."""

    @property
    def prompt_ids(self) -> list[int]:
        """Token ids before the last trained turn: what the model is given when it is served."""
        end = len(self.labels)
        while end and self.labels[end - 1] == IGNORED:
            end -= 1
        while end and self.labels[end - 1] != IGNORED:
            end -= 1
        return self.input_ids[:end]


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


class RowRefusedError(Exception):
    """A row that cannot be labelled with certainty; code is one of `REFUSALS`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


REFUSALS = {
    "ControlToken": "Content holds a token that the chat template gives a meaning to, e.g. <|im_end|>.",
    "TemplateRefused": "The chat template raised an error, e.g. for a system turn or for roles that do not alternate.",
    "NotProved": "No reading of the rendered conversation gives exactly the turn's content and an end mark.",
    "DoubleBos": "The row would start with two beginning-of-sequence tokens.",
    "NoContent": "The row has no token to train.",
}


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


class Encoder:
    """Encodes rows for one tokenizer. `end_marks` and `prompt_options` grow with what was seen."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, train_on: str = "Assistant") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError("the model has no tokenizer.json: a fast tokenizer is needed", "UnsupportedModel")
        if tokenizer.eos_token_id is None:
            raise ConfigError("the model's tokenizer has no end-of-sequence token", "UnsupportedModel")
        self.tokenizer = tokenizer
        self.last_only = train_on == "LastAssistant"
        self.has_template = bool(tokenizer.chat_template)
        self.has_marks = bool(re.search(r"\{%-?\s*generation\s*-?%\}", str(tokenizer.chat_template or "")))
        self.end_marks: set[int] = set()
        self.prompt_options: dict[str, Any] = {}
        added = tokenizer.added_tokens_decoder
        self._added = set(added)
        special = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
        self._special = re.compile("|".join(re.escape(token) for token in sorted(special, key=len, reverse=True)))

    def encode(self, record: dict[str, Any], number: int = 1) -> list[Row]:
        """The rows of one normalised record; several only where the template rewrites earlier turns.

        Raises:
            RowRefusedError: the record cannot be labelled with certainty.
        """
        if "messages" in record:
            return self._chat(record["messages"], number)
        if "prompt" in record and self.has_template:
            pair = [{"role": "user", "content": record["prompt"]}]
            return self._chat([*pair, {"role": "assistant", "content": record["completion"]}], number)
        if "prompt" in record:
            return [self._pair(record["prompt"], record["completion"], number)]
        return [self._text(record["text"], number)]

    def _chat(self, messages: Sequence[Message], number: int) -> list[Row]:
        if not self.has_template:
            raise ConfigError("rows are conversations, but the model has no chat template", "UnsupportedModel")
        for message in messages:
            self._refuse_control_tokens(message["content"])
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise RowRefusedError("NoContent", "no assistant turn")
        rows = [self._last_turn(messages[: i + 1], number) for i in (turns[-1:] if self.last_only else turns)]
        last = rows[-1]
        if all(row.input_ids == last.input_ids[: len(row.input_ids)] for row in rows):
            return [_merge(rows)]
        return rows

    def _last_turn(self, messages: Sequence[Message], number: int) -> Row:
        """The conversation with its last turn trained; it ends with the turn's end mark."""
        content = messages[-1]["content"]
        ids = self._render(messages)
        for start, options in self._starts(messages, ids):
            end = self._end(ids, start, content)
            if end is None:
                continue
            self.prompt_options.update(options)
            self.end_marks.add(ids[end])
            return self._row(ids[: end + 1], start, number)
        raise RowRefusedError(
            "NotProved", f"the template's text is not the turn's content and an end mark: {content[:60]!r}"
        )

    def _starts(self, messages: Sequence[Message], ids: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Candidates for the index of the last turn's first token."""
        for options in _PROMPT_OPTIONS:
            prompt = self._render(messages[:-1], add_generation_prompt=True, **options)
            if ids[: len(prompt)] == prompt:
                yield len(prompt), options
        if self.has_marks:
            out = self._apply(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            mask = out["assistant_masks"]
            if out["input_ids"] == ids and 1 in mask:
                yield _last_run(mask), {}

    def _end(self, ids: list[int], start: int, content: str) -> int | None:
        """Index of the end mark: the first added token before which the tokens decode to the content."""
        expected = _comparable(content)
        for index in range(start + 1, len(ids)):
            if ids[index] in self._added and _comparable(self._decode(ids[start:index])) == expected:
                return index
        return None

    def _pair(self, prompt: str, completion: str, number: int) -> Row:
        """Prompt, completion and end of sequence, for a model without a chat template."""
        self._refuse_control_tokens(prompt)
        self._refuse_control_tokens(completion)
        head = self._without_eos(self._tokenize(prompt))
        whole = self._without_eos(self._tokenize(prompt + completion))
        if whole[: len(head)] != head:  # a token spans the boundary: served prompts end there, so must ours
            whole = head + self.tokenizer(completion, add_special_tokens=False)["input_ids"]
        if _comparable(self._decode(whole[len(head) :])) != _comparable(completion):
            raise RowRefusedError(
                "NotProved", f"the tokens after the prompt are not the completion: {completion[:60]!r}"
            )
        return self._row([*whole, self._eos()], len(head), number)

    def _text(self, text: str, number: int) -> Row:
        """Every token of a document and end of sequence; control tokens in it are plain characters."""
        ids = self._without_eos(self._tokenize(text, split_special_tokens=True))
        return self._row([*ids, self._eos()], 0, number)

    def _row(self, ids: list[int], start: int, number: int) -> Row:
        bos = self.tokenizer.bos_token_id
        if bos is not None and bos != self.tokenizer.eos_token_id and ids[:2] == [bos, bos]:
            raise RowRefusedError("DoubleBos", "the template and the tokenizer both add a beginning-of-sequence token")
        labels = [IGNORED] * start + ids[start:]
        labels[0] = IGNORED  # nothing predicts the first token
        if len(ids) < 2:
            raise RowRefusedError("NoContent", "no token to train")
        return Row(ids, labels, number)

    def _render(self, messages: Sequence[Message], **options: Any) -> list[int]:
        if not messages:
            return []
        return list(self._apply(messages, tokenize=True, return_dict=False, **options))

    def _apply(self, messages: Sequence[Message], **options: Any) -> Any:
        from jinja2.exceptions import TemplateError

        try:
            return self.tokenizer.apply_chat_template(list(messages), **options)
        except TemplateError as error:
            raise RowRefusedError("TemplateRefused", f"the chat template says: {error}") from None

    def _tokenize(self, text: str, **options: Any) -> list[int]:
        return list(self.tokenizer(text, **options)["input_ids"])

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _eos(self) -> int:
        eos = int(self.tokenizer.eos_token_id)
        self.end_marks.add(eos)
        return eos

    def _without_eos(self, ids: list[int]) -> list[int]:
        """Without the end that some tokenizers append; a beginning-of-sequence token stays as the tokenizer sets it."""
        only_bos = len(ids) == 1 and self.tokenizer.bos_token_id == ids[0]
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id and not only_bos else ids

    def _refuse_control_tokens(self, content: str) -> None:
        found = self._special.search(content)
        if found:
            raise RowRefusedError("ControlToken", f"content holds the control token {found.group()!r}")


def _last_run(mask: list[int]) -> int:
    """Index where the last run of ones begins."""
    end = len(mask) - mask[::-1].index(1)
    zeros = mask[:end][::-1]
    return end - zeros.index(0) if 0 in zeros else 0


def _merge(rows: list[Row]) -> Row:
    """The last row, with the trained turns of the earlier ones, which are prefixes of it."""
    last = rows[-1]
    labels = list(last.labels)
    for row in rows[:-1]:
        for index, label in enumerate(row.labels):
            if label != IGNORED:
                labels[index] = label
    return Row(last.input_ids, labels, last.number)


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


def _comparable(text: str) -> str:
    """Text without outer white space, which templates trim, in the Unicode form that tokenizers normalise to."""
    return unicodedata.normalize("NFC", text).strip()
