"""In vLLM's own process, for its `--middleware`: only the pod's follower changes adapters, and no request sees it.

vLLM lets whoever reaches its port load and unload adapters once that is possible at run time. And it can replace an
adapter under the same name in two ways: `load_inplace`, after which every step of a request reads the adapter's files
again (0.31: the request keeps the flag), or unload and load, between which the name is unknown. So requests wait for
the moment between the two.

This file is copied next to vLLM, so it imports the standard library alone.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

TOKEN = "token"
"""File next to this one with the follower's token."""
TOKEN_HEADER, SWAP_HEADER = "x-hone-token", "x-hone-swap"
BEGIN, END = "begin", "end"
LONGEST_SWAP_SECONDS = 60.0
"""Then requests go on, with the adapter or without: the follower may have ended in between."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class AdapterGuard:
    """ASGI middleware."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._token = (Path(__file__).parent / TOKEN).read_bytes()
        self._free = asyncio.Event()
        self._free.set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(TOKEN_HEADER.encode(), b""), self._token):
            await self._of_others(scope, receive, send)
            return
        swap = headers.get(SWAP_HEADER.encode(), b"").decode("latin-1")
        if swap == BEGIN:
            self._free.clear()
        try:
            await self.app(scope, receive, send)
        finally:
            if swap == END:
                self._free.set()

    async def _of_others(self, scope: Message, receive: Receive, send: Send) -> None:
        if "adapter" in scope["path"].lower():
            await _refuse(send)
            return
        if scope["method"] == "POST" and not self._free.is_set():
            try:
                async with asyncio.timeout(LONGEST_SWAP_SECONDS):
                    await self._free.wait()
            except TimeoutError:
                self._free.set()
        await self.app(scope, receive, send)


async def _refuse(send: Send) -> None:
    message = "adapters follow the aliases of Models: change the alias instead"
    body = json.dumps({"error": {"message": message, "type": "Forbidden", "code": 403}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
