"""A normalised row as people read it."""

from __future__ import annotations

from typing import Any


def as_text(record: dict[str, Any]) -> tuple[str, str | None]:
    """Prompt and answer of a normalised row: of a conversation, its last user and assistant turns.

    Of an answer of several turns it is the first one that is trained: what the prompt asks for. What KTO calls a bad
    answer is none.
    """
    if "messages" in record:
        return _last(record["messages"], "user") or "", _last(record["messages"], "assistant")
    answer = None if record.get("label") is False else record.get("completion", record.get("chosen"))
    if isinstance(answer, list):
        answer = [turn for turn in answer if turn["role"] == "assistant" and turn.get("weight") != 0][:1]
    return _last(record.get("prompt", record.get("text", "")), "user") or "", _last(answer, "assistant")


def _last(value: Any, role: str) -> str | None:
    """A text as it is; of turns, the content of the last one of `role`."""
    if isinstance(value, list):
        return next((turn["content"] for turn in reversed(value) if turn["role"] == role), None)
    return value if isinstance(value, str) else None
