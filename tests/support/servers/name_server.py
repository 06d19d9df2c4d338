"""A small DNS server (RFC 1035: A records and CNAMEs over UDP), as the cluster's is to a pod."""

from __future__ import annotations

import ipaddress
import socketserver
import struct
import threading
from collections.abc import Mapping

_A, _CNAME, _INTERNET = 1, 5, 1
_FOUND, _NO_SUCH_NAME = 0x8580, 0x8583
"""Flags of an authoritative answer, with recursion available."""


def answer(query: bytes, records: Mapping[str, str]) -> bytes:
    """The reply to a query. A record's value is an IPv4 address, or the name that a CNAME leads to."""
    end = query.index(b"\0", 12) + 5
    name, kind = _name(query), struct.unpack("!H", query[end - 4 : end - 2])[0]
    flags, found = _FOUND if name in records else _NO_SUCH_NAME, []
    while value := records.get(name):
        if value[0].isdigit():
            found += [_record(name, _A, ipaddress.IPv4Address(value).packed)] if kind == _A else []
            break
        found.append(_record(name, _CNAME, _encoded(value)))
        name = value
    return query[:2] + struct.pack("!5H", flags, 1, len(found), 0, 0) + query[12:end] + b"".join(found)


def serve(records: Mapping[str, str]) -> None:
    """Answer at 127.0.0.1:53 until the process ends."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query, sock = self.request
            sock.sendto(answer(query, records), self.client_address)

    server = socketserver.UDPServer(("127.0.0.1", 53), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _name(query: bytes) -> str:
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels).lower()


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _record(name: str, kind: int, data: bytes) -> bytes:
    return _encoded(name) + struct.pack("!HHIH", kind, _INTERNET, 5, len(data)) + data
