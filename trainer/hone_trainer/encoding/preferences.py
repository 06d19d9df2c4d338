"""Preferences to token ids: a prompt with two answers, or with one answer and a verdict.

Both answers are labelled by the encoder of conversations (conversation.py), after the same prompt, so the same proof
holds for them: exactly the assistant's turns and their end-of-turn tokens count. In an answer of several turns, what
tools and users say in between is read and does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.row import IGNORED, Row, RowRefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


Mask = list[int]
"""1 for each token of an answer that counts, 0 for those of tools, users and turns of weight 0 in between."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a chosen and a rejected answer, each with its end-of-turn token, as token ids."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    number: int
    """Line of the split's file, from 1."""
    chosen_mask: Mask | None = None
    """As long as chosen_ids; None: every token counts."""
    rejected_mask: Mask | None = None

    @property
    def sequences(self) -> list[list[int]]:
        """The conversation with the chosen answer, and with the rejected one."""
        return [self.prompt_ids + self.chosen_ids, self.prompt_ids + self.rejected_ids]

    @property
    def masks(self) -> list[Mask]:
        """Which tokens of `chosen_ids` and of `rejected_ids` count."""
        return [_mask_or_ones(self.chosen_mask, self.chosen_ids), _mask_or_ones(self.rejected_mask, self.rejected_ids)]

    @property
    def trained(self) -> int:
        """Tokens of both answers that count."""
        return sum(map(sum, self.masks))

    def cut(self, length: int) -> Pair | None:
        """Both conversations cut at their end; None when an answer is lost, or they are no longer different."""
        left = max(length - len(self.prompt_ids), 0)
        chosen, rejected = self.chosen_ids[:left], self.rejected_ids[:left]
        if not all(any(mask[:left]) for mask in self.masks) or chosen == rejected:
            return None
        masks = (None if mask is None else mask[:left] for mask in (self.chosen_mask, self.rejected_mask))
        return Pair(self.prompt_ids, chosen, rejected, self.number, *masks)

    @property
    def last_tokens(self) -> tuple[int, ...]:
        """The last token of each answer, or `IGNORED` where it does not count."""
        return _last(self.chosen_ids, self.chosen_mask), _last(self.rejected_ids, self.rejected_mask)


@dataclass(frozen=True, slots=True)
class Judged:
    """A prompt with one answer and whether it is a good one."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool
    number: int
    """Line of the split's file, from 1; a pair gives two."""
    mask: Mask | None = None
    """As long as completion_ids; None: every token counts."""

    @property
    def sequences(self) -> list[list[int]]:
        """The conversation."""
        return [self.prompt_ids + self.completion_ids]

    @property
    def masks(self) -> list[Mask]:
        """Which tokens of `completion_ids` count."""
        return [_mask_or_ones(self.mask, self.completion_ids)]

    @property
    def trained(self) -> int:
        """Tokens of the answer that count."""
        return sum(self.masks[0])

    def cut(self, length: int) -> Judged | None:
        """The conversation cut at its end; None when the answer is lost."""
        left = max(length - len(self.prompt_ids), 0)
        if not any(self.masks[0][:left]):
            return None
        mask = None if self.mask is None else self.mask[:left]
        return Judged(self.prompt_ids, self.completion_ids[:left], self.label, self.number, mask)

    @property
    def last_tokens(self) -> tuple[int, ...]:
        """The last token of the answer, or `IGNORED` where it does not count."""
        return (_last(self.completion_ids, self.mask),)


Compared = Pair | Judged
"""What methods on preferences learn from."""


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """An answer after its prompt, as token ids; see `Mask`."""

    prompt_ids: list[int]
    ids: list[int]
    mask: Mask | None


class PairEncoder:
    """Records {prompt, chosen, rejected}, texts or lists of turns, to pairs."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._encoder = Encoder(tokenizer)
        self.end_of_turn_ids = self._encoder.end_of_turn_ids

    def takes(self, record: dict[str, Any]) -> str | None:
        """What is wrong with the record's shape, or None."""
        return None if {"prompt", "chosen", "rejected"} <= set(record) else "has not prompt, chosen and rejected"

    def encode(self, record: dict[str, Any], number: int = 1) -> list[Pair]:
        """The pair of a record.

        Raises:
            RowRefusedError: an answer cannot be labelled with certainty, or both are the same tokens.
        """
        tools = record.get("tools", ())
        chosen = self.answer(record["prompt"], record["chosen"], tools)
        rejected = self.answer(record["prompt"], record["rejected"], tools)
        if chosen.prompt_ids != rejected.prompt_ids:
            raise RowRefusedError("NotProved", "the prompt has other tokens before the chosen than before the rejected")
        if chosen.ids == rejected.ids:
            raise RowRefusedError("SameAnswers", "chosen and rejected are the same tokens")
        return [Pair(chosen.prompt_ids, chosen.ids, rejected.ids, number, chosen.mask, rejected.mask)]

    def answer(self, prompt: Any, completion: Any, tools: Sequence[Any] = ()) -> EncodedAnswer:
        """A prompt and its answer: a text, or the turns from the assistant's first to its last.

        Raises:
            RowRefusedError: the answer cannot be labelled with certainty.
        """
        if not isinstance(completion, list):
            (row,) = self._encoder.encode({"prompt": prompt, "completion": completion})
            return _answer(row, _first_trained(row))
        asked = [{**turn, "weight": 0} for turn in prompt]
        rows = self._encoder.encode({"messages": [*asked, *completion], "tools": tools})
        if completion[0].get("weight") == 0:
            (first,) = self._encoder.encode({"messages": [*asked, _trained(completion[0])], "tools": tools})
        else:
            first = rows[0]
        if len(rows) > 1 or rows[0].input_ids[: len(first.input_ids)] != first.input_ids:
            raise RowRefusedError(
                "TurnsRewritten",
                "the chat template shows an earlier turn of the answer otherwise once others follow (Qwen3's removes "
                "its reasoning), so no one sequence is what the model is served: make a row of each assistant turn "
                "that you compare, with the turns before it as the prompt",
            )
        return _answer(rows[0], _first_trained(first))


class JudgedEncoder:
    """Records {prompt, completion, label}, and pairs as a good and a bad answer each."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._pairs = PairEncoder(tokenizer)
        self.end_of_turn_ids = self._pairs.end_of_turn_ids

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
            answers = ((pair.chosen_ids, True, pair.chosen_mask), (pair.rejected_ids, False, pair.rejected_mask))
            return [Judged(pair.prompt_ids, ids, label, number, mask) for ids, label, mask in answers]
        answer = self._pairs.answer(record["prompt"], record["completion"], record.get("tools", ()))
        return [Judged(answer.prompt_ids, answer.ids, record["label"], number, answer.mask)]


def labels(prompt_ids: list[int], answer_ids: list[int], mask: Mask) -> list[int]:
    """The ids of the answer that count, `IGNORED` for all else: as long as prompt and answer."""
    kept = (token if counts else IGNORED for token, counts in zip(answer_ids, mask, strict=True))
    return [IGNORED] * len(prompt_ids) + list(kept)


def _last(ids: list[int], mask: Mask | None) -> int:
    return ids[-1] if mask is None or mask[-1] == 1 else IGNORED


def _mask_or_ones(mask: Mask | None, ids: list[int]) -> Mask:
    return [1] * len(ids) if mask is None else mask


def _trained(turn: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in turn.items() if key != "weight"}


def _first_trained(row: Row) -> int:
    return next(index for index, label in enumerate(row.labels) if label != IGNORED)


def _answer(row: Row, start: int) -> EncodedAnswer:
    """The answer of a row, which begins at `start`."""
    mask = [int(label != IGNORED) for label in row.labels[start:]]
    return EncodedAnswer(row.input_ids[:start], row.input_ids[start:], None if all(mask) else mask)
