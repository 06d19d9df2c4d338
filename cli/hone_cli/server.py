"""The review as a web server on loopback: a page for people, and the same calls for `hone` itself.

Whoever has the token may decide. The server has only its digest, which may be public. The token travels in a header
(the page reads it from the fragment of its URL, which browsers never send), so another site's page cannot use a browser
that has it. Host names other than loopback are refused, so another site's page cannot reach the server under a name
that
it points here. Requests from another origin are refused even with the token.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone_api.review import Row, Verdict
from hone_cli.reviews import ReviewError, Reviews, Status

MAX_BYTES = 8 * 2**20
"""Bytes of a request, which contains an edited row."""
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
TOKEN_DIGEST = web.AppKey("token_digest", str)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


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


def digest(token: str) -> str:
    """SHA-256 of a token, hexadecimal. The token is random and long, so it cannot be derived from this."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def application(reviews: Reviews, token_digest: str, on_request: Callable[[], None] = lambda: None) -> web.Application:
    """The page at /, the calls below /api. Every answer has the security headers, errors included."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        on_request()
        response = _refused(request) or await _answered(request, handler)
        response.headers.update(_HEADERS)
        return response

    app = web.Application(middlewares=[guarded], client_max_size=MAX_BYTES)
    app[REVIEWS], app[TOKEN_DIGEST] = reviews, token_digest
    for path in _PAGE:
        app.router.add_get(f"/{path}", _page)
    app.router.add_post("/api/state", _state)
    app.router.add_post("/api/list", _list)
    app.router.add_post("/api/decide", _decide)
    app.router.add_post("/api/undo", _undo)
    return app


def _refused(request: web.Request) -> web.Response | None:
    """The refusal for callers who may not use the server; None if they may."""
    if request.host.rpartition(":")[0] not in _HOSTS and request.host not in _HOSTS:
        return _error(403, "this server is only at 127.0.0.1")
    if request.headers.get("Origin", origin := f"http://{request.host}") != origin:
        return _error(403, "a page of another origin asks: open the URL that hone printed")
    if request.path.startswith("/api/"):
        sent = digest(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if not hmac.compare_digest(sent, request.app[TOKEN_DIGEST]):
            return _error(401, "the token is missing or wrong: open the URL that hone printed")
    return None


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ReviewError as error:
        return _error(409, str(error))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        return _error(400, f"not a request of this page: {'.'.join(map(str, problem['loc']))} {problem['msg']}")
    except web.HTTPException as error:
        return _error(error.status, error.reason)
    except web.RequestPayloadError:
        return _error(400, "the body of the request cannot be decoded")
    except Exception:
        log.exception("%s %s", request.method, request.rel_url.raw_path)
        return _error(500, "the review's server has a fault: see its log")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


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
