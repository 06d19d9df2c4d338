"""What conversations have in common, whatever their rows call it.

A normalised turn is {role, content}, role one of system, user, assistant, tool; content is always a text. An assistant
turn may have `tool_calls` (content may then be empty) and `weight: 0` (read, not trained); a tool turn `tool_call_id`;
any turn `name`, for templates that show it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hone_trainer.datasets.formats import parts
from hone_trainer.datasets.formats.base import Fields
from hone_trainer.datasets.formats.tools import Tool, tools_of
from hone_trainer.datasets.readers.rows import Record, RowError, optional_text, text_of, type_name

Turn = dict[str, Any]
# Fields of a turn that change its content or whether it is trained.
_MEANINGFUL = ("audio", "image", "images", "video", "videos", "refusal", "train_detail")
_TRAINING = ("train", "training", "trainable", "loss")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_THOUGHTS = ("reasoning_details", "thoughts", "thought", "cot", "chain_of_thought", "rationale", "tool_plan")
"""Keys that providers have for reasoning in other forms, or in addition to a text."""


def turns_of(value: Any, what: str) -> list[Turn]:
    """The raw turns.

    Raises:
        RowError: MissingMessages or WrongType.
    """
    if isinstance(value, dict):
        value = _by_turn(value)
    if value in (None, []):
        raise RowError("MissingMessages", f"{what} has no turn")
    if not isinstance(value, list):
        raise RowError("WrongType", f"{what} is {type_name(value)}, not a list")
    for i, turn in enumerate(value):
        if not isinstance(turn, dict):
            raise RowError("WrongType", f"{what}[{i}] is {type_name(turn)}, not an object")
    return value


def _by_turn(columns: dict[str, Any]) -> Any:
    """Turns whose fields are lists, as `datasets` stores a sequence of objects, as a list of turns; else the value."""
    lists = [value for value in columns.values() if isinstance(value, list)]
    if not columns or len(lists) != len(columns) or len({*map(len, lists)}) != 1:
        return columns
    turns = [dict(zip(columns, fields, strict=True)) for fields in zip(*lists, strict=True)]
    return [{key: value for key, value in turn.items() if value is not None} for turn in turns]


def role_of(value: Any, where: str, roles: dict[str, str]) -> str:
    """The role of a turn under our name.

    Raises:
        RowError: UnknownRole.
    """
    if not isinstance(value, str) or value not in roles:
        raise RowError("UnknownRole", f"{where} is {str(value)[:40]!r}, not one of {', '.join(roles)}")
    return roles[value]


def turn_parts_in(raw: Turn, key: str, role: str, where: str) -> parts.TurnParts:
    """The content of a raw turn under `key`, as a text or in parts, with its reasoning.

    Raises:
        RowError: NotText, WrongType, UnsupportedField or BrokenToolCall.
    """
    content = raw.get(key)
    turn_parts = parts.read(content, f"{where}.{key}")
    if turn_parts is None:
        if content is not None and not isinstance(content, str):
            raise RowError("WrongType", f"{where}.{key} is {type_name(content)}, not text")
        turn_parts = parts.TurnParts([] if content is None else [content])
    thoughts = (optional_text(raw.get(name), f"{where}.{name}") for name in _REASONING)
    turn_parts.reasoning += list(dict.fromkeys(text for text in thoughts if text))
    if turn_parts.reasoning and role != "assistant":
        raise RowError("UnsupportedField", f"{where} has reasoning, but is not the assistant's")
    return turn_parts


def content_of(turn_parts: parts.TurnParts, where: str) -> str | None:
    """The text of a turn, after its reasoning; None if it has none."""
    content = "".join(turn_parts.texts) if turn_parts.texts else None
    return parts.with_reasoning("\n\n".join(turn_parts.reasoning), content, where) if turn_parts.reasoning else content


def normalise_turn(role: str, content: Any, where: str, *, calls: list[Any] | None = None) -> Turn | None:
    """A normalised turn; None for an empty system turn, which counts as absent.

    Raises:
        RowError: MissingContent, EmptyContent, WrongType or NotUTF8.
    """
    if role == "system" and optional_text(content, where) is None:
        return None
    if content is None and not calls:
        raise RowError("MissingContent", f"{where} is missing")
    may_be_empty = calls or role == "tool"
    text = text_of(content, where) if not may_be_empty or content else ""
    return {"role": role, "content": text, **({"tool_calls": calls} if calls else {})}


def refuse_other_meaning(turn: Turn, where: str) -> None:
    """Refuse fields that would change the conversation if they were left out.

    Raises:
        RowError: UnsupportedField.
    """
    for key in _MEANINGFUL:
        if turn.get(key) not in (None, "", [], {}):
            raise RowError("UnsupportedField", f"{where}.{key} is not supported")
    if not any(turn.get(key) for key in _REASONING):
        for key in (key for key in _THOUGHTS if turn.get(key) not in (None, "", [], {})):
            raise RowError(
                "UnsupportedField", f"{where}.{key} seems to be reasoning: call it reasoning_content, or remove it"
            )
    for key in _TRAINING:
        if turn.get(key, True) not in (None, True):  # 1 equals True
            raise RowError("UnsupportedField", f"{where}.{key} is not supported: use weight 0 of format Chat")


def weight_of(raw: Turn) -> Any:
    """The weight of a turn, which LLaMA-Factory calls loss_weight."""
    return raw["weight"] if raw.get("weight") is not None else raw.get("loss_weight")


def is_trained(weight: Any, role: str, where: str) -> bool:
    """False for an assistant turn of weight 0.

    Raises:
        RowError: WrongWeight.
    """
    if weight is None:
        return True
    if isinstance(weight, bool) or weight not in (0, 1):
        shown = f"the text {weight[:40]!r}" if isinstance(weight, str) else str(weight)[:40]
        raise RowError("WrongWeight", f"{where}.weight is {shown}, not 0 or 1")
    if role != "assistant" and weight == 1:
        raise RowError("WrongWeight", f"{where}.weight is 1, but only the assistant's turns are trained")
    return role != "assistant" or weight == 1


def conversation(turns: list[Turn], fields: Fields, what: str) -> Record:
    """The record of normalised turns, with the row's system text and tools.

    A system text of its own column counts only where the turns have none, as in LLaMA-Factory.

    Raises:
        RowError: NoUserTurn, NoAssistantTurn, NothingTrained, UnknownTool, or of the tools.
    """
    messages = list(turns)
    system = optional_text(fields.get("system"), "system")
    if system is not None and not (messages and messages[0]["role"] == "system"):
        messages.insert(0, {"role": "system", "content": system})
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowError("NoAssistantTurn", f"{what} has no assistant turn")
    spoken = [message["role"] for message in messages if message["role"] != "system"]
    if spoken[0] != "user":
        raise RowError("NoUserTurn", f"{what} does not start with a user turn")
    if all(answer.get("weight") == 0 for answer in answers):
        raise RowError("NothingTrained", f"every assistant turn of {what} has weight 0")
    tools = tools_of(fields.get("tools"), "tools") or tools_of(fields.get("functions"), "functions")
    refuse_unknown_tools(answers, tools, what)
    return {"messages": messages, **({"tools": tools} if tools else {})}


def refuse_unknown_tools(answers: Sequence[Turn], tools: list[Tool], what: str) -> None:
    """Refuse calls of tools that the row does not list, where it lists some.

    Raises:
        RowError: UnknownTool.
    """
    tool_names = {tool["function"]["name"] for tool in tools}
    for answer in answers:
        for call in answer.get("tool_calls", ()):
            name = call["function"]["name"]
            if tool_names and name not in tool_names:
                raise RowError(
                    "UnknownTool", f"{what} calls {name[:60]!r}; the tools are {', '.join(sorted(tool_names))}"[:400]
                )


def turns_with(role: str, *keys: str) -> Callable[[Fields], bool]:
    """Recognises rows whose column of this role is a list of objects with these keys."""

    def recognises(fields: Fields) -> bool:
        turns = fields.get(role)
        return (
            isinstance(turns, list)
            and bool(turns)
            and all(isinstance(turn, dict) and turn.keys() >= set(keys) for turn in turns)
        )

    return recognises
