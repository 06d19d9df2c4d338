"""Preferences to token ids: a prompt with two answers, or with one answer and a verdict.

Both answers are labelled by the encoder of conversations (encoder.py), each as the last turn after the same prompt, so
the same proof holds for them: exactly the answer and its end mark count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone_trainer.encoder import IGNORED, Encoder, Row, RowRefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a chosen and a rejected answer, each with its end mark, as token ids."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    number: int
    """Line of the split's file, from 1."""

    @property
    def sequences(self) -> list[list[int]]:
        """The conversation with the chosen answer, and with the rejected one."""
        return [self.prompt_ids + self.chosen_ids, self.prompt_ids + self.rejected_ids]

    @property
    def trained(self) -> int:
        """Tokens of both answers."""
        return len(self.chosen_ids) + len(self.rejected_ids)

    def cut(self, length: int) -> Pair | None:
        """Both conversations cut at their end; None when an answer is lost, or they are no longer different."""
        left = length - len(self.prompt_ids)
        chosen, rejected = self.chosen_ids[: max(left, 0)], self.rejected_ids[: max(left, 0)]
        if not chosen or not rejected or chosen == rejected:
            return None
        return Pair(self.prompt_ids, chosen, rejected, self.number)

    def ends_in(self, marks: set[int]) -> bool:
        """Whether both answers end with one of `marks`."""
        return self.chosen_ids[-1] in marks and self.rejected_ids[-1] in marks


@dataclass(frozen=True, slots=True)
class Judged:
    """A prompt with one answer and whether it is a good one."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool
    number: int
    """Line of the split's file, from 1; a pair gives two."""

    @property
    def sequences(self) -> list[list[int]]:
        """The conversation."""
        return [self.prompt_ids + self.completion_ids]

    @property
    def trained(self) -> int:
        """Tokens of the answer."""
        return len(self.completion_ids)

    def cut(self, length: int) -> Judged | None:
        """The conversation cut at its end; None when the answer is lost."""
        completion = self.completion_ids[: max(length - len(self.prompt_ids), 0)]
        return Judged(self.prompt_ids, completion, self.label, self.number) if completion else None

    def ends_in(self, marks: set[int]) -> bool:
        """Whether the answer ends with one of `marks`."""
        return self.completion_ids[-1] in marks


class PairEncoder:
    """Records {prompt, chosen, rejected}, texts or lists of turns, to pairs."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._encoder = Encoder(tokenizer, "LastAssistant")
        self.end_marks, self.prompt_options = self._encoder.end_marks, self._encoder.prompt_options

    def takes(self, record: dict[str, Any]) -> str | None:
        """What is wrong with the record's shape, or None."""
        return None if {"prompt", "chosen", "rejected"} <= set(record) else "has not prompt, chosen and rejected"

    def encode(self, record: dict[str, Any], number: int = 1) -> list[Pair]:
        """The pair of a record.

        Raises:
            RowRefusedError: an answer cannot be labelled with certainty, or both are the same tokens.
        """
        tools = record.get("tools", ())
        prompt, chosen = self.answer(record["prompt"], record["chosen"], tools)
        other, rejected = self.answer(record["prompt"], record["rejected"], tools)
        if prompt != other:
            raise RowRefusedError("NotProved", "the prompt has other tokens before the chosen than before the rejected")
        if chosen == rejected:
            raise RowRefusedError("SameAnswers", "chosen and rejected are the same tokens")
        return [Pair(prompt, chosen, rejected, number)]

    def answer(self, prompt: Any, completion: Any, tools: Sequence[Any] = ()) -> tuple[list[int], list[int]]:
        """Token ids of a prompt, and of the answer with its end mark.

        Raises:
            RowRefusedError: the answer cannot be labelled with certainty.
        """
        if isinstance(completion, list):
            rows = self._encoder.encode({"messages": [*prompt, *completion], "tools": tools})
        else:
            rows = self._encoder.encode({"prompt": prompt, "completion": completion})
        return _split(rows[-1])


class JudgedEncoder:
    """Records {prompt, completion, label}, and pairs as a good and a bad answer each."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._pairs = PairEncoder(tokenizer)
        self.end_marks, self.prompt_options = self._pairs.end_marks, self._pairs.prompt_options

    def takes(self, record: dict[str, Any]) -> str | None:
        """What is wrong with the record's shape, or None."""
        if {"prompt", "completion", "label"} <= set(record) and not isinstance(record["label"], bool):
            return f"has the label {record['label']!r}, which is neither true nor false"
        if {"prompt", "completion", "label"} <= set(record) or self._pairs.takes(record) is None:
            return None
        return "has neither prompt, completion and label, nor prompt, chosen and rejected"

    def encode(self, record: dict[str, Any], number: int = 1) -> Sequence[Judged]:
        """The judged answers of a record: one, or of a pair two.

        Raises:
            RowRefusedError: an answer cannot be labelled with certainty.
        """
        if "label" not in record:
            (pair,) = self._pairs.encode(record, number)
            answers = ((pair.chosen_ids, True), (pair.rejected_ids, False))
            return [Judged(pair.prompt_ids, ids, label, number) for ids, label in answers]
        prompt, completion = self._pairs.answer(record["prompt"], record["completion"], record.get("tools", ()))
        return [Judged(prompt, completion, record["label"], number)]


def _split(row: Row) -> tuple[list[int], list[int]]:
    """Prompt and answer of a row whose last turn alone is trained."""
    start = len(row.prompt_ids)
    if IGNORED in row.labels[start:] or not start:
        raise RowRefusedError("NotProved", "the answer does not follow a prompt")
    return row.prompt_ids, row.input_ids[start:]
