"""Files that commands write for the person at the terminal."""

from __future__ import annotations

import shutil
from pathlib import Path

from hone_cli.errors import CommandError


def write_whole(target: Path, content: bytes) -> None:
    """Write all of a file, or leave what was there as it is.

    Raises:
        CommandError: the disk is full, or the folder cannot be written.
    """
    try:
        if target.exists() and not target.is_file():  # such as /dev/stdout
            target.write_bytes(content)
            return
        target = target.resolve()
        part = target.with_name(f".{target.name}.part")
        try:
            part.write_bytes(content)
            if target.exists():
                shutil.copymode(target, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{target}: {error.strerror or error}") from None
