"""`python -m hone_trainer follow`: next to vLLM in its pod, until the pod ends.

Level-triggered: each pass compares what the operator says, in a mounted ConfigMap, with what vLLM says it has. So a
restart of either container, or a change that was missed, needs nothing else. It has no rights at the API server.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
from pydantic import ValidationError

from hone_api.reading import read_known
from hone_api.served import ServedAliases, key_of
from hone_trainer.artifacts.serving import guard
from hone_trainer.artifacts.serving.folders import AdapterFolders
from hone_trainer.artifacts.serving.vllm import NotTakenError, Vllm
from hone_trainer.artifacts.serving.wanted import Followed, Wanted, decide
from hone_trainer.errors import TrainerError

log = logging.getLogger("hone.follow")
GUARD = ".guard"
"""Folder with the middleware and its token, among the adapters."""
GUARD_MODULE = "hone_adapter_guard"
PASS_SECONDS = 2.0
_HUNG_SECONDS = 1200.0
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 300.0


@dataclass
class LoadProblem:
    """Why the adapter of a name is not loaded, and when the next attempt is due."""

    digest: str
    message: str
    attempts: int
    again_at: float


@dataclass
class Follower:
    """Loads into one vLLM the adapters that aliases point to."""

    followed: Sequence[Followed]
    aliases: Path
    """Where the ConfigMap is mounted."""
    folders: AdapterFolders
    vllm: Vllm
    base: str
    """URI of the served base."""
    clock: Callable[[], float] = time.monotonic
    ready: bool = False
    """vLLM answers, every adapter was loaded once, and was tried again since vLLM started."""
    last_pass: float = 0.0
    serves: dict[str, str] = field(default_factory=dict)
    """ModelVersion of each name, as of the last pass."""
    problems: dict[str, LoadProblem] = field(default_factory=dict)
    _once_complete: bool = False
    _reported: dict[str, str] = field(default_factory=dict)

    def run(self, stopped: threading.Event) -> None:
        """Pass after pass, until stopped."""
        while not stopped.is_set():
            self.step()
            stopped.wait(PASS_SECONDS)

    def step(self) -> None:
        """One pass."""
        self.last_pass = self.clock()
        try:
            loaded = self.vllm.loaded()
        except (requests.RequestException, ValueError, KeyError) as error:
            self.ready = False
            self._report("vLLM", f"does not answer yet: {type(error).__name__}")
            return
        self._report("vLLM", "answers")
        digests = {name: self.folders.digest(path) for name, path in loaded.items()}
        wanted = decide(self.followed, self._models(), digests, self.base)
        settled = [self._settle(each, loaded.get(each.name)) for each in wanted]
        self._once_complete = self._once_complete or all(settled)
        # A new pod lacks nothing when it takes over. Later, one adapter that cannot be loaded does not take the others.
        self.ready = self._once_complete
        used = {each.adapter.digest for each in wanted if each.adapter} | set(digests.values())
        self.folders.forget(used, self.clock())

    def status(self) -> Mapping[str, object]:
        """What is served and what is not, for people."""
        return {
            "ready": self.ready,
            "serves": self.serves,
            "problems": {name: problem.message for name, problem in self.problems.items()},
        }

    def is_alive(self) -> bool:
        """Whether passes still happen."""
        return self.clock() - self.last_pass < _HUNG_SECONDS

    def _models(self) -> dict[str, ServedAliases]:
        models = {}
        for name in {each.model for each in self.followed}:
            try:
                text = (self.aliases / key_of(name)).read_text()
                models[name], _ = read_known(ServedAliases, json.loads(text))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, ValidationError) as error:
                self._report(name, f"what may be served of it cannot be read: {type(error).__name__}")
        return models

    def _settle(self, wanted: Wanted, folder: str | None) -> bool:
        """Load or unload one name; whether it is as wanted now."""
        name, adapter = wanted.name, wanted.adapter
        try:
            if adapter is None:
                self._drop(wanted, folder)
                self.problems.pop(name, None)
                return True
            if folder == str(self.folders.path(adapter.digest)):
                self._serve(wanted)
                return True
            due = self._is_due(name, adapter.digest)
            if folder is not None and not wanted.may_stay and not (due and self.folders.has(adapter.digest)):
                self._drop(wanted, folder)  # to copy the next one first may take long
                folder = None
            if not due:
                return False
            began = self.clock()
            new = str(self.folders.prepare(adapter))
            self._load(wanted, new, folder)
            self._serve(wanted)
            self._report(name, f"is {wanted.version}, loaded in {self.clock() - began:.1f} s")
            return True
        except (NotTakenError, TrainerError, OSError, requests.RequestException) as error:
            self._note(wanted, error)
            return False

    def _load(self, wanted: Wanted, new: str, before: str | None) -> None:
        if before is None:
            self.vllm.load(wanted.name, new)
        elif wanted.may_stay:
            self.vllm.replace(wanted.name, new, before)
        else:
            self.serves.pop(wanted.name, None)
            self.vllm.replace(wanted.name, new, None)

    def _serve(self, wanted: Wanted) -> None:
        self.serves[wanted.name] = wanted.version
        self.problems.pop(wanted.name, None)

    def _drop(self, wanted: Wanted, folder: str | None) -> None:
        if folder is not None:
            self.vllm.unload(wanted.name)
        self.serves.pop(wanted.name, None)
        self._report(wanted.name, f"is not served: {wanted.why or 'what it was is no longer approved'}")

    def _is_due(self, name: str, digest: str) -> bool:
        problem = self.problems.get(name)
        return problem is None or problem.digest != digest or self.clock() >= problem.again_at

    def _note(self, wanted: Wanted, error: Exception) -> None:
        digest = wanted.adapter.digest if wanted.adapter else ""
        before = self.problems.get(wanted.name)
        attempts = before.attempts + 1 if before and before.digest == digest else 1
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempts - 1, 10))
        message = f"{wanted.version or wanted.name}: {error}"
        self.problems[wanted.name] = LoadProblem(digest, message, attempts, self.clock() + wait)
        self._report(wanted.name, f"is not as it should be: {message}")

    def _report(self, subject: str, text: str) -> None:
        """Log what is new."""
        if self._reported.get(subject) != text:
            self._reported[subject] = text
            log.info("%s %s", subject, text)


def install_guard(adapters: Path) -> str:
    """Write the middleware that vLLM imports, and its token; a token that is there stays: vLLM has read it.

    Returns:
        The token.
    """
    folder = adapters / GUARD
    folder.mkdir(mode=0o750, exist_ok=True)
    token = folder / guard.TOKEN
    if not token.exists():
        unfinished = token.with_suffix(".new")
        unfinished.touch(mode=0o600)
        unfinished.write_text(secrets.token_urlsafe(32))
        unfinished.rename(token)
    shutil.copyfile(guard.__file__, folder / f"{GUARD_MODULE}.py")
    return token.read_text()


def serve_health(follower: Follower, port: int) -> ThreadingHTTPServer:
    """Answer /healthz, /readyz and /status on all addresses, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers = {"/healthz": follower.is_alive(), "/readyz": follower.ready, "/status": True}
            good = answers.get(self.path)
            body = json.dumps(follower.status()).encode()
            self.send_response(404 if good is None else 200 if good else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
