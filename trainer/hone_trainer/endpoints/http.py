"""https:// sources: addresses are checked and pinned, each redirect is checked again, size and time are bounded.

A host name is resolved once. Every address that it has must be public, and the connection goes to one of them, so a
second answer of the name server cannot redirect it. TLS is checked against the host's name, with the system's
certificates (or those in SSL_CERT_FILE). No proxy is used: a proxy would resolve the name itself.
"""

from __future__ import annotations

import errno
import functools
import http.client
import io
import math
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
import urllib3.connection
from urllib3.exceptions import HTTPError

from hone_api.plan import Limits
from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.addresses import AllowedNetwork, Resolution
from hone_trainer.errors import SourceError
from hone_trainer.secrets import remember

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
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

    def condition(self) -> dict[str, str]:
        """The header that requests the content only if it changed (RFC 9110, section 13)."""
        return {_CONDITIONS[self.header]: self.value}


@dataclass(frozen=True)
class Client:
    """Downloads under limits. authorization is the value of that header; only the first host receives it."""

    limits: Limits
    authorization: str | None = None
    resolver: Resolver = resolve

    def download(
        self,
        url: str,
        target: Path,
        progress: Callable[[int], None] = lambda _: None,
        mark: Mark | None = None,
    ) -> Mark | None:
        """Download url to the file target. progress is called with the size of each chunk in bytes.

        Returns:
            The mark of the downloaded file, if the server sends one.

        Raises:
            SourceError: SourceRefused, SourceNotFound, SourceUnreachable or SourceTooLarge.
            UnchangedError: the file still has the mark `known`.
        """
        if self.authorization:
            remember(self.authorization)
        deadline = time.monotonic() + self.limits.timeout_seconds
        first = checked(url)
        current = first
        for _ in range(_MAX_REDIRECTS + 1):
            same_host = (current.hostname, current.port) == (first.hostname, first.port)
            headers = {"Authorization": self.authorization} if self.authorization and same_host else {}
            headers |= mark.condition() if mark else {}
            outcome = self._get(current, headers, target, deadline, progress)
            if not isinstance(outcome, str):
                return outcome
            current = checked(urljoin(current.geturl(), outcome))
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{_shown(first)} redirects more than {_MAX_REDIRECTS} times")

    def _get(
        self, url: SplitResult, headers: dict[str, str], target: Path, deadline: float, progress: Callable[[int], None]
    ) -> str | Mark | None:
        """One request. Returns the location of a redirect, or the mark of the file if it is complete."""
        # A Service's name makes no difference here: https:// sources are public hosts.
        network = AllowedNetwork(self.limits.allow_private_addresses, by_name=False)
        pool = connect(url, network, deadline, self.resolver)
        send = {"User-Agent": "hone", "Accept-Encoding": "identity", **headers}
        try:
            response = send_to(pool, url, "GET", send)
            try:
                if response.status in _REDIRECTS and response.headers.get("Location"):
                    return str(response.headers["Location"])
                if response.status == 304 and headers.keys() & _CONDITIONS.values():
                    raise UnchangedError
                self._check_status(response, url)
                self._save(response, url, target, deadline, progress)
                return Mark.of(response.headers)
            finally:
                response.close()
        except (HTTPError, OSError) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            late = time.monotonic() >= deadline
            why = f"took longer than {self.limits.timeout_seconds} s" if late else str(error)
            raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{_shown(url)}: {why}") from None
        finally:
            pool.close()

    def _check_status(self, response: urllib3.BaseHTTPResponse, url: SplitResult) -> None:
        status, text = response.status, f"{_shown(url)} answers {response.status} {response.reason or ''}".strip()
        if status in (404, 410):
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, text)
        if status in (401, 403):
            how = "the AUTHORIZATION of its secret is not accepted" if self.authorization else "it wants credentials"
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{text}: {how}")
        if status != 200:
            raise SourceError(FailureCode.SOURCE_UNREACHABLE, text)
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > self.limits.max_source_bytes:
            raise self._too_large(url)

    def _save(
        self,
        response: urllib3.BaseHTTPResponse,
        url: SplitResult,
        target: Path,
        deadline: float,
        progress: Callable[[int], None],
    ) -> None:
        left = self.limits.max_source_bytes
        with open(target, "wb") as file:
            while chunk := response.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise self._too_large(url)
                if time.monotonic() > deadline:
                    message = f"{_shown(url)} took longer than {self.limits.timeout_seconds} s"
                    raise SourceError(FailureCode.SOURCE_UNREACHABLE, message)
                file.write(chunk)
                progress(len(chunk))

    def _too_large(self, url: SplitResult) -> SourceError:
        return SourceError(FailureCode.SOURCE_TOO_LARGE, f"{_shown(url)} is over {self.limits.max_source_bytes} bytes")


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
    pool: urllib3.HTTPConnectionPool, url: SplitResult, method: str, headers: Mapping[str, str], body: Any = None
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


def _shown(url: SplitResult) -> str:
    """The URL without its query, which may contain a signature."""
    return f"{url.scheme}://{url.netloc}{url.path}"
