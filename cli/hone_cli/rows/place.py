"""Where the rows of a file on this machine go: a ConfigMap up to a size, otherwise a claim of their own."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

from hone_cli.errors import CommandError

MOST_BYTES = 1_000_000
"""Of a file in a ConfigMap, whose limit is 1 MiB with everything around it."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,43}[a-z0-9])?")


def address(file: Path, name: str) -> str:
    """The `spec.source.uri` of a file that `hone upload FILE NAME` has uploaded."""
    return f"{'configmap' if is_small(file) else 'pvc'}://{name}/{key(file)}"


def is_small(file: Path) -> bool:
    """Whether a ConfigMap can hold the file.

    Raises:
        CommandError: it is not a file that can be read.
    """
    try:
        if file.is_dir():
            raise CommandError(f"{file} is a folder: name one file, e.g. an archive or a Parquet file of its rows")
        if not file.is_file() and file.exists():
            raise CommandError(f"{file} is not a file that can be read twice: write the rows into one first")
        with open(file, "rb"):
            return file.stat().st_size <= MOST_BYTES
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None


def key(file: Path) -> str:
    """The name of the file there: a ConfigMap takes few characters, and no program takes the name for an option."""
    stem, _, ending = re.sub(r"[^-._a-zA-Z0-9]", "-", file.name).lstrip(".").partition(".")
    ending = f".{ending}"[:100] if ending else ""
    return (stem.lstrip("-")[:100] or "rows") + ending


def checked(name: str) -> str:
    """A name for objects.

    Raises:
        CommandError: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise CommandError(f"{name!r} is not a name: use at most 45 of a-z, 0-9 and -, a letter or digit at both ends")
    return name


def suggested(source: str) -> str:
    """A name for what is made from a file or an address: another one for each file, whatever its script."""
    stem = source.rstrip("/").rpartition("/")[2].partition(".")[0].partition("@")[0].lower()
    plain = "".join(c for c in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(c))
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].rstrip("-")
    if any(c.isalnum() and not c.isascii() for c in plain):  # letters of other scripts, which no name has
        return f"{name[:33].rstrip('-') or 'rows'}-{hashlib.sha256(stem.encode()).hexdigest()[:6]}"
    return name or "rows"
