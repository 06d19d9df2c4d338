"""Which sockets a tree of processes listens on, by the kernel's own tables."""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

LISTEN = "0A"


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in tree(int(child)))]


def addresses(pid: int) -> list[tuple[str, int]]:
    """Address and port of each TCP socket that the tree listens on."""
    mine = {inode for one in tree(pid) for inode in _inodes(one)}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and fields[9] in mine:
                host, _, port = fields[1].partition(":")
                found.append((_address(host), int(port, 16)))
    return found


def _address(text: str) -> str:
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def _inodes(pid: int) -> set[str]:
    found = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(file.readlink())
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    return found
