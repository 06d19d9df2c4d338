"""PromptCompletion and Alpaca: one question, one answer.

Alpaca's `input` follows the instruction after a blank line. The frame of the original Alpaca prompt ("Below is an
instruction …") is not added: the model's own chat template is the frame.
"""

from __future__ import annotations

from collections.abc import Callable

from hone_trainer.datasets.formats.base import Fields, RowFormat
from hone_trainer.datasets.rows import Record, RowError, optional_text, text_of

# The end mark of OpenAI's legacy completion files; the encoder adds the model's own.
_LEGACY_END = "<|endoftext|>"


def _record(prompt: str, completion: str, system: str | None) -> Record:
    if system is None:
        return {"prompt": prompt, "completion": completion}
    turns = (("system", system), ("user", prompt), ("assistant", completion))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def _prompt_completion(fields: Fields) -> Record:
    completion = text_of(fields["completion"], "completion").removesuffix(_LEGACY_END)
    if not completion.strip():
        raise RowError("EmptyContent", "completion is empty")
    return _record(text_of(fields["prompt"], "prompt"), completion, optional_text(fields.get("system"), "system"))


def _alpaca(fields: Fields) -> Record:
    instruction = text_of(fields["instruction"], "instruction")
    extra = optional_text(fields.get("input"), "input")
    prompt = f"{instruction}\n\n{extra}" if extra else instruction
    return _record(prompt, text_of(fields["output"], "output"), optional_text(fields.get("system"), "system"))


def _texts(*roles: str) -> Callable[[Fields], bool]:
    return lambda fields: all(isinstance(fields.get(role), str) for role in roles)


PROMPT_COMPLETION = RowFormat(
    name="PromptCompletion",
    required=("prompt", "completion"),
    optional=("system",),
    convert=_prompt_completion,
    recognises=_texts("prompt", "completion"),
    why="texts prompt and completion",
)
ALPACA = RowFormat(
    name="Alpaca",
    required=("instruction", "output"),
    optional=("input", "system"),
    convert=_alpaca,
    recognises=_texts("instruction", "output"),
    why="texts instruction and output",
    refused={"history": "UnsupportedField"},
)
