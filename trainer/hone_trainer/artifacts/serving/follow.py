"""`python -m hone_trainer follow`: next to vLLM in its pod, until the pod ends.

Level-triggered: each pass compares what the operator says, in a mounted ConfigMap, with what vLLM says it has. So a
restart of either container, or a change that was missed, needs nothing else. It has no rights at the API server.

A pass only looks and unloads, so it takes moments. What is missing is copied by one thread and loaded by another, which
looks again right before. What may be served can change while gigabytes are copied, for this name and for others.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from pydantic import ValidationError

from hone_api.base.reading import read_known
from hone_api.contract.served import ServedAliases, key_of
from hone_api.words.failures import FAILURES, FixedBy
from hone_trainer.artifacts.serving import guard
from hone_trainer.artifacts.serving.errand import Errand
from hone_trainer.artifacts.serving.folders import AdapterFolders
from hone_trainer.artifacts.serving.vllm import NotTakenError, Vllm
from hone_trainer.artifacts.serving.wanted import Followed, Wanted, decide
from hone_trainer.errors import TrainerError

log = logging.getLogger("hone.follow")
GUARD = ".guard"
"""Folder with the middleware and its token, among the adapters."""
GUARD_MODULE = "hone_adapter_guard"
PASS_SECONDS = 2.0
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HUNG_SECONDS = 1200.0
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 300.0
_IDLE_SECONDS = 5
_MOST_CONNECTIONS = 64
"""To the port for health: each has a thread."""


@dataclass
class LoadProblem:
    """Why a name is not what its alias says, and when the next attempt to load it is due."""

    digest: str
    message: str
    cause: FixedBy
    """Who can do something about it."""
    attempts: int = 0
    again_at: float = 0.0


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
    _tried: bool = False
    """Since vLLM started, each adapter was loaded, or why it is not was noted."""
    _reported: dict[str, str] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever looks and then decides by it: a pass, or the thread that loads."""
    _changing: str | None = None
    """Name that vLLM is loading an adapter under now; no pass touches it."""
    _stirred: threading.Event = field(default_factory=threading.Event)
    """Something was copied or loaded: the next pass need not wait."""
    _copies: Errand = field(init=False)
    _loads: Errand = field(init=False)

    def __post_init__(self) -> None:
        self._copies, self._loads = Errand("copy", self.clock), Errand("load", self.clock)

    def run(self, stopped: threading.Event) -> None:
        """Pass after pass, until stopped."""
        self.folders.forget_unfinished()
        while not stopped.is_set():
            self._stirred.clear()
            self.step()
            self._stirred.wait(PASS_SECONDS)

    def step(self) -> None:
        """One pass: unload what must go, and begin to copy and load what is missing.

        Raises what ended a thread that copies or loads: the container starts again then.
        """
        self.last_pass = self.clock()
        for error in (self._copies.error, self._loads.error):
            if error is not None:
                raise error
        with self._turn:
            # Not what is loaded or replaced now, nor what vLLM refused to exchange: those may lack for another reason.
            had = {name for name in list(self.serves) if name != self._changing and name not in self.problems}
            try:
                wanted, loaded = self._look()
            except (requests.RequestException, ValueError, KeyError) as error:
                self._try_again()
                self._report("vLLM", f"does not answer yet: {type(error).__name__}")
                return
            self._report("vLLM", "answers")
            if had and had.isdisjoint(loaded):  # it started again between two passes
                self._try_again()
                self.serves = {name: version for name, version in self.serves.items() if name not in had}
            late = [each for each in wanted if not self._settle(each, loaded.get(each.name))]
        self._once_complete = self._once_complete or not late
        self._tried = self._tried or all(self._problem(each) for each in late)
        # A new pod lacks nothing when it takes over. Later, one adapter that cannot be loaded does not take the others.
        self.ready = self._once_complete and self._tried
        if not self._copies.is_busy and not self._loads.is_busy:  # which may be about to use a folder
            used = {each.adapter.digest for each in wanted if each.adapter}
            self.folders.forget(used | {self.folders.digest(path) for path in loaded.values()}, self.clock())
        self._begin(late)

    def status(self) -> Mapping[str, object]:
        """What is served and what is not, for people."""
        return {
            "ready": self.ready,
            "serves": dict(self.serves),
            "problems": {name: problem.message for name, problem in list(self.problems.items())},
        }

    def metrics(self) -> str:
        """The same for Prometheus."""
        names = [each.name for each in self.followed]
        served = [(name, version) for name in names if (version := self.serves.get(name))]
        lines = ["# HELP hone_served ModelVersion that is served under a name.", "# TYPE hone_served gauge"]
        lines += [f'hone_served{{name="{_escaped(name)}",version="{_escaped(version)}"}} 1' for name, version in served]
        lines += [
            "# HELP hone_serve_problem Whether a name is not what its alias says, and who can change that: see /status."
        ]
        lines += ["# TYPE hone_serve_problem gauge"]
        for name in names:
            problem = self.problems.get(name)
            cause = problem.cause if problem else ""
            lines += [f'hone_serve_problem{{name="{_escaped(name)}",cause="{cause}"}} {int(problem is not None)}']
        return "\n".join(lines) + "\n"

    def is_alive(self) -> bool:
        """Whether passes still happen, and copies and loads end."""
        since = (self.last_pass, self._copies.began, self._loads.began)
        return all(self.clock() - began < _HUNG_SECONDS for began in since if began is not None)

    def _try_again(self) -> None:
        """Not be ready until each adapter was tried. What an earlier vLLM refused does not count, nor make one wait."""
        self.ready = self._tried = False
        self.problems.clear()

    def _look(self) -> tuple[list[Wanted], dict[str, str]]:
        """What should be loaded now, and the folder of each name that is."""
        loaded = self.vllm.loaded()
        digests = {name: self.folders.digest(path) for name, path in loaded.items()}
        return decide(self.followed, self._models(), digests, self.base), loaded

    def _models(self) -> dict[str, ServedAliases | None]:
        """What the operator says of each model; None: it cannot be read."""
        models: dict[str, ServedAliases | None] = {}
        for name in {each.model for each in self.followed}:
            try:
                text = (self.aliases / key_of(name)).read_text()
                models[name], _ = read_known(ServedAliases, json.loads(text))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, RecursionError, ValidationError) as error:
                models[name] = None
                self._report(name, f"what may be served of it cannot be read: {type(error).__name__}")
        return models

    def _settle(self, wanted: Wanted, folder: str | None) -> bool:
        """Unload a name if what it is must go; whether it is as wanted now."""
        name, adapter = wanted.name, wanted.adapter
        if name == self._changing:
            return False
        try:
            if adapter is None:
                if folder is None or not wanted.may_stay:
                    self._drop(wanted, folder)
                else:
                    self._report(name, f"stays as it is: {wanted.why}")
                if wanted.is_followed:
                    self.problems[name] = LoadProblem("", wanted.why, wanted.cause)
                return True
            if folder == str(self.folders.path(adapter.digest)):
                self._serve(wanted)
                return True
            is_there = self._is_due(wanted) and self.folders.has(adapter.digest)
            is_next = is_there and (not self._loads.is_busy or self._loads.doing == name)
            if folder is not None and not wanted.may_stay and not is_next:
                self._drop(wanted, folder)  # to copy the next one, or to load others, may take long
        except (NotTakenError, requests.RequestException) as error:
            self._note(wanted, error)
        return False

    def _begin(self, late: Sequence[Wanted]) -> None:
        """Have adapters loaded that are there, first in place of those that must go, and the others copied."""
        due = [(each, each.adapter.digest) for each in late if each.adapter and self._is_due(each)]
        there = sorted((each for each, digest in due if self.folders.has(digest)), key=lambda each: each.may_stay)
        if there and not self._loads.is_busy:
            self._loads.begin([each.name for each in there], self._load, self._stirred.set)
        lacking = [each.name for each, digest in due if not self.folders.has(digest)]
        if lacking and not self._copies.is_busy:
            self._copies.begin(lacking, self._copy, self._stirred.set)

    def _copy(self, name: str) -> None:
        """Copy what a name should be now."""
        for wanted in decide(self.followed, self._models(), {}, self.base):
            if wanted.name == name and wanted.adapter:
                try:
                    self.folders.prepare(wanted.adapter)
                except (TrainerError, OSError, ValueError, TypeError, RecursionError) as error:  # also of an odd config
                    self._note(wanted, error)

    def _load(self, name: str) -> None:
        """Load what a name should be now, if it is there and is not loaded yet."""
        began = self.clock()
        with self._turn:
            wanted, folder = self._now(name)
            if wanted is None or wanted.adapter is None or not self.folders.has(wanted.adapter.digest):
                return
            new = str(self.folders.path(wanted.adapter.digest))
            if new == folder:
                return
            self._changing = name
            if folder is not None and not wanted.may_stay:
                self.serves.pop(name, None)
        try:
            if folder is None:
                self.vllm.load(name, new)
            else:
                self.vllm.replace(name, new, folder, lambda: self._may_stay(name, folder))
            self._serve(wanted)
            self._report(name, f"is {wanted.version}, loaded in {self.clock() - began:.1f} s")
        except (NotTakenError, OSError, ValueError, TypeError, RecursionError) as error:  # also of an odd answer
            self._note(wanted, error)
        finally:
            with self._turn:
                self._changing = None

    def _now(self, name: str) -> tuple[Wanted | None, str | None]:
        """What a name should be, and the folder that it has."""
        try:
            wanted, loaded = self._look()
        except (requests.RequestException, ValueError, KeyError):
            return None, None  # the next pass reports it
        return next((each for each in wanted if each.name == name), None), loaded.get(name)

    def _may_stay(self, name: str, folder: str) -> bool:
        """Whether what is in a folder may be served under a name until the next one is loaded."""
        loaded = {name: self.folders.digest(folder)}
        return any(
            each.may_stay for each in decide(self.followed, self._models(), loaded, self.base) if each.name == name
        )

    def _serve(self, wanted: Wanted) -> None:
        self.serves[wanted.name] = wanted.version
        self.problems.pop(wanted.name, None)

    def _drop(self, wanted: Wanted, folder: str | None) -> None:
        if folder is not None:
            self.vllm.unload(wanted.name)
        self.serves.pop(wanted.name, None)
        self._report(wanted.name, f"is not served: {wanted.why or 'what it was is no longer approved'}")

    def _problem(self, wanted: Wanted) -> LoadProblem | None:
        """What was noted of the adapter that a name should have."""
        problem = self.problems.get(wanted.name)
        digest = wanted.adapter.digest if wanted.adapter else ""
        return problem if problem and problem.digest == digest else None

    def _is_due(self, wanted: Wanted) -> bool:
        problem = self._problem(wanted)
        return problem is None or self.clock() >= problem.again_at

    def _note(self, wanted: Wanted, error: Exception) -> None:
        digest = wanted.adapter.digest if wanted.adapter else ""
        before = self._problem(wanted)
        attempts = before.attempts + 1 if before else 1
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempts - 1, 10))
        message = f"{wanted.version or wanted.name}: {error}"
        self.problems[wanted.name] = LoadProblem(digest, message, _cause_of(error), attempts, self.clock() + wait)
        self._report(wanted.name, f"is not as it should be: {message}")

    def _report(self, subject: str, text: str) -> None:
        """Log what is new."""
        if self._reported.get(subject) != text:
            self._reported[subject] = text
            log.info("%s %s", subject, text)


def _cause_of(error: Exception) -> FixedBy:
    """Who can do something about an adapter that was not copied or loaded."""
    if isinstance(error, TrainerError):
        return FAILURES[error.code].cause
    refused = isinstance(error, NotTakenError) and error.refused
    return FixedBy.USER if refused else FixedBy.PLATFORM


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


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


class _HealthServer(ThreadingHTTPServer):
    """Ends the oldest connection for one too many, so that idle strangers do not keep the kubelet's probe waiting."""

    def __init__(self, *arguments: Any) -> None:
        self._open: dict[Any, None] = {}
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open[request] = None
        for oldest in list(self._open)[:-_MOST_CONNECTIONS]:
            self._open.pop(oldest, None)
            with contextlib.suppress(OSError):  # it has just ended
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)


def serve_health(follower: Follower, port: int) -> ThreadingHTTPServer:
    """Answer /healthz, /readyz, /status and /metrics on all addresses, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _IDLE_SECONDS

        def do_GET(self) -> None:
            answers = {"/healthz": follower.is_alive(), "/readyz": follower.ready, "/status": True, "/metrics": True}
            good, is_metrics = answers.get(self.path), self.path == "/metrics"
            body = (follower.metrics() if is_metrics else json.dumps(follower.status())).encode()
            self.send_response(404 if good is None else 200 if good else 503)
            self.send_header("Content-Type", _METRICS_TYPE if is_metrics else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _HealthServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
