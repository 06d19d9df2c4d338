"""A server in a pod that asks a model: `python -m hone_trainer chat --json`, behind HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from hone_cli.errors import CommandError
from hone_cli.reach.guard import guarded

PATH = "/api/chat"
ENDED = 410
"""Status of an answer after the model's process has ended."""
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_MOST_BYTES = 2**20
"""Of a request."""


class ModelEndedError(CommandError):
    """The process that answers is gone: no further question can be answered."""

    @classmethod
    def of(cls, code: int) -> ModelEndedError:
        """With the exit code of the process, and what to do."""
        if code == -signal.SIGKILL:
            hint = "OutOfMemory: the model's process was killed; give its pod more with --memory, e.g. --memory 16Gi"
        else:
            hint = f"ProcessEnded: the model's process ended with exit code {code}"
        return cls(hint)


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=200_000)]


class Asked(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="forbid", strict=True)
    messages: Annotated[list[Message], Field(min_length=1, max_length=500)]


@dataclass
class Model:
    """A process that answers lines of JSON, one at a time."""

    process: subprocess.Popen[str]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def line(self) -> str:
        """The next line that it says.

        Raises:
            ModelEndedError: it has ended.
        """
        assert self.process.stdout
        if not (text := self.process.stdout.readline()):
            raise ModelEndedError.of(self.process.wait())
        return text

    def ask(self, request: Asked) -> str:
        """Its answer to a request, as JSON."""
        assert self.process.stdin
        with self._lock, contextlib.suppress(BrokenPipeError):
            print(request.model_dump_json(), file=self.process.stdin, flush=True)
            return self.line()
        raise ModelEndedError.of(self.process.wait())


@contextlib.contextmanager
def model(folder: str, base: str | None = None) -> Iterator[Model]:
    """The model of an exported folder, once it is loaded.

    Raises:
        CommandError: it cannot be loaded; the reason is in the pod's log.
    """
    command = [sys.executable, "-m", "hone_trainer", "chat", folder, "--json", *(["--base", base] if base else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            loaded = Model(process)
            loaded.line()
            yield loaded
        finally:
            process.kill()


def application(asked: Model, token_digest: str, on_request: Callable[[], None] = lambda: None) -> web.Application:
    """Answers POST /api/chat {messages} with {base, tuned}."""

    async def answer(request: web.Request) -> web.Response:
        body = Asked.model_validate_json(await request.read())
        try:
            reply = json.loads(await asyncio.to_thread(asked.ask, body))
        except ModelEndedError as error:
            return web.json_response({"error": str(error)}, status=ENDED)
        return web.json_response(reply, status=400 if "error" in reply else 200)

    app = guarded(token_digest, _HEADERS, on_request=on_request, client_max_size=_MOST_BYTES)
    app.router.add_post(PATH, answer)
    return app
