"""An S3 server on this machine: Versity's gateway over a folder. Buckets are folders, objects are files."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

from hone_dev.cluster import binaries
from hone_dev.tools.console import HoneDevError

_START_SECONDS = 60.0
"""A guard, not an expectation."""
SERVER_PORTS = range(15_000, 30_000)
_RANDOM = random.SystemRandom()  # tests seed the other one, each of their processes with the same number


@dataclass(frozen=True)
class ObjectStore:
    """A running server."""

    endpoint: str
    root: Path
    access_key: str = "hone-access"
    secret_key: str = "hone-secret-key"

    def bucket(self, name: str) -> Path:
        """The folder of a bucket; files put below it are its objects."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        return folder


@contextmanager
def serve(folder: Path, host: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """Serve buckets kept in `folder` on a free port of `host`, until the block ends."""
    root, side = folder / "buckets", folder / "attributes"
    for path in (root, side):
        path.mkdir(parents=True, exist_ok=True)
    port = free_port(host)
    store = ObjectStore(f"http://{host}:{port}", root)
    # Attributes in files: not every file system that tests run on has extended ones.
    argv = [str(binaries.versitygw()), f"--address={host}:{port}", f"--root={root}", f"--attributes={side}"]
    keys = {"ROOT_ACCESS_KEY": store.access_key, "ROOT_SECRET_KEY": store.secret_key}
    with running("the S3 server", argv, store.endpoint, folder, keys):
        yield store


@contextmanager
def running(what: str, argv: list[str], url: str, folder: Path, env: dict[str, str]) -> Iterator[None]:
    """Run a server, with its log in `folder`, from its first answer at `url` until the block ends."""
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=folder)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise HoneDevError(f"{what} does not start", (folder / "log").read_text(errors="replace")[-600:])
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _answers(endpoint: str) -> bool:
    with suppress(requests.ConnectionError):
        return requests.get(endpoint, timeout=10).status_code > 0
    return False


def free_port(host: str) -> int:
    """A port of `host` that nothing listens on.

    It is below the ports that the kernel gives to connections, since a connection could take it before the server
    does, and below those of Kubernetes' Services.
    """
    while True:
        port = _RANDOM.choice(SERVER_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            return port
