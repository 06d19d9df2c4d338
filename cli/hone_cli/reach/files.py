"""The files of one folder, on loopback of a pod: for `hone download`, which reads them in pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from hone_cli.reach.guard import guarded

FOLDER = web.AppKey("folder", Path)
PREFIX = "/files/"
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_CHUNK = 2**20


def application(folder: Path, token_digest: str, on_request: Callable[[], None] = lambda: None) -> web.Application:
    """Serves what is below the folder, with byte ranges. Links are not followed: what they lead to was not exported."""
    app = guarded(token_digest, _HEADERS, below="/", on_request=on_request)
    app[FOLDER] = folder.resolve()
    app.router.add_get(PREFIX + "{path:.+}", _file)
    return app


async def _file(request: web.Request) -> web.StreamResponse:
    root = request.app[FOLDER]
    path = root / request.match_info["path"]
    try:
        served = path.resolve() == path and path.is_relative_to(root) and path.is_file()
    except (OSError, ValueError):  # a name that no file system takes
        served = False
    if not served:
        raise web.HTTPNotFound(reason="this folder has no such file")
    return web.FileResponse(path, chunk_size=_CHUNK)
