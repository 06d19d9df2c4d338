"""The review as a web server on loopback: a page for people, and the same calls for `hone` itself.

Who knows the token may decide. It travels in a header alone (the page has it from the fragment of its URL, which
browsers send nowhere), so that no other site's page can use a browser that has it. Names other than loopback in Host
are refused: a page of another site cannot reach the server by a name that it points here.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from hone_api.review import Verdict
from hone_cli.reviews import ReviewError, Reviews

MAX_BYTES = 8 * 2**20
"""Of a request: an edited row."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGE = {"": ("index.html", "text/html"), "review.js": ("review.js", "text/javascript")}
_PAGE |= {"review.css": ("review.css", "text/css")}
_HOSTS = ("127.0.0.1", "localhost")

REVIEWS = web.AppKey("reviews", Reviews)
TOKEN = web.AppKey("token", str)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(reviews: Reviews, token: str, on_request: Callable[[], None] = lambda: None) -> web.Application:
    """The page at /, the calls below /api."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        on_request()
        response = await _guarded(request, handler)
        response.headers.update(_HEADERS)
        return response

    app = web.Application(middlewares=[guarded], client_max_size=MAX_BYTES)
    app[REVIEWS], app[TOKEN] = reviews, token
    for path in _PAGE:
        app.router.add_get(f"/{path}", _page)
    app.router.add_post("/api/state", _state)
    app.router.add_post("/api/decide", _decide)
    app.router.add_post("/api/undo", _undo)
    return app


async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.host.rpartition(":")[0] not in _HOSTS and request.host not in _HOSTS:
        return _error(403, "this server is at 127.0.0.1 alone")
    if request.path.startswith("/api/"):
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(sent.encode(), request.app[TOKEN].encode()):
            return _error(401, "the token is missing or wrong: open the URL that hone printed")
    try:
        return await handler(request)
    except ReviewError as error:
        return _error(409, str(error))
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        return _error(400, f"not a request of this page: {type(error).__name__}")
    except web.HTTPException as error:
        return _error(error.status, error.reason)


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


async def _page(request: web.Request) -> web.Response:
    name, kind = _PAGE[request.path.removeprefix("/")]
    text = files("hone_cli").joinpath("page", name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=kind, charset="utf-8")


async def _body(request: web.Request) -> dict[str, Any]:
    found = await request.json()
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


async def _state(request: web.Request) -> web.Response:
    body = await _body(request)
    reviews = request.app[REVIEWS]
    state = await asyncio.to_thread(reviews.state, {str(id) for id in body.get("skipped", [])}, body.get("row"))
    return web.json_response(text=state.model_dump_json(by_alias=True))


async def _decide(request: web.Request) -> web.Response:
    body = await _body(request)
    await asyncio.to_thread(request.app[REVIEWS].decide, str(body["id"]), Verdict(body["verdict"]), body.get("row"))
    return web.json_response({})


async def _undo(request: web.Request) -> web.Response:
    return web.json_response({"id": await asyncio.to_thread(request.app[REVIEWS].undo)})
