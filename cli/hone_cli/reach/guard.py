"""Who may speak to a server of ours: whoever has the token, by a name of loopback, from no other site's page.

The server has only the token's digest, which may be public.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from pydantic import ValidationError

from hone_cli.errors import CommandError

TOKEN_DIGEST = web.AppKey("token_digest", str)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOOPBACK = "127.0.0.1"
_HOSTS = (LOOPBACK, "localhost")
log = logging.getLogger(__name__)


def digest(token: str) -> str:
    """SHA-256 of a token, hexadecimal. The token is random and long, so it cannot be derived from this."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def guarded(
    token_digest: str,
    headers: Mapping[str, str],
    below: str = "/api/",
    on_request: Callable[[], None] = lambda: None,
    client_max_size: int = 2**16,
) -> web.Application:
    """An application that refuses strangers, and whose every answer has `headers`, errors included; one that sets them
    itself keeps its own.

    Args:
        below: paths that need the token begin with it.
        on_request: called at each request, refused ones included.
        client_max_size: bytes of a request's body.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        on_request()
        response = _refused(request, below) or await _answered(request, handler)
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    app = web.Application(middlewares=[guard], client_max_size=client_max_size)
    app[TOKEN_DIGEST] = token_digest
    return app


def _refused(request: web.Request, below: str) -> web.Response | None:
    """The refusal for callers who may not use the server; None if they may."""
    if request.host.rpartition(":")[0] not in _HOSTS and request.host not in _HOSTS:
        return _error(403, "this server is only at 127.0.0.1")
    if request.headers.get("Origin", origin := f"http://{request.host}") != origin:
        return _error(403, "a page of another origin asks: open the URL that hone printed")
    if request.path.startswith(below):
        sent = digest(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if not hmac.compare_digest(sent, request.app[TOKEN_DIGEST]):
            return _error(401, "the token is missing or wrong: open the URL that hone printed")
    return None


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except CommandError as error:
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
        return _error(500, "the server in the pod has a fault: see its log")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
