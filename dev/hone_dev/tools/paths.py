"""Where the embedded cluster keeps things: caches that survive it, and the state that goes with it."""

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3]


def cache(*parts: str) -> Path:
    """A folder of the cache, made if absent: binaries, images, package downloads."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base.joinpath("hone", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def state() -> Path:
    """The folder of the running cluster; `cluster down` removes it."""
    return Path(os.environ.get("HONE_STATE") or "/var/lib/hone-dev")
