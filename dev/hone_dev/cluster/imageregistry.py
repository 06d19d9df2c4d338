"""An image registry on this machine: Debian's docker-registry over a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_dev.cluster.objectstore import free_port, running
from hone_dev.tools import packages

USER, PASSWORD = "hone", "hone-password"
_HASH = "$2b$04$sQ2cxr8729M0c5sQMNBedOYdWrfbustceLEc/Sp/PqqPIYDUOJfIy"
"""bcrypt of PASSWORD."""


@dataclass(frozen=True)
class ImageRegistry:
    """A running registry; host is name and port."""

    host: str
    root: Path


@contextmanager
def serve(folder: Path, auth: dict[str, Any] | None = None, host: str = "127.0.0.1") -> Iterator[ImageRegistry]:
    """Serve images kept in `folder` on a free port of `host`, until the block ends.

    Args:
        auth: this part of its configuration; None: everybody may push. See `basic` for user name and password.
    """
    packages.ensure({"docker-registry": packages.IMAGES["docker-registry"]})
    registry = ImageRegistry(f"{host}:{free_port(host)}", folder / "images")
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(registry.root)}},
        "http": {"addr": registry.host},
        **({"auth": auth} if auth else {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "registry.json"
    file.write_text(json.dumps(config))
    argv = [packages.IMAGES["docker-registry"], "serve", str(file)]
    with running("the registry", argv, f"http://{registry.host}/v2/", folder, {}):
        yield registry


def basic(folder: Path) -> dict[str, Any]:
    """Authentication by USER and PASSWORD."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "htpasswd"
    file.write_text(f"{USER}:{_HASH}\n")
    return {"htpasswd": {"realm": "hone", "path": str(file)}}
