"""Reasoning in assistant turns: rows have it between <think> and </think>, chat templates in fields of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hone_trainer.encoding.tool_calls import Message

THINK = ("<think>\n", "\n</think>\n\n")
"""How reasoning stands before an answer in a row: Qwen3's and DeepSeek-R1's templates read and write it so."""
FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields in which chat templates look for it."""
OPEN, CLOSE = (tag.strip() for tag in THINK)
_REASONING = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
_EMPTY = re.compile(r"\s*<think>\s*</think>\s*")


@dataclass(frozen=True)
class Frame:
    """What a chat template itself writes of a turn, after the prompt of a server."""

    head: str
    """Before the reasoning, or before the content of a turn without reasoning."""
    between: str = ""
    """Between reasoning and content."""

    def parts(self, turn: Message) -> list[str]:
        """The texts that the turn consists of, in their order."""
        if FIELDS[0] in turn:
            return [self.head, turn[FIELDS[0]], self.between, turn["content"]]
        return [self.head, turn["content"]]


def in_fields(messages: Sequence[Message]) -> list[Message]:
    """The turns with their reasoning in the fields that templates read."""
    return [_split_reasoning(message) if message["role"] == "assistant" else message for message in messages]


def _split_reasoning(message: Message) -> Message:
    block = _REASONING.match(message["content"])
    if not block:
        return message
    apart = {**message, "content": message["content"][block.end() :]}
    return apart | (dict.fromkeys(FIELDS, block[1].strip()) if block[1].strip() else {})


def has_block(turn: Message) -> bool:
    """Whether a turn has reasoning, in a field or in its content."""
    return FIELDS[0] in _split_reasoning(turn)


def are_all_of(parts: Sequence[str], text: str) -> bool:
    """Whether the text is these parts, with nothing but white space around each."""
    for part in parts:
        text = text.lstrip()
        if not text.startswith(part.strip()):
            return False
        text = text[len(part.strip()) :]
    return not text.strip()


def before_open_block(prompt: str) -> str | None:
    """A prompt without the <think> that it ends with; None where it does not."""
    text = prompt.rstrip()
    return text.removesuffix(OPEN) if text.endswith(OPEN) else None


def continued(prompt: str, text: str, turn: Message) -> str:
    """The conversation as it goes on after its prompt, where the prompt ends with <think>; otherwise the text.

    Nemotron's template has other white space in the block of a turn than in the prompt. DeepSeek-R1's and EXAONE's
    leave the reasoning of turns out: what the model writes after the prompt is the turn as the row has it.

    Args:
        text: the conversation as the template writes it.
    """
    stem, apart = before_open_block(prompt), _split_reasoning(turn)
    if stem is None or not text.startswith(stem):
        return text
    answer, thought, rest = apart["content"].strip(), apart.get(FIELDS[0], ""), text[len(stem) :].lstrip()
    if thought not in rest:
        rest = _EMPTY.sub("", rest, count=1) if _EMPTY.match(rest) else rest
        return f"{prompt}{thought}{THINK[1]}{rest}" if answer and rest.startswith(answer) else text
    if rest.startswith(OPEN) and not text.startswith(prompt):
        return prompt + rest.removeprefix(OPEN).lstrip()
    return text


def as_row(prompt: str, answer: str) -> str:
    """The answer of a model as a row has it: with the <think> that its prompt ended with, without an empty block."""
    if before_open_block(prompt) is not None:
        answer = THINK[0] + answer.lstrip("\n")
    return _EMPTY.sub("", answer, count=1) if _EMPTY.match(answer) else answer
