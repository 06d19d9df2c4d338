"""What every request to the progress port has in common: its token, its body within limits, and how it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from hone_api import GROUP
from hone_operator.progress.binding import ReportRefusedError

BODY_SECONDS = 10
MAX_TOKEN_BYTES = 8192
CLOSING = frozenset({401, 408, 413})
"""Answers that close the connection, so that guessing tokens costs a TLS handshake each time."""
T = TypeVar("T")


def bearer(request: web.Request) -> str | None:
    """The token of a request; None: it has none that could be valid."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and 0 < len(token) <= MAX_TOKEN_BYTES else None


async def read(request: web.Request, parse: Callable[[bytes], T], most: int) -> T:
    """The body of a request, parsed.

    Raises:
        ReportRefusedError: 400, 408, 413, 422.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return parse(await request.read())
    except web.HTTPRequestEntityTooLarge as error:
        raise ReportRefusedError(413, "RequestEntityTooLarge", f"a report has at most {most} bytes") from error
    except TimeoutError as error:
        raise ReportRefusedError(408, "Timeout", f"the body did not arrive within {BODY_SECONDS} s") from error
    except ConnectionError as error:
        raise ReportRefusedError(400, "BadRequest", "the connection ended in the middle of the body") from error
    except ValidationError as error:
        raise ReportRefusedError(422, "Invalid", _all_errors(error)) from error
    except ValueError as error:
        raise ReportRefusedError(422, "Invalid", f"body: {error}") from error


def _all_errors(error: ValidationError) -> str:
    problems = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_input=False)]
    return "; ".join(problems[:20])


def refuse(refusal: ReportRefusedError, plural: str) -> web.Response:
    """The answer to a request that is refused, as the API server would word it.

    Args:
        plural: of the kind that the request is about.
    """
    body = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": refusal.reason,
        "message": str(refusal),
        "code": refusal.status,
        "details": {"group": GROUP, "kind": plural},
    }
    headers = {"Retry-After": "5"} if refusal.status in (429, 503) else {}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    response = web.json_response(body, status=refusal.status, headers=headers)
    if refusal.status in CLOSING:
        response.force_close()
    return response
