"""Chat (OpenAI's messages) and ShareGPT (conversations): several turns.

Roles are system, user and assistant. Tools, images and weights are refused, not dropped: without them the
conversation would say something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hone_trainer.datasets.formats.base import Fields, RowFormat
from hone_trainer.datasets.rows import Record, RowError, optional_text, text_of, type_name

_TOOL_ROLES = {"tool", "function", "function_call", "observation", "ipython", "tool_call", "tool_response"}
_CHAT_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model"), "assistant"),
}
_TOOL_COLUMNS = {"tools": "ToolCalls", "functions": "ToolCalls"}


def _chat(fields: Fields) -> Record:
    return _conversation(fields["messages"], "messages", "role", "content", _CHAT_ROLES, fields.get("system"))


def _sharegpt(fields: Fields) -> Record:
    return _conversation(
        fields["conversations"], "conversations", "from", "value", _SHAREGPT_ROLES, fields.get("system")
    )


def _conversation(turns: Any, what: str, role_key: str, text_key: str, roles: dict[str, str], system: Any) -> Record:
    if not isinstance(turns, list):
        raise RowError("WrongType", f"{what} is {type_name(turns)}, not a list")
    messages = [_turn(turn, f"{what}[{i}]", role_key, text_key, roles) for i, turn in enumerate(turns)]
    if (prompt := optional_text(system, "system")) is not None:
        messages.insert(0, {"role": "system", "content": prompt})
    spoken = [message["role"] for message in messages if message["role"] != "system"]
    if "assistant" not in spoken:
        raise RowError("NoAssistantTurn", f"{what} has no assistant turn")
    if spoken[0] != "user":
        raise RowError("NoUserTurn", f"{what} does not start with a user turn")
    return {"messages": messages}


def _turn(turn: Any, where: str, role_key: str, text_key: str, roles: dict[str, str]) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise RowError("WrongType", f"{where} is {type_name(turn)}, not an object")
    if turn.get("tool_calls") or turn.get("function_call") or turn.get(role_key) in _TOOL_ROLES:
        raise RowError("ToolCalls", f"{where} calls or answers a tool")
    role = turn.get(role_key)
    if not isinstance(role, str) or role not in roles:
        known = ", ".join(roles)
        raise RowError("UnknownRole", f"{where}.{role_key} is {str(role)[:40]!r}, not one of {known}")
    _refuse_other_fields(turn, where, {role_key, text_key})
    return {"role": roles[role], "content": text_of(_content(turn.get(text_key), where), f"{where}.{text_key}")}


def _refuse_other_fields(turn: dict[str, Any], where: str, known: set[str]) -> None:
    for key, value in turn.items():
        if (
            key in known
            or value is None
            or value in ([], {}, "")
            or (key == "weight" and value == 1 and value is not True)
        ):
            continue
        raise RowError("UnsupportedField", f"{where}.{str(key)[:40]} is not supported")


def _content(content: Any, where: str) -> Any:
    """OpenAI's content parts as one text."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RowError("NotText", f"{where} has content that is not text")
    return "".join(part["text"] for part in content)


def _turns_with(role: str, *keys: str) -> Callable[[Fields], bool]:
    def recognises(fields: Fields) -> bool:
        turns = fields.get(role)
        return (
            isinstance(turns, list)
            and bool(turns)
            and all(isinstance(turn, dict) and turn.keys() >= set(keys) for turn in turns)
        )

    return recognises


CHAT = RowFormat(
    name="Chat",
    required=("messages",),
    optional=("system",),
    convert=_chat,
    recognises=_turns_with("messages", "role", "content"),
    why="messages with role and content",
    refused=_TOOL_COLUMNS,
)
SHAREGPT = RowFormat(
    name="ShareGPT",
    required=("conversations",),
    optional=("system",),
    convert=_sharegpt,
    recognises=_turns_with("conversations", "from", "value"),
    why="conversations with from and value",
    refused=_TOOL_COLUMNS,
)
