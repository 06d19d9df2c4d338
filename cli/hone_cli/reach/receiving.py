"""One file on its way into a volume, on loopback of a pod: for `hone upload`, which sends it in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from hone_cli.reach.guard import guarded
from hone_cli.reach.incoming import PATH, PIECE, Incoming, Received

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def application(
    incoming: Incoming, token_digest: str, *, replace: bool = False, on_request: Callable[[], None] = lambda: None
) -> web.Application:
    """Takes one file: GET says what is there, PUT appends a piece, POST finishes."""
    app = guarded(token_digest, _HEADERS, below="/", on_request=on_request, client_max_size=PIECE + 1)

    async def there(_: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(incoming.begin, replace=replace))

    async def append(request: web.Request) -> web.Response:
        piece = await request.read()
        return _json(await asyncio.to_thread(incoming.append, int(request.query["offset"]), piece))

    async def finish(_: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(incoming.finish))

    app.router.add_get(PATH, there)
    app.router.add_put(PATH, append)
    app.router.add_post(PATH, finish)
    return app


def _json(received: Received) -> web.Response:
    return web.json_response(received.model_dump())
