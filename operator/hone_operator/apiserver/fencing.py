"""Writes are checked in the step in which they leave: whoever has lost the Lease sends nothing more."""

from collections.abc import Callable
from typing import Any

import aiohttp

UNFENCED = ("/apis/coordination.k8s.io/", "/apis/authorization.k8s.io/", "/apis/authentication.k8s.io/")


def is_write(verb: str, path: str) -> bool:
    """Whether only the holder of the Lease may send this."""
    return verb != "GET" and not path.startswith(UNFENCED)


def fenced(fence: Callable[[], None]) -> aiohttp.TraceConfig:
    """Checks a write again once it has its connection, and when its body is sent.

    It may have waited for a connection while the process was stopped. And aiohttp sends a body and its headers from a
    task of its own: other tasks work in between.
    """
    trace = aiohttp.TraceConfig()

    async def asked(_: Any, request: Any, params: aiohttp.TraceRequestStartParams) -> None:
        request.writes = is_write(params.method, params.url.path)

    async def connected(_: Any, request: Any, params: Any) -> None:
        if request.writes:
            fence()

    trace.on_request_start.append(asked)
    trace.on_connection_reuseconn.append(connected)
    trace.on_connection_create_end.append(connected)
    trace.on_request_chunk_sent.append(connected)  # despite its name it comes before the chunk is sent
    return trace
