"""The review as a web server on loopback: a page for people, and the same calls for `hone` itself.

Whoever has the token may decide. The token travels in a header (the page reads it from the fragment of its URL, which
browsers never send), so another site's page cannot use a browser that has it. Host names other than loopback are
refused, so another site's page cannot reach the server under a name that it points here. Requests from another origin
are refused even with the token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.resources import files
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from hone_api.dataset.review import Row, Verdict
from hone_cli.reach.guard import guarded
from hone_cli.review.reviews import Reviews, Status

MAX_BYTES = 8 * 2**20
"""Bytes of a request, which contains an edited row."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGE = {"": ("index.html", "text/html"), "review.js": ("review.js", "text/javascript")}
_PAGE |= {"review.css": ("review.css", "text/css")}

REVIEWS = web.AppKey("reviews", Reviews)


class _Asked(BaseModel):
    """The body of a request. Pydantic's parser limits its depth and accepts only UTF-8."""

    model_config = ConfigDict(extra="ignore")


class _Shown(_Asked):
    skipped: list[str] = Field(default_factory=list)
    row: str | None = None


class _Listed(_Asked):
    status: Status | None = None
    offset: int = Field(default=0, ge=0, le=2**31)


class _Decided(_Asked):
    id: str
    verdict: Verdict
    row: Row | None = None


AnyAsked = TypeVar("AnyAsked", bound=_Asked)


def application(reviews: Reviews, token_digest: str, on_request: Callable[[], None] = lambda: None) -> web.Application:
    """The page at /, the calls below /api. Every answer has the security headers, errors included."""
    app = guarded(token_digest, HEADERS, on_request=on_request, client_max_size=MAX_BYTES)
    app[REVIEWS] = reviews
    for path in _PAGE:
        app.router.add_get(f"/{path}", _page)
    app.router.add_post("/api/state", _state)
    app.router.add_post("/api/list", _list)
    app.router.add_post("/api/decide", _decide)
    app.router.add_post("/api/undo", _undo)
    return app


async def _page(request: web.Request) -> web.Response:
    name, kind = _PAGE[request.path.removeprefix("/")]
    text = files("hone_cli").joinpath("page", name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=kind, charset="utf-8")


async def _body(request: web.Request, kind: type[AnyAsked]) -> AnyAsked:
    return kind.model_validate_json(await request.read())


async def _state(request: web.Request) -> web.Response:
    asked = await _body(request, _Shown)
    state = await asyncio.to_thread(request.app[REVIEWS].state, set(asked.skipped), asked.row)
    return web.json_response(text=state.model_dump_json(by_alias=True))


async def _list(request: web.Request) -> web.Response:
    asked = await _body(request, _Listed)
    listing = await asyncio.to_thread(request.app[REVIEWS].listing, asked.status, asked.offset)
    return web.json_response(text=listing.model_dump_json())


async def _decide(request: web.Request) -> web.Response:
    asked = await _body(request, _Decided)
    await asyncio.to_thread(request.app[REVIEWS].decide, asked.id, asked.verdict, asked.row)
    return web.json_response({})


async def _undo(request: web.Request) -> web.Response:
    return web.json_response({"id": await asyncio.to_thread(request.app[REVIEWS].undo)})
