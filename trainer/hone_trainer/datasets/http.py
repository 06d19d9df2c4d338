"""https:// sources: the address is checked and pinned, each redirect is checked again, size and time are bounded.

A host name is resolved once; every address it has must be public, and the connection goes to one of those, so a second
answer of the name server cannot lead elsewhere. TLS is checked against the host's name, with the system's
certificates (SSL_CERT_FILE names others). No proxy is used: it would resolve the name by itself.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from hone_api.plan import Limits
from hone_trainer.errors import SourceError
from hone_trainer.secrets import remember

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
_MAX_MARK = 200
_CHUNK = 2**20
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}
"""Of the target file, not of the connection."""
_CONNECT_SECONDS = 30
_READ_SECONDS = 60
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NEVER = [
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's WireServer
        "192.0.0.0/24",  # protocol assignments, and Oracle's metadata service
        "::/96",  # an IPv4 address inside, deprecated
        "64:ff9b:1::/48",  # local NAT64
        "fec0::/10",  # site-local, deprecated
        "fd00:ec2::/32",  # metadata service of AWS
        "fd20:ce::/32",  # of Google Cloud
    )
]
"""Leads to a machine's own surroundings and looks public to `ipaddress`, or like an address of the own network."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host name, by the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class UnchangedError(Exception):
    """The server says that the file is the one that was read before."""


@dataclass(frozen=True)
class Mark:
    """By what a server tells one content of a file from another: its ETag, else its time."""

    header: str
    value: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Mark | None:
        """The mark in an answer; None when it has none, or one that is too long to keep."""
        for name in _CONDITIONS:
            if value := headers.get(name):
                return cls(name, value) if len(value) <= _MAX_MARK and value.isprintable() else None
        return None

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """From `str` of a mark."""
        name, _, value = text.partition("=")
        return cls(name, value) if name in _CONDITIONS and value else None

    def __str__(self) -> str:
        return f"{self.header}={self.value}"

    def condition(self) -> dict[str, str]:
        """The header that asks for another content only (RFC 9110, section 13)."""
        return {_CONDITIONS[self.header]: self.value}


@dataclass(frozen=True)
class Client:
    """Downloads under limits. authorization is the value of that header; it is sent to the first host alone."""

    limits: Limits
    authorization: str | None = None
    resolver: Resolver = resolve

    def download(
        self,
        url: str,
        target: Path,
        progress: Callable[[int], None] = lambda _: None,
        known: Mark | None = None,
    ) -> Mark | None:
        """Download url to the file target; progress is told the bytes of each chunk.

        Returns:
            The mark of what was downloaded, where the server gives one.

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
            headers |= known.condition() if known else {}
            found = self._get(current, headers, target, deadline, progress)
            if not isinstance(found, str):
                return found
            current = checked(urljoin(current.geturl(), found))
        raise SourceError("SourceRefused", f"{_shown(first)} redirects more than {_MAX_REDIRECTS} times")

    def _get(
        self, url: SplitResult, headers: dict[str, str], target: Path, deadline: float, progress: Callable[[int], None]
    ) -> str | Mark | None:
        """One request; the location to go on to, or the mark of the file when it is complete."""
        pool = connect(url, self.limits.allow_private_addresses, self.resolver)
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
            raise SourceError("SourceUnreachable", f"{_shown(url)}: {error}") from None
        finally:
            pool.close()

    def _check_status(self, response: urllib3.BaseHTTPResponse, url: SplitResult) -> None:
        status, text = response.status, f"{_shown(url)} answers {response.status} {response.reason or ''}".strip()
        if status in (404, 410):
            raise SourceError("SourceNotFound", text)
        if status in (401, 403):
            how = "the AUTHORIZATION of its secret is not accepted" if self.authorization else "it wants credentials"
            raise SourceError("SourceNotFound", f"{text}: {how}")
        if status != 200:
            raise SourceError("SourceUnreachable", text)
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
                    raise SourceError("SourceUnreachable", message)
                file.write(chunk)
                progress(len(chunk))

    def _too_large(self, url: SplitResult) -> SourceError:
        return SourceError("SourceTooLarge", f"{_shown(url)} is over {self.limits.max_source_bytes} bytes")


def connect(url: SplitResult, allow_private: bool, resolver: Resolver = resolve) -> urllib3.HTTPConnectionPool:
    """Connections to one checked address of the URL's host.

    Raises:
        SourceError: SourceRefused when any of its addresses is not allowed; SourceUnreachable when it has none.
    """
    host, secure = str(url.hostname), url.scheme == "https"
    port = url.port or (443 if secure else 80)
    address = _address(host, port, allow_private, resolver)
    timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
    if not secure:
        return urllib3.HTTPConnectionPool(address, port, timeout=timeout)
    context = ssl.create_default_context()
    return urllib3.HTTPSConnectionPool(
        address, port, timeout=timeout, ssl_context=context, server_hostname=host, assert_hostname=host
    )


def send_to(
    pool: urllib3.HTTPConnectionPool, url: SplitResult, method: str, headers: Mapping[str, str], body: Any = None
) -> urllib3.BaseHTTPResponse:
    """One request by the host's own name, not followed, not read."""
    port = url.port if url.port not in (None, 443 if url.scheme == "https" else 80) else None
    host = f"[{url.hostname}]" if ":" in str(url.hostname) else str(url.hostname)
    return pool.urlopen(
        method,
        (url.path or "/") + (f"?{url.query}" if url.query else ""),
        body=body,
        headers={**headers, "Host": f"{host}:{port}" if port else host},
        redirect=False,
        retries=False,
        preload_content=False,
        decode_content=False,
    )


def in_cluster(url: str, cluster_domain: str) -> bool:
    """Whether the host is a Service by name: no public host has such a name, and a number is an address."""
    host = str(urlsplit(url).hostname or "").rstrip(".")
    if host.endswith((".svc", f".svc.{cluster_domain}")):
        return True
    return host != "localhost" and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", host) is not None


def _address(host: str, port: int, allow_private: bool, resolver: Resolver) -> str:
    """An address of the host, after all of them were checked."""
    try:
        addresses = resolver(host, port)
    except (OSError, UnicodeError) as error:
        raise SourceError("SourceUnreachable", f"the host name {host} cannot be resolved: {error}") from None
    refused = [a for a in addresses if not is_allowed(a, allow_private)]
    if refused or not addresses:
        message = f"{host} has the address {', '.join(refused) or '(none)'}, which is not public"
        raise SourceError("SourceRefused", message)
    return addresses[0]


def is_allowed(address: str, allow_private: bool = False) -> bool:
    """Whether a download may go to this address.

    Public unicast addresses are; private and loopback ones if asked for. Link-local ones (metadata services of clouds)
    never are. An IPv4 address inside an IPv6 one counts as itself.
    """
    return all(_allowed(one, allow_private) for one in _forms(address))


def _forms(address: str) -> list[Address]:
    found = ipaddress.ip_address(address.split("%")[0])
    if not isinstance(found, ipaddress.IPv6Address):
        return [found]
    inner = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
    if found in _NAT64:
        inner.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
    embedded = [one for one in inner if one is not None]
    return [*embedded] if found.ipv4_mapped else [found, *embedded]


def _allowed(address: Address, allow_private: bool) -> bool:
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback:
        return allow_private
    if any(address in network for network in _NEVER):
        return False
    return address.is_global or (allow_private and address.is_private)


def checked(url: str, plain: bool = False) -> SplitResult:
    """The parts of an acceptable address; `plain` allows http://.

    Raises:
        SourceError: SourceRefused.
    """
    if any(ord(character) <= 32 or ord(character) == 127 for character in url) or "\\" in url:
        raise SourceError("SourceRefused", "the address holds white space, control characters or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SourceError("SourceRefused", f"not an address: {error}") from None
    if parts.scheme not in ("https", *(["http"] if plain else [])) or not parts.hostname:
        raise SourceError("SourceRefused", f"{parts.scheme or '?'}://{parts.hostname or ''}: only https:// is fetched")
    if "@" in parts.netloc:
        raise SourceError("SourceRefused", f"{parts.scheme}://{parts.hostname}: no user or password in an address")
    if port == 0:
        raise SourceError("SourceRefused", f"{parts.scheme}://{parts.hostname}: port 0")
    return parts


def _shown(url: SplitResult) -> str:
    """The address without its query, which may hold a signature."""
    return f"{url.scheme}://{url.netloc}{url.path}"
