"""Chat: OpenAI's fine-tuning format, a line {messages: [{role, content}], tools}.

https://platform.openai.com/docs/guides/supervised-fine-tuning: `weight` 0 or 1 an assistant turn, tool calls, and
their older form with `functions` and `function_call`. `developer` is the newer name of `system`.
"""

from __future__ import annotations

from typing import Any

from hone_trainer.datasets.formats import conversation as talk
from hone_trainer.datasets.formats.base import Fields, RowFormat
from hone_trainer.datasets.formats.tools import Call, calls_of
from hone_trainer.datasets.readers.rows import Record, RowError, text_of

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_ASSISTANTS = {"model": "assistant", "chatbot": "assistant"}
"""Names of Gemini and Cohere."""
_CONTENT_KEYS = ("content", "parts", "message")
"""Keys for the content of a turn in the formats of OpenAI, Gemini and older Cohere."""


def _chat(fields: Fields) -> Record:
    return talk.conversation(messages_of(fields["messages"], "messages"), fields, "messages")


def messages_of(value: Any, what: str) -> list[talk.Turn]:
    """OpenAI's list of messages as normalised turns; whether they make a conversation is not looked at.

    Raises:
        RowError: for the first turn that is wrong.
    """
    turns = [turn for i, raw in enumerate(talk.turns_of(value, what)) for turn in _turns(raw, f"{what}[{i}]")]
    _check_answers(turns)
    return turns


def _turns(raw: dict[str, Any], where: str) -> list[talk.Turn]:
    """The turns of a raw one: where a user's turn has the answers of tools in parts, these come first."""
    name = raw.get("role")
    if isinstance(name, str):
        name = _ASSISTANTS.get(name.lower(), name.lower())
    role = talk.role_of(name, f"{where}.role", _ROLES)
    talk.refuse_other_meaning(raw, where)
    turn_parts = talk.turn_parts_in(raw, next((key for key in _CONTENT_KEYS if key in raw), "content"), role, where)
    calls = [*_calls(raw, where), *turn_parts.calls]
    if calls and role != "assistant":
        raise RowError("BrokenToolCall", f"{where} calls a tool, but is not the assistant's")
    if turn_parts.results and not turn_parts.texts:
        return turn_parts.results
    turn = talk.normalise_turn(role, talk.content_of(turn_parts, where), f"{where}.content", calls=calls or None)
    if turn is None:
        return []
    for key in ("name", *(("tool_call_id",) if role == "tool" else ())):
        if raw.get(key) is not None:
            turn[key] = text_of(raw[key], f"{where}.{key}")
    if not talk.is_trained(talk.weight_of(raw), role, where):
        turn["weight"] = 0
    return [*turn_parts.results, turn]


def _calls(raw: dict[str, Any], where: str) -> list[Call]:
    raw_calls = raw.get("tool_calls") or raw.get("function_call")
    return calls_of(raw_calls, f"{where}.tool_calls") if raw_calls else []


def _check_answers(turns: list[talk.Turn]) -> None:
    """A tool's turn answers a call of the assistant turn before it; ids, where both have them, agree."""
    calls: list[dict[str, Any]] = []
    for turn in turns:
        if turn["role"] != "tool":
            calls = turn.get("tool_calls", [])
            continue
        if not calls:
            raise RowError("BrokenToolCall", "a tool's turn follows no call of a tool")
        ids = {call["id"] for call in calls if "id" in call}
        if ids and turn.get("tool_call_id", next(iter(ids))) not in ids:
            raise RowError("BrokenToolCall", f"tool_call_id {turn['tool_call_id'][:60]!r} matches no earlier call")


CHAT = RowFormat(
    name="Chat",
    required=("messages",),
    optional=("system", "tools", "functions"),
    convert=_chat,
    recognises=talk.turns_with("messages", "role"),
    why="messages with role and content",
    absent="MissingMessages",
)
