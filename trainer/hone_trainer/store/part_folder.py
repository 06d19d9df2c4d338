"""Parts of a list of work, each a file of its own. A file that exists under its name is done.

So any process or pod makes any part, in any order, and an attempt makes those that are missing. A name has the place in
the list, a hash of everything that the part depends on, and a checksum, which finds what a node that crashed has not
written and what a disk has changed: such a part is made again.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_COPY = 2**20
_LOOK_SECONDS = 2.0
_NAME = re.compile(r"\d{6,}-(?P<key>[0-9a-f]{32})-(?P<sum>[0-9a-f]{8})(\.[a-z]+)?")


class PartFolder:
    """The folder of all parts.

    Args:
        identity: of what every part depends on; empty: nothing is kept for another attempt.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        path.mkdir(exist_ok=True)
        self.look()

    def look(self) -> None:
        """See what is there by now."""
        files = self.path.iterdir() if self.identity else ()
        self.files = {match["key"]: one for one in files if (match := _NAME.fullmatch(one.name))}
        self._looked = time.monotonic()

    def look_again(self) -> bool:
        """See what other pods have made, from time to time; whether this was such a time."""
        if time.monotonic() <= self._looked + _LOOK_SECONDS:
            return False
        self.look()
        return True

    def key(self, about: Any) -> str:
        """Of a part, by what it depends on besides the identity."""
        return hashlib.sha256(json.dumps([self.identity, about]).encode()).hexdigest()[:32]

    def intact_file(self, key: str) -> Path | None:
        """The file of a part, if it is what was written."""
        if (path := self.files.get(key)) is None:
            return None
        with suppress(OSError):
            if path.stem.endswith(f"-{_checksum(path):08x}"):
                return path
        path.unlink(missing_ok=True)
        return None

    def remove_others(self, files: Iterable[Path]) -> None:
        """Remove what is none of these files."""
        names = {path.name for path in files}
        for path in self.path.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)


def unfinished(folder: Path, index: int) -> Path:
    """A new file for the part with this place in the list."""
    return folder / f"{index:06}.unfinished-{uuid.uuid4().hex}"


def finish(file: Path, key: str, suffix: str = "", *, is_kept: bool = True) -> Path:
    """Give a file of `unfinished` its name.

    Args:
        is_kept: whether the name has a checksum, for another attempt.
    """
    index = file.name.partition(".")[0]
    return file.rename(file.with_name(f"{index}-{key}-{_checksum(file) if is_kept else 0:08x}{suffix}"))


def put(folder: Path, index: int, key: str, content: bytes) -> None:
    """Write a part; it is there as a whole or not at all."""
    file = unfinished(folder, index)
    try:
        file.write_bytes(content)
        finish(file, key)
    except OSError:
        with suppress(OSError):
            file.unlink()
        raise


def _checksum(path: Path) -> int:
    total = 0
    with open(path, "rb") as file:
        while data := file.read(_COPY):
            total = zlib.crc32(data, total)
    return total
