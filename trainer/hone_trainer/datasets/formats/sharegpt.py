"""ShareGPT, which Vicuna was trained on: conversations of {from, value}, under the role names used in the wild.

As FastChat reads them (fastchat/train/train.py), turns before the first human turn are left out: they answer nothing.
As
LLaMA-Factory reads them (data/converter.py), `function_call` is a JSON text {name, arguments}, one or a list of them;
`observation` is what the tool answered, and `tools` a JSON text that lists the tools.
"""

from __future__ import annotations

from typing import Any

from hone_trainer.datasets.formats import conversation as talk
from hone_trainer.datasets.formats.base import Fields, RowFormat
from hone_trainer.datasets.formats.tools import calls_of
from hone_trainer.datasets.readers.rows import Record, RowError

_CALL = "call"
_ROLES = {
    "human": "user",
    "user": "user",
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model"), "assistant"),
    "system": "system",
    **dict.fromkeys(("function_call", "tool_call"), _CALL),
    **dict.fromkeys(("observation", "tool", "tool_response", "function_response", "function", "ipython"), "tool"),
}


def _sharegpt(fields: Fields) -> Record:
    turns = messages_of(fields["conversations"], "conversations")
    return talk.conversation(_from_first_question(turns), fields, "conversations")


def messages_of(value: Any, what: str) -> list[talk.Turn]:
    """ShareGPT's list of turns as normalised turns; whether they make a conversation is not looked at.

    Raises:
        RowError: for the first turn that is wrong.
    """
    turns = [_turn(raw, f"{what}[{i}]") for i, raw in enumerate(talk.turns_of(value, what))]
    return [turn for turn in turns if turn is not None]


def _turn(raw: dict[str, Any], where: str) -> talk.Turn | None:
    name = raw.get("from")
    role = talk.role_of(name.lower() if isinstance(name, str) else name, f"{where}.from", _ROLES)
    talk.refuse_other_meaning(raw, where)
    for key in ("tool_calls", "function_call"):
        if raw.get(key):
            raise RowError("UnsupportedField", f"{where}.{key} is not supported: use a turn of the role function_call")
    value = raw.get("value")
    if role == _CALL:
        turn = talk.normalise_turn("assistant", None, where, calls=calls_of(value, f"{where}.value"))
    else:
        turn_parts = talk.turn_parts_in(raw, "value", role, where)
        if turn_parts.calls or turn_parts.results:
            raise RowError(
                "BrokenToolCall", f"{where}.value has a tool's call in parts: use the roles function_call, observation"
            )
        turn = talk.normalise_turn(role, talk.content_of(turn_parts, where), f"{where}.value")
    if turn is not None and not talk.is_trained(talk.weight_of(raw), turn["role"], where):
        turn["weight"] = 0
    return turn


def _from_first_question(turns: list[talk.Turn]) -> list[talk.Turn]:
    """The turns without what the assistant says before the first user turn, if there is one; system turns stay."""
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), 0)
    return [turn for i, turn in enumerate(turns) if i >= first or turn["role"] == "system"]


SHAREGPT = RowFormat(
    name="ShareGPT",
    required=("conversations",),
    optional=("system", "tools"),
    convert=_sharegpt,
    recognises=talk.turns_with("conversations", "from", "value"),
    why="conversations with from and value",
    absent="MissingMessages",
)
