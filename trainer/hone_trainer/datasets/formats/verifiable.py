"""Verifiable: a question with what its answer is checked by: the right answer, or tests of a program.

The normalised record is {prompt, and of answer, tests, entryPoint, solution what the row has}; prompt is a text or
turns. The shapes are those of GSM8K (question, answer), HumanEval and MBPP (prompt, entry_point, canonical_solution,
test), each under `columns`.
"""

from __future__ import annotations

from typing import Any

from hone_trainer.datasets.formats import chat
from hone_trainer.datasets.formats.base import Fields, RowFormat
from hone_trainer.datasets.readers.rows import Record, RowError, canonical, optional_text, text_of

CHECKED_BY = ("answer", "tests")


def _verifiable(fields: Fields) -> Record:
    fields_used = {
        "answer": answer_text(fields.get("answer"), "answer"),
        "tests": _tests(fields.get("tests")),
        "entryPoint": optional_text(fields.get("entryPoint"), "entryPoint"),
        "solution": optional_text(fields.get("solution"), "solution"),
    }
    if not any(fields_used[name] for name in CHECKED_BY):
        raise RowError("MissingColumn", "the row has neither answer nor tests: nothing to check an answer by")
    return {"prompt": _prompt(fields), **{name: value for name, value in fields_used.items() if value}}


def _prompt(fields: Fields) -> Any:
    """A text as it is; with a system text, or from a list, turns whose last is not the assistant's."""
    prompt, system = fields["prompt"], optional_text(fields.get("system"), "system")
    if not isinstance(prompt, list):
        text = text_of(prompt, "prompt")
        if system is None:
            return text
        return [{"role": "system", "content": system}, {"role": "user", "content": text}]
    turns = chat.messages_of(prompt, "prompt")
    if system is not None:
        turns = [{"role": "system", "content": system}, *turns]
    if not any(turn["role"] == "user" for turn in turns):
        raise RowError("NoUserTurn", "the prompt has no user turn")
    if turns[-1]["role"] == "assistant":
        raise RowError("UnsupportedField", "the prompt ends with the assistant's turn: it is the model's to answer")
    return turns


def answer_text(value: Any, role: str) -> str | None:
    """An answer as text: an object, as OpenAI's graders compare with, is written as JSON."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, dict) and value:
        return canonical(value)
    return optional_text(value, role)


def _tests(value: Any) -> str | None:
    """One program; a list of assertions, as MBPP has them, is joined."""
    if isinstance(value, list):
        return "\n".join(text_of(line, f"tests[{i}]") for i, line in enumerate(value)) or None
    return optional_text(value, "tests")


def _recognises(fields: Fields) -> bool:
    has_prompt = isinstance(fields.get("prompt"), str | list)
    return has_prompt and (bool(fields.get("tests")) or fields.get("answer") not in (None, ""))


VERIFIABLE = RowFormat(
    name="Verifiable",
    required=("prompt",),
    optional=(*CHECKED_BY, "entryPoint", "solution", "system"),
    convert=_verifiable,
    recognises=_recognises,
    why="a prompt, and an answer or tests",
    by_columns=False,
    is_answered=True,
)
