"""A teacher that says known lines behind an OpenAI-compatible API: in a test's process, or as the program of a pod."""

from __future__ import annotations

import os
import sys
from typing import Any

from aiohttp import web

from hone_dev.models import modelserver


class Scripted(modelserver.Model):
    """Answers by the question, and remembers what it was asked.

    Args:
        refused: parts of questions that it refuses, as one does whose context is too short.
    """

    def __init__(self, *refused: str) -> None:
        self.served_as, self._refused = "large", refused
        self.asked: list[tuple[list[dict[str, str]], float, int]] = []

    def answer(self, messages: list[dict[str, str]], temperature: float, length: int, seed: int) -> dict[str, Any]:
        self.asked.append((messages, temperature, length))
        question = messages[-1]["content"]
        if any(part in question for part in self._refused):
            raise modelserver.RequestRefusedError(400, "This model's maximum context length is 8 tokens.")
        reason = "length" if "Rome" in question else "stop"
        text = "" if "Oslo" in question else f"You ask: {question}"
        return {"choices": [{"message": {"content": text}, "finish_reason": reason}]}

    @property
    def questions(self) -> list[str]:
        return [messages[-1]["content"] for messages, _, _ in self.asked]


if __name__ == "__main__":
    application = modelserver.application(Scripted(*sys.argv[1:]), os.environ.get("API_KEY", ""))
    web.run_app(application, host="0.0.0.0", port=8000, print=None)
