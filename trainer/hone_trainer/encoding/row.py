"""A row as tokens and labels, and the reasons why a row has none."""

from __future__ import annotations

from dataclasses import dataclass

IGNORED = -100
"""Label of a token that does not count in the loss (torch's ignore_index)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One training row. input_ids and labels have equal length; labels are token ids, or -100 where masked."""

    input_ids: list[int]
    labels: list[int]
    number: int
    """Line of the split's file, from 1; a line can give several rows."""

    @property
    def sequences(self) -> list[list[int]]:
        """Token ids of all that the model reads."""
        return [self.input_ids]

    @property
    def trained(self) -> int:
        """Tokens that count in the loss; nothing predicts the first."""
        return len(self.labels) - self.labels.count(IGNORED) - (self.labels[:1] not in ([], [IGNORED]))

    def cut(self, length: int) -> Row | None:
        """The row's first `length` tokens; None when no label is left."""
        row = Row(self.input_ids[:length], self.labels[:length], self.number)
        return row if row.trained else None

    @property
    def last_tokens(self) -> tuple[int, ...]:
        """The last token, or `IGNORED` where it is not trained."""
        return (self.labels[-1],)

    @property
    def prompt_ids(self) -> list[int]:
        """Token ids before the last trained turn: what the model is given when it is served."""
        end = len(self.labels)
        while end and self.labels[end - 1] == IGNORED:
            end -= 1
        while end and self.labels[end - 1] != IGNORED:
            end -= 1
        return self.input_ids[:end]


class RowRefusedError(Exception):
    """A row that cannot be labelled with certainty; code is one of `REFUSALS`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


REFUSALS = {
    "ControlToken": "Content holds a token that the chat template gives a meaning to, e.g. <|im_end|>.",
    "TemplateRefused": "The chat template raised an error, e.g. for a system turn or for roles that do not alternate.",
    "TurnDropped": "The chat template leaves a system or user turn out of the conversation.",
    "ToolsDropped": "The chat template has no place for the row's tools or tool calls, or leaves some of them out.",
    "NoReasoning": "The prompt of the chat template opens <think>, and the turn has no reasoning: add it, or train "
    "with training.thinking Disabled where the template has that switch.",
    "ReasoningOff": "The prompt of the chat template closes its reasoning, and the turn has one: train with "
    "training.thinking Enabled where the template has that switch.",
    "NotProved": "No part of the rendered conversation is exactly the turn's content and an end-of-turn token.",
    "DoubleBos": "The row would start with two beginning-of-sequence tokens.",
    "NoContent": "The row has no token to train.",
    "SameAnswers": "Chosen and rejected are the same tokens.",
    "TurnsRewritten": "The chat template shows an earlier turn of an answer otherwise than when the model is served.",
    "PromptTooLong": "The prompt leaves no room for an answer of the longest length.",
}
