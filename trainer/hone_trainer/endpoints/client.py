"""An OpenAI-compatible endpoint: chat completions under limits, retried while that can help.

The address is checked and pinned like that of https:// sources; a Service of the cluster may have a private one. No
redirect is followed and no proxy used, so the key goes only to the host that the spec names.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.addresses import PRIVATE_WAY_OUT, AllowedNetwork, is_own
from hone_trainer.endpoints.http import Resolver, pool_of, resolve, timeout_until
from hone_trainer.endpoints.usage import Usage
from hone_trainer.errors import ConfigError, SourceError
from hone_trainer.store.ranged import TRIES, pause_after

Message = Mapping[str, str]
_Asked = TypeVar("_Asked")
_Told = TypeVar("_Told")
_MOST_WORDS = 300
"""Characters of a server's message in ours."""
_TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
_OF_THE_PROMPT = {400, 413, 422}
"""From a filter, or for a prompt that is too long: another prompt may be answered. After 401, 403 or 404 none would
be."""
MOST_REFUSED_PERCENT = 5
"""Percent of all prompts. A few refused prompts are outliers. If more are refused, server and prompts do not fit
together, and the answers to the others would be a biased selection."""
FEWEST_JUDGED = 500
"""Prompts before the share so far decides: answers cost money, so the run does not wait until all were sent."""
_NEW_NAME = "max_completion_tokens"
"""OpenAI's name for max_tokens in its newer models; other servers know only the old name."""


class PromptRefusedError(SourceError):
    """EndpointRefused for this prompt only: others may be answered."""

    def __init__(self, message: str, words: str = "") -> None:
        super().__init__(FailureCode.ENDPOINT_REFUSED, message)
        self.words = words
        """The server's own message; callers may keep it out of ours."""


def too_many(refused: int, asked: int, of: int) -> bool:
    """Whether a server refuses more than a few outliers.

    Args:
        asked: prompts sent so far.
        of: prompts in total.
    """
    return 100 * refused > MOST_REFUSED_PERCENT * max(asked, min(of, FEWEST_JUDGED))


@dataclass(frozen=True)
class ModelReply:
    """A model's answer; whole is false if it was cut at the maximum length."""

    text: str
    whole: bool


@dataclass(frozen=True)
class Access:
    """Which servers a client may use, and within which limits.

    Args:
        most_bytes: of an answer.
        most_seconds: from the request to the end of its answer.
    """

    network: AllowedNetwork = field(default_factory=AllowedNetwork)
    key: str | None = None
    parallel: int = 4
    most_bytes: int = 8 * 2**20
    most_seconds: float = 600
    resolver: Resolver = resolve
    pause: Callable[[float], None] = time.sleep


@dataclass
class Endpoint:
    """One server, by its base URL; safe to use from several threads.

    Raises:
        ConfigError: the URL is not valid.
    """

    url: str
    access: Access
    usage: Usage = field(default_factory=Usage)
    """Of chat."""
    _pool: urllib3.HTTPConnectionPool | None = None
    _shows_words: bool = False
    _length_name: str = field(default="max_tokens")

    def __post_init__(self) -> None:
        network = self.access.network
        self.parts = _checked(self.url, network.plain(self.url))
        if problem := network.problem(self.url):
            raise ConfigError(f"the endpoint {problem}")

    @property
    def host(self) -> str:
        """The host, for messages and provenance."""
        return str(self.parts.hostname)

    def first_model(self) -> str:
        """The name of the first model that the server lists.

        Raises:
            SourceError: EndpointUnreachable or EndpointRefused.
        """
        models = self.models()
        if not models or not isinstance(models[0].get("id"), str):
            raise SourceError(FailureCode.ENDPOINT_REFUSED, f"{self.host} names no model: name one in the field model")
        return str(models[0]["id"])

    def models(self, until: float = math.inf) -> list[dict[str, Any]]:
        """The models that the server lists, as it describes them; see `ask`.

        Raises:
            SourceError: EndpointUnreachable or EndpointRefused.
        """
        listed = self.request("GET", "/models", until=until).get("data")
        return [model for model in listed if isinstance(model, dict)] if isinstance(listed, list) else []

    def chat(
        self, model: str, messages: Sequence[Message], *, temperature: float, max_tokens: int, seed: int
    ) -> ModelReply:
        """One answer to the messages.

        Raises:
            PromptRefusedError: the server refuses this prompt but not others, or its filter cut the answer.
            SourceError: EndpointUnreachable or EndpointRefused.
        """
        body = {"model": model, "messages": list(messages), "temperature": temperature, "seed": seed}
        name = self._length_name  # another thread may switch to the new name meanwhile
        try:
            completion = self.request("POST", "/chat/completions", {**body, name: max_tokens})
        except SourceError as error:
            words = error.words if isinstance(error, PromptRefusedError) else error.message
            if _NEW_NAME not in words or name == _NEW_NAME:
                raise
            self._length_name = _NEW_NAME
            completion = self.request("POST", "/chat/completions", {**body, _NEW_NAME: max_tokens})
        self.usage.see(completion)
        try:
            choice = completion["choices"][0]
            text = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise SourceError(
                FailureCode.ENDPOINT_REFUSED, f"{self.host} answers something else than a completion"
            ) from None
        reason = choice.get("finish_reason")
        if reason == "content_filter":
            raise PromptRefusedError(f"{self.host} cuts its answer by a content filter")
        return ModelReply(text if isinstance(text, str) else "", reason != "length")

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        tries: int = TRIES,
        until: float = math.inf,
    ) -> dict[str, Any]:
        """Call `ask` and parse a JSON object."""
        return _parsed(self.ask(method, path, body, tries, until), self.host)

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        tries: int = TRIES,
        until: float = math.inf,
    ) -> bytes:
        """Send a request and return the answer; temporary failures are retried with growing pauses.

        Args:
            path: below the base URL.
            body: sent as JSON.
            until: when all tries must end, by `time.monotonic`.

        Raises:
            SourceError: EndpointUnreachable or EndpointRefused.
            PromptRefusedError: the server refuses this content, but may accept other content.
        """
        for number in range(tries):
            try:
                status, data, after = self._once(method, path, body, until)
            except (HTTPError, OSError) as error:
                self._pool, last, after = None, str(error), None
            else:
                if status == 200:
                    return data
                words = self._without_key(_words(data))[:_MOST_WORDS]
                last = f"answers {status}" + (f": {words}" if self._shows_words else "")
                if status in _OF_THE_PROMPT:
                    raise PromptRefusedError(f"{self.host} {last}", words)
                if status not in _TRY_AGAIN:
                    raise SourceError(FailureCode.ENDPOINT_REFUSED, f"{self.host} {last}")
            pause = pause_after(after, number)
            if number == tries - 1 or time.monotonic() + pause >= until:
                break
            self.access.pause(pause)
        raise SourceError(FailureCode.ENDPOINT_UNREACHABLE, f"{self.host}, after {number + 1} tries: {last}")

    def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None, until: float
    ) -> tuple[int, bytes, str | None]:
        pool = self._pool or self._connect()
        self._pool = pool
        port = "" if self.parts.port is None else f":{self.parts.port}"
        headers = {"Host": f"{self.host}{port}", "User-Agent": "hone", "Accept-Encoding": "identity"}
        if self.access.key:
            headers["Authorization"] = f"Bearer {self.access.key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        response = pool.urlopen(
            method,
            self.parts.path.rstrip("/") + path,
            body=None if body is None else json.dumps(body).encode(),
            headers=headers,
            timeout=timeout_until(until, self.access.most_seconds),
            redirect=False,
            retries=False,
            preload_content=False,
        )
        try:
            data = response.read(self.access.most_bytes + 1)
        finally:
            response.release_conn()
        if len(data) > self.access.most_bytes:
            raise SourceError(
                FailureCode.ENDPOINT_REFUSED, f"{self.host} answers more than {self.access.most_bytes} bytes"
            )
        return response.status, data, response.headers.get("Retry-After")

    def _without_key(self, words: str) -> str:
        """Remove the key from a server's message: servers like to repeat an unknown key, and messages reach log and
        status."""
        return words.replace(self.access.key, "…") if self.access.key else words

    def _connect(self) -> urllib3.HTTPConnectionPool:
        secure = self.parts.scheme == "https"
        port = self.parts.port or (443 if secure else 80)
        address = self._address(port)
        return pool_of(address, port, self.host if secure else None, connections=self.access.parallel, patient=True)

    def _address(self, port: int) -> str:
        """An address of the host, after all were checked."""
        resolution, network = self.access.resolver(self.host, port), self.access.network
        if refusal := network.refusal(self.url, resolution):
            raise SourceError(FailureCode.SOURCE_REFUSED, refusal)
        self._shows_words = network.shows_words(self.url, resolution)
        return resolution.addresses[0]


def in_parallel(
    ask: Callable[[_Asked], _Told],
    asked: Sequence[_Asked],
    threads: int,
    check: Callable[[], None] = lambda: None,
) -> list[_Told]:
    """The answers in the order of the questions; see `collect`."""
    return collect(begin(ask, asked, threads), check)


def begin(ask: Callable[[_Asked], _Told], asked: Sequence[_Asked], threads: int) -> list[Future[_Told]]:
    """Begin to ask, in threads; `collect` has the answers."""
    answers: list[Future[_Told]] = [Future() for _ in asked]
    todo: SimpleQueue[tuple[Future[_Told], _Asked]] = SimpleQueue()
    for pair in zip(answers, asked, strict=True):
        todo.put(pair)
    for _ in range(min(threads, len(asked))):
        threading.Thread(target=_answer_all, args=(ask, todo), name="endpoint", daemon=True).start()
    return answers


def collect(answers: Sequence[Future[_Told]], check: Callable[[], None] = lambda: None) -> list[_Told]:
    """What was asked by `begin`, in its order. The first error stops everything that has not started.

    Questions in progress then are abandoned, also at the end of the process: a server may never answer.

    Args:
        check: called each second while waiting; an exception from it counts as such an error.
    """
    try:
        while (state := wait(answers, 1, FIRST_EXCEPTION)).not_done:
            for answer in state.done:
                answer.result()
            check()
        return [answer.result() for answer in answers]
    finally:
        for answer in answers:
            answer.cancel()


def _answer_all(ask: Callable[[_Asked], _Told], todo: SimpleQueue[tuple[Future[_Told], _Asked]]) -> None:
    with suppress(Empty):
        while True:
            answer, asked = todo.get_nowait()
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(ask(asked))
                except BaseException as error:
                    answer.set_exception(error)


def _checked(url: str, private: bool) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"the endpoint {parts.scheme}://{parts.hostname or ''} is not the base URL of an API")
    if parts.scheme == "http" and not private:
        way_out = PRIVATE_WAY_OUT if is_own(parts.hostname) else "use https://"
        raise ConfigError(
            f"the endpoint http://{parts.hostname}: plain http:// goes to Services of the cluster only; {way_out}"
        )
    return parts


def _parsed(data: bytes, host: str) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise SourceError(FailureCode.ENDPOINT_REFUSED, f"{host} answers something else than a JSON object")
    return parsed


def _words(data: bytes) -> str:
    """The server's whole message: a key that is cut would not be recognised and removed."""
    try:
        error = json.loads(data).get("error")
        text = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = None
    return str(text or data.decode("utf-8", "replace"))
