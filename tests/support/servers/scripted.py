"""A server that speaks the protocol of OpenAI's chat completions, and says what a test has written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any

from aiohttp import web

from hone_dev.tools.threaded import served

Said = str | tuple[int, dict[str, Any]]
"""The text of an answer, or a status and the body that goes with it."""


class Script:
    """A server that says the next line at each request; the last one again and again."""

    def __init__(self) -> None:
        self.lines: list[Said | Callable[[str], Said | Awaitable[Said]]] = ["…"]
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        body = await request.json()
        self.asked.append(body)
        line = self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]
        shown = body["messages"][-1]["content"]
        said = line(shown) if callable(line) else line
        said = await said if isawaitable(said) else said
        if isinstance(said, tuple):
            return web.json_response(said[1], status=said[0], headers={"Retry-After": "0"})
        whole = not said.endswith("…")
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop" if whole else "length"}
        return web.json_response({"choices": [choice]})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "scripted"}]})


@contextmanager
def scripted() -> Iterator[Script]:
    """A `Script` on loopback, its base URL in `url`."""
    made, app = Script(), web.Application()
    app.router.add_post("/v1/chat/completions", made.answer)
    app.router.add_get("/v1/models", made.models)
    with served(app) as url:
        made.url = f"{url}/v1"
        yield made
