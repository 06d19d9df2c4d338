"""https:// sources: addresses are checked and pinned, each redirect is checked again, size and time are bounded.

A host name is resolved once. Every address that it has must be public, and the connection goes to one of them, so a
second answer of the name server cannot redirect it. TLS is checked against the host's name, with the system's
certificates (or those in SSL_CERT_FILE). No proxy is used: a proxy would resolve the name itself.
"""

from __future__ import annotations

import email.message
import errno
import functools
import http.client
import io
import math
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3
import urllib3.connection
from urllib3.exceptions import HTTPError

from hone_api.plan import Limits
from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.addresses import AllowedNetwork, Resolution
from hone_trainer.errors import SourceError
from hone_trainer.secrets import remember
from hone_trainer.store.ranged import BUSY, TRIES, BrokenOffError, changed, check_range, pause_after

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
_PRECONDITIONS = {"ETag": "If-Match", "Last-Modified": "If-Unmodified-Since"}
_MAX_MARK = 200
_CHUNK = 2**20
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}
"""Bytes of the file, not of the connection."""
_CONNECT_SECONDS = 30
_READ_SECONDS = 60
Resolver = Callable[[str, int], Resolution]


def resolve(host: str, port: int) -> Resolution:
    """All addresses of a host name and its canonical name, from one call of the system's resolver."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    return Resolution(addresses, next((entry[3] for entry in entries if entry[3]), ""))


class UnchangedError(Exception):
    """The server reports that the file has not changed since it was last read."""


@dataclass(frozen=True)
class Mark:
    """Identifies one version of a server's file: its ETag, else its modification time."""

    header: str
    value: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Mark | None:
        """The mark in a response; None if it has none, or one that is too long to keep."""
        for name in _CONDITIONS:
            if value := headers.get(name):
                return cls(name, value) if len(value) <= _MAX_MARK and value.isprintable() else None
        return None

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """Parse the text that `str` of a mark returns."""
        name, _, value = text.partition("=")
        return cls(name, value) if name in _CONDITIONS and value else None

    def __str__(self) -> str:
        return f"{self.header}={self.value}"

    @property
    def is_strong(self) -> bool:
        """Whether equal marks are of equal bytes."""
        return not self.value.startswith("W/")

    def condition(self) -> dict[str, str]:
        """The header that requests the content only if it changed (RFC 9110, section 13)."""
        return {_CONDITIONS[self.header]: self.value}

    def precondition(self) -> dict[str, str]:
        """The header that requests the content only if it did not change."""
        return {_PRECONDITIONS[self.header]: self.value}


class Ranged(NamedTuple):
    """A file that can be read by ranges."""

    name: str
    size: int
    mark: Mark
    encoding: str = ""
    """Its Content-Encoding."""


class Saved(NamedTuple):
    """A file that was downloaded."""

    name: str
    mark: Mark | None
    ends_surely: bool
    """Whether the server said where it ends, other than by closing the connection."""


@dataclass(frozen=True)
class Client:
    """Reads under limits. authorization is the value of that header; only the first host receives it."""

    limits: Limits
    authorization: str | None = None
    resolver: Resolver = resolve
    _pools: dict[tuple[int, str, str], urllib3.HTTPConnectionPool] = field(default_factory=dict, compare=False)
    """By process and host: a fork must not use the connections of its parent."""

    def find(
        self,
        url: str,
        target: Path,
        progress: Callable[[int], None] = lambda _: None,
        mark: Mark | None = None,
    ) -> Ranged | Saved:
        """The file, as `read` can read it, else as `download` saves it: the server gives no ranges, or nothing that
        would show a change between two of them.

        Raises:
            SourceError: as `download`.
            UnchangedError: the file still has this mark.
        """
        with self._asked(url, {"Range": "bytes=0-0", **(mark.condition() if mark else {})}) as (response, until):
            if response.status == 304 and mark:
                raise UnchangedError
            if response.status == 200:
                return self._save(response, url, target, until, progress)
            version, (*_, size) = Mark.of(response.headers), response.headers.get("Content-Range", "").rpartition("/")
            if response.status == 206 and version and version.is_strong and size.isdecimal() and len(size) < 20:
                if int(size) > self.limits.max_source_bytes:
                    raise self._too_large(url)
                return Ranged(_name(url, response.headers), int(size), version, _encoding(response))
        return self.download(url, target, progress)

    def download(self, url: str, target: Path, progress: Callable[[int], None] = lambda _: None) -> Saved:
        """Download url to the file target. progress is called with the size of each chunk in bytes.

        Raises:
            SourceError: SourceRefused, SourceNotFound, SourceUnreachable or SourceTooLarge.
        """
        with self._asked(url, {}) as (response, until):
            return self._save(response, url, target, until, progress)

    def read(self, url: str, file: Ranged, begin: int, end: int, seconds: float) -> Iterator[bytes]:
        """The bytes [begin, end) of a file as they come.

        Raises:
            BrokenOffError: another try may get the rest.
            SourceError: SourceUnreachable when the file has changed; as `download`.
        """
        what = _shown(urlsplit(url))
        headers = {"Range": f"bytes={begin}-{end - 1}", **file.mark.precondition()}
        try:
            with closing(self._answer(url, headers, time.monotonic() + seconds)) as response:
                if response.status in BUSY:
                    raise BrokenOffError(_answers(response), response.headers.get("Retry-After"))
                if response.status in (200, 412, 416):
                    raise changed(what)
                self._check_status(response, url)
                if (Mark.of(response.headers), _encoding(response)) != (file.mark, file.encoding):
                    raise changed(what)
                check_range(what, response.headers, begin, file.size)
                yield from iter(lambda: response.read(_CHUNK), b"")
        except (HTTPError, OSError) as error:
            self._pools.clear()  # the host may have another address now
            raise BrokenOffError(error) from None

    @contextmanager
    def _asked(self, url: str, headers: Mapping[str, str]) -> Iterator[tuple[urllib3.BaseHTTPResponse, float]]:
        """The first answer that is not `BUSY`, and until when it has to be complete."""
        until = time.monotonic() + self.limits.timeout_seconds
        try:
            for number in range(TRIES):
                with closing(self._answer(url, headers, until)) as response:
                    pause = pause_after(response.headers.get("Retry-After"), number)
                    is_last = number == TRIES - 1 or time.monotonic() + pause >= until
                    if response.status not in BUSY or is_last:
                        self._check_status(response, url)
                        yield response, until
                        return
                time.sleep(pause)
        except (HTTPError, OSError) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            why = f"took longer than {self.limits.timeout_seconds} s" if time.monotonic() >= until else str(error)
            raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{_shown(urlsplit(url))}: {why}") from None

    def _answer(self, url: str, headers: Mapping[str, str], until: float) -> urllib3.BaseHTTPResponse:
        """The answer after all redirects; each is checked like the first address."""
        if self.authorization:
            remember(self.authorization)
        first = checked(url)
        current = first
        for _ in range(_MAX_REDIRECTS + 1):
            same_host = (current.hostname, current.port) == (first.hostname, first.port)
            own = {"Authorization": self.authorization} if self.authorization and same_host else {}
            send = {"User-Agent": "hone", "Accept-Encoding": "identity", **own, **headers}
            response = send_to(self._pool(current, until), current, "GET", send, timeout=timeout_until(until))
            if response.status not in _REDIRECTS or not (location := response.headers.get("Location")):
                return response
            response.close()
            current = checked(urljoin(current.geturl(), str(location)))
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{_shown(first)} redirects more than {_MAX_REDIRECTS} times")

    def _pool(self, url: SplitResult, until: float) -> urllib3.HTTPConnectionPool:
        place = (os.getpid(), url.scheme, url.netloc)
        if place not in self._pools:
            # A Service's name makes no difference here: https:// sources are public hosts.
            network = AllowedNetwork(self.limits.allow_private_addresses, by_name=False)
            self._pools[place] = connect(url, network, until, self.resolver)
        return self._pools[place]

    def _check_status(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        status, text = response.status, f"{_shown(urlsplit(url))} {_answers(response)}"
        if status in (404, 410):
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, text)
        if status in (401, 403):
            how = "the AUTHORIZATION of its secret is not accepted" if self.authorization else "it wants credentials"
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{text}: {how}")
        if status not in (200, 206, 304, 416):
            raise SourceError(FailureCode.SOURCE_UNREACHABLE, text)
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and (len(length) >= 20 or int(length) > self.limits.max_source_bytes):
            raise self._too_large(url)

    def _save(
        self,
        response: urllib3.BaseHTTPResponse,
        url: str,
        target: Path,
        until: float,
        progress: Callable[[int], None],
    ) -> Saved:
        left = self.limits.max_source_bytes
        with open(target, "wb") as file:
            while chunk := response.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise self._too_large(url)
                if time.monotonic() > until:
                    message = f"{_shown(urlsplit(url))} took longer than {self.limits.timeout_seconds} s"
                    raise SourceError(FailureCode.SOURCE_UNREACHABLE, message)
                file.write(chunk)
                progress(len(chunk))
        ends_surely = any(name in response.headers for name in ("Content-Length", "Transfer-Encoding"))
        return Saved(_name(url, response.headers), Mark.of(response.headers), ends_surely)

    def _too_large(self, url: str) -> SourceError:
        message = f"{_shown(urlsplit(url))} is over {self.limits.max_source_bytes} bytes"
        return SourceError(FailureCode.SOURCE_TOO_LARGE, message)


def connect(
    url: SplitResult,
    network: AllowedNetwork,
    until: float = math.inf,
    resolver: Resolver = resolve,
    *,
    kept: int = 1,
) -> urllib3.HTTPConnectionPool:
    """Connections to one checked address of the URL's host.

    Args:
        until: when every answer must be complete, by `time.monotonic`.
        kept: connections that stay open for the next request; more requests at a time open further ones.

    Raises:
        SourceError: SourceRefused if any of its addresses is not allowed; SourceUnreachable if it has none.
    """
    host, secure = str(url.hostname), url.scheme == "https"
    port = url.port or (443 if secure else 80)
    address = _address(url, port, network, resolver)
    return pool_of(address, port, host if secure else None, until=until, connections=kept, waits=False)


def pool_of(
    address: str,
    port: int,
    tls_host: str | None,
    *,
    until: float = math.inf,
    connections: int = 1,
    waits: bool = True,
    patient: bool = False,
) -> urllib3.HTTPConnectionPool:
    """Connections to an address.

    Args:
        tls_host: the name that its certificate must have; None for plain http://.
        until: when every answer must be complete, by `time.monotonic`; a request may have its own timeout.
        connections: that stay open.
        waits: whether a request waits for one of several, instead of opening another one.
        patient: whether a server may stay silent for more than a minute.
    """
    options: dict[str, Any] = {
        "timeout": timeout_until(until),
        "maxsize": connections,
        "block": waits and connections > 1,
    }
    if tls_host is None:
        plain = urllib3.HTTPConnectionPool(address, port, **options)
        plain.ConnectionCls = _Patient if patient else _BoundedConnection
        return plain
    context = ssl.create_default_context()
    secure = urllib3.HTTPSConnectionPool(
        address, port, ssl_context=context, server_hostname=tls_host, assert_hostname=tls_host, **options
    )
    secure.ConnectionCls = _SecurePatient if patient else _SecureBounded
    return secure


def timeout_until(until: float, most: float = math.inf) -> urllib3.Timeout:
    """The timeout of a request: to connect, and then for the whole answer, at most `most` seconds."""
    left = max(0.01, min(until - time.monotonic(), most))
    return urllib3.Timeout(connect=min(_CONNECT_SECONDS, left), read=None if math.isinf(left) else left)


class _Within(io.RawIOBase):
    """Reads a socket until a fixed time: bytes that arrive one by one do not extend it."""

    def __init__(self, inner: io.RawIOBase, sock: socket.socket, until: float, idle: float) -> None:
        self._inner, self._sock, self._until, self._idle = inner, sock, until, idle

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took longer than its limit")
        self._sock.settimeout(min(left, self._idle))
        try:
            return self._inner.readinto(buffer)
        except TimeoutError:
            why = f"no byte for {self._idle:g} s" if self._idle < left else "the answer took longer than its limit"
            raise TimeoutError(why) from None

    def close(self) -> None:
        self._inner.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """An answer whose head and body must arrive within the connection's timeout."""

    def __init__(self, sock: socket.socket, *args: Any, seconds: float | None, idle: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        until = math.inf if seconds is None else time.monotonic() + seconds
        self.fp = io.BufferedReader(_Within(self.fp.detach(), sock, until, idle))


class _BoundedConnection(urllib3.connection.HTTPConnection):
    idle: ClassVar[float] = _READ_SECONDS

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"  # in messages of urllib3

    def getresponse(self) -> Any:
        response: Any = functools.partial(_TimedResponse, seconds=self.timeout, idle=self.idle)
        self.response_class = response  # a class to http.client, which only calls it
        try:
            return super().getresponse()
        except TimeoutError as error:  # urllib3 would name the limit of the answer, even where the silence was too long
            raise urllib3.exceptions.TimeoutError(f"{self.host}: Read timed out: {error}") from None


class _Patient(_BoundedConnection):
    """For a server that computes for a long time before it sends the first byte."""

    idle = 3600.0


class _SecureBounded(_BoundedConnection, urllib3.connection.HTTPSConnection):
    pass


class _SecurePatient(_Patient, urllib3.connection.HTTPSConnection):
    pass


def send_to(
    pool: urllib3.HTTPConnectionPool,
    url: SplitResult,
    method: str,
    headers: Mapping[str, str],
    body: Any = None,
    timeout: urllib3.Timeout | None = None,
) -> urllib3.BaseHTTPResponse:
    """Send one request with the host's own name. Redirects are not followed, and the body is not read."""
    return pool.urlopen(
        method,
        (url.path or "/") + (f"?{url.query}" if url.query else ""),
        body=body,
        headers={**headers, "Host": name_of(url)},
        redirect=False,
        retries=False,
        preload_content=False,
        decode_content=False,
        timeout=timeout or pool.timeout,
    )


def name_of(url: SplitResult) -> str:
    """The server's name in a request: without a port that its scheme has anyway."""
    port = url.port if url.port not in (None, 443 if url.scheme == "https" else 80) else None
    host = f"[{url.hostname}]" if ":" in str(url.hostname) else str(url.hostname)
    return f"{host}:{port}" if port else host


def _address(url: SplitResult, port: int, network: AllowedNetwork, resolver: Resolver) -> str:
    """An address of the host, after all were checked."""
    host = str(url.hostname)
    if problem := network.problem(url.geturl()):
        raise SourceError(FailureCode.SOURCE_REFUSED, problem)
    try:
        resolution = resolver(host, port)
    except (OSError, UnicodeError) as error:
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"the host name {host} cannot be resolved: {error}") from None
    if refusal := network.refusal(url.geturl(), resolution):
        raise SourceError(FailureCode.SOURCE_REFUSED, refusal)
    return resolution.addresses[0]


def checked(url: str, plain: bool = False) -> SplitResult:
    """The parts of an acceptable URL; `plain` allows http://.

    Raises:
        SourceError: SourceRefused.
    """
    if any(ord(character) <= 32 or ord(character) == 127 for character in url) or "\\" in url:
        raise SourceError(
            FailureCode.SOURCE_REFUSED, "the address holds white space, control characters or a backslash"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SourceError(FailureCode.SOURCE_REFUSED, f"not an address: {error}") from None
    if parts.scheme not in ("https", *(["http"] if plain else [])) or not parts.hostname:
        raise SourceError(
            FailureCode.SOURCE_REFUSED, f"{parts.scheme or '?'}://{parts.hostname or ''}: only https:// is fetched"
        )
    if "@" in parts.netloc:
        raise SourceError(
            FailureCode.SOURCE_REFUSED, f"{parts.scheme}://{parts.hostname}: no user or password in an address"
        )
    if port == 0:
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{parts.scheme}://{parts.hostname}: port 0")
    return parts


def _encoding(response: urllib3.BaseHTTPResponse) -> str:
    """How the bytes of an answer are packed; empty: they are those of the file."""
    return response.headers.get("Content-Encoding", "").strip().lower().replace("identity", "")


def _name(url: str, headers: Mapping[str, str]) -> str:
    """The name of a file: that which the server gives it, else the last part of the address."""
    described = email.message.Message()
    described["Content-Disposition"] = headers.get("Content-Disposition", "")
    name = described.get_filename() or unquote(urlsplit(url).path)
    return "".join(c for c in PurePosixPath(name.replace("\\", "/")).name if c.isprintable())[-100:] or "data"


def _answers(response: urllib3.BaseHTTPResponse) -> str:
    return f"answers {response.status} {response.reason or ''}".strip()


def _shown(url: SplitResult) -> str:
    """The URL without its query, which may contain a signature."""
    return f"{url.scheme}://{url.netloc}{url.path}"
