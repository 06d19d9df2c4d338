"""PromptCompletion and Alpaca: one question, one answer.

Alpaca's `input` follows the instruction after a blank line, and `history` is the turns before, [[question, answer]],
as in LLaMA-Factory. The frame of the original Alpaca prompt ("Below is an instruction …") is not added: the model's
own chat template is the frame. PromptCompletion also takes TRL's conversational form, both columns lists of messages:
then the completion's turns alone are trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hone_trainer.datasets.formats import chat
from hone_trainer.datasets.formats import conversation as talk
from hone_trainer.datasets.formats.base import Fields, RowFormat
from hone_trainer.datasets.formats.tools import tools_of
from hone_trainer.datasets.formats.unread import LEGACY_END
from hone_trainer.datasets.readers.rows import Record, RowError, optional_text, text_of, type_name


def class_name(column: str, classes: int = 2) -> str:
    """The expression that gives a class its name, for a hint.

    Args:
        classes: their number, from 0.
    """
    names = [f"name of {number}" for number in range(min(classes, 4))] + ["…"] * (classes > 4)
    return f"'name({column}, `{json.dumps(names, ensure_ascii=False)}`)'"


def _record(prompt: str, completion: str, fields: Fields, history: list[talk.Turn] | None = None) -> Record:
    is_pair = not history and optional_text(fields.get("system"), "system") is None
    if is_pair and not tools_of(fields.get("tools"), "tools"):
        return {"prompt": prompt, "completion": completion}
    pair = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return talk.conversation([*(history or []), *pair], fields, "history")


def _prompt_completion(fields: Fields) -> Record:
    prompt, completion = fields["prompt"], fields["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        before = chat.messages_of(prompt, "prompt")
        untrained = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in before]
        return talk.conversation([*untrained, *chat.messages_of(completion, "completion")], fields, "completion")
    if isinstance(completion, int) and not isinstance(completion, bool):
        hint = f"write the name of a class by spec.columns {{completion: {class_name('label')}}}"
        raise RowError("WrongType", f"completion is a number, not text; {hint}")
    text = text_of(completion, "completion").removesuffix(LEGACY_END)
    if not text.strip():
        raise RowError("EmptyContent", "completion is empty")
    return _record(text_of(prompt, "prompt"), text, fields)


def alpaca_pair(instruction: Any, output: Any, extra: Any = None) -> Record:
    """A row of Alpaca without a history as a prompt and a completion; extra: its `input`."""
    prompt, extra = text_of(instruction, "instruction"), optional_text(extra, "input")
    return {
        "prompt": f"{prompt}\n\n{extra}" if extra else prompt,
        "completion": text_of(output, "output"),
    }


def _alpaca(fields: Fields) -> Record:
    pair = alpaca_pair(fields["instruction"], fields["output"], fields.get("input"))
    return _record(pair["prompt"], pair["completion"], fields, _history(fields.get("history")))


def _history(value: Any) -> list[talk.Turn]:
    if value in (None, "", []):
        return []
    if not isinstance(value, list):
        raise RowError("WrongType", f"history is {type_name(value)}, not a list")
    turns: list[talk.Turn] = []
    for i, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError("WrongType", f"history[{i}] is not a pair of question and answer")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            turns.append({"role": role, "content": text_of(text, f"history[{i}]")})
    return turns


def _texts(*roles: str) -> Callable[[Fields], bool]:
    return lambda fields: all(isinstance(fields.get(role), str) for role in roles)


def _texts_or_messages(fields: Fields) -> bool:
    both = [fields.get("prompt"), fields.get("completion")]
    return all(isinstance(value, str) for value in both) or all(isinstance(value, list) for value in both)


PROMPT_COMPLETION = RowFormat(
    name="PromptCompletion",
    required=("prompt", "completion"),
    optional=("system", "tools"),
    convert=_prompt_completion,
    recognises=_texts_or_messages,
    why="prompt and completion",
    is_answered=True,
)
ALPACA = RowFormat(
    name="Alpaca",
    required=("instruction", "output"),
    optional=("input", "system", "history", "tools"),
    convert=_alpaca,
    recognises=_texts("instruction", "output"),
    why="texts instruction and output",
    is_answered=True,
)
