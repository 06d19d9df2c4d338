"""Prompts to token ids: what the model is given when it is served, and what its answer is checked against.

A prompt is what a server makes of the turns by the chat template. No label has to be proved, so it does not depend on
an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.plain_text import as_text
from hone_trainer.encoding.row import RowRefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from hone_api.plan import TrainingPlan
    from hone_trainer.models.base_model import Base

KNOWN = ("answer", "tests", "entryPoint", "solution", "recorded")
"""What a record may say of a right answer, and what another model answered."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as token ids, with its record."""

    prompt_ids: list[int]
    record: Mapping[str, Any] = field(hash=False)
    """See `checked_record`."""
    number: int
    """Line of the split's file, from 1."""

    @property
    def sequences(self) -> list[list[int]]:
        """The prompt."""
        return [self.prompt_ids]

    @property
    def trained(self) -> int:
        """Of a prompt no token is trained; 1, so that it counts as a row that can be used."""
        return 1

    def cut(self, length: int) -> Prompt | None:
        """A prompt cannot be cut: it would ask something else."""
        return self if len(self.prompt_ids) <= length else None

    @property
    def last_tokens(self) -> tuple[int, ...]:
        """None: the model learns from its own answers where to end."""
        return ()


class PromptEncoder:
    """Records of questions, with or without answers, to prompts. The last assistant turn is the answer.

    Args:
        longest: most tokens of a prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, longest: int) -> None:
        self._encoder, self._longest = Encoder(tokenizer, "LastAssistant"), longest
        self.end_of_turn_ids = self._encoder.end_of_turn_ids

    @classmethod
    def with_room(cls, plan: TrainingPlan, base: Base, answer: int) -> PromptEncoder:
        """Of prompts that leave room for an answer of so many tokens."""
        return cls(base.tokenizer, (plan.training.max_length or base.context) - answer)

    def takes(self, record: dict[str, Any]) -> str | None:
        """What is wrong with the record's shape, or None."""
        return no_prompt(record)

    def encode(self, record: dict[str, Any], number: int = 1) -> list[Prompt]:
        """The prompt of a record.

        Raises:
            RowRefusedError: the template refuses the turns or leaves one out, or the prompt is too long.
        """
        checked = checked_record(record)
        ids = self._encoder.prompt(checked["prompt"], record.get("tools") or ())
        if len(ids) > self._longest:
            raise RowRefusedError("PromptTooLong", f"{len(ids)} tokens; {self._longest} leave room for an answer")
        return [Prompt(ids, checked, number)]


def no_prompt(record: Mapping[str, Any]) -> str | None:
    """What is wrong with a record that asks nothing, or None."""
    return None if "prompt" in record or "messages" in record else "has neither prompt nor messages"


def checked_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """{prompt: text or turns, and of answer, tests, entryPoint, solution what there is} of any record with a question.

    Without an answer of its own it is the completion, or the chosen one. A conversation is cut before its last
    assistant turn, whose content is the answer.
    """
    columns = {key: record[key] for key in KNOWN if key in record}
    if "messages" not in record:
        answer = as_text(dict(record))[1]
        return {"prompt": record["prompt"], **({} if answer is None else {"answer": answer}), **columns}
    turns = [{key: turn[key] for key in turn if key != "weight"} for turn in record["messages"]]
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=None)
    if last is None:
        return {"prompt": turns, **columns}
    return {"prompt": turns[:last], "answer": turns[last]["content"], **columns}
