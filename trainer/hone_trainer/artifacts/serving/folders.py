"""Adapters as vLLM reads them: verified copies, one folder for each digest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hone_api.contract.manifest import MANIFEST
from hone_api.contract.served import ServedAdapter
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.importing.adapter import unserved
from hone_trainer.errors import StoreError
from hone_trainer.store import manifest

_CONFIG = "adapter_config.json"
_UNFINISHED = "unfinished-"
KEPT_SECONDS = 900.0
"""An adapter that left stays readable: a request in progress may make vLLM read it again."""


@dataclass
class AdapterFolders:
    """A folder that vLLM reads and only the follower writes."""

    root: Path
    claim: str
    """Volume claim of the store."""
    models: Path
    """Where models/ of the store is mounted."""
    base: str
    """How the server names its base."""
    _unused: dict[str, float] = field(default_factory=dict)

    def path(self, digest: str) -> Path:
        """Folder of an adapter. Another digest is another path: vLLM keeps what it computed with a path's weights."""
        return self.root / digest.removeprefix("sha256:")

    def digest(self, path: str) -> str:
        """Digest of the adapter in a folder of ours; empty: it is not one."""
        folder = Path(path)
        return f"sha256:{folder.name}" if folder.parent == self.root else ""

    def has(self, digest: str) -> bool:
        """Whether there is a copy of the adapter."""
        return self.path(digest).is_dir()

    def prepare(self, adapter: ServedAdapter) -> Path:
        """A complete copy whose every file matches the manifest, with the name of the served base.

        Raises:
            StoreError: the adapter is not in the store, is not what was recorded, or asks for what vLLM skips.
            OSError: it cannot be copied.
        """
        folder = self.path(adapter.digest)
        if self.has(adapter.digest):
            return folder
        copy = self.root / f"{_UNFINISHED}{folder.name}"
        shutil.rmtree(copy, ignore_errors=True)
        try:
            shutil.copytree(self._source(adapter.uri), copy, symlinks=True)
            manifest.verify(copy, adapter.digest)
            config = {**json.loads((copy / _CONFIG).read_text()), "base_model_name_or_path": self.base}
            if words := unserved(config):  # of a version that an earlier Hone imported
                raise StoreError(FailureCode.UNSUPPORTED_MODEL, f"vLLM's answers would differ: {words}")
            (copy / _CONFIG).write_text(json.dumps(config, indent=2))
            (copy / MANIFEST).unlink()  # it is about the file before this change
            copy.rename(folder)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return folder

    def forget(self, used: Collection[str], now: float) -> None:
        """Delete the folders of digests that nothing has used for `KEPT_SECONDS`."""
        for folder in self.root.iterdir():
            if folder.name.startswith(".") or folder.name.startswith(_UNFINISHED):
                continue
            if f"sha256:{folder.name}" in used:
                self._unused.pop(folder.name, None)
            elif now - self._unused.setdefault(folder.name, now) > KEPT_SECONDS:
                shutil.rmtree(folder)
                del self._unused[folder.name]

    def forget_unfinished(self) -> None:
        """Delete what a container that ended while it copied left. Only while nothing is copied."""
        for folder in self.root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _source(self, uri: str) -> Path:
        scheme, _, rest = uri.partition("://")
        claim, _, path = rest.partition("/")
        parts = PurePosixPath(path).parts
        if (scheme, claim) != ("pvc", self.claim) or parts[:1] != ("models",) or ".." in parts:
            words = f"{uri}: a server that follows an alias reads pvc://{self.claim}/models/ alone"
            raise StoreError(FailureCode.INVALID_CONFIGURATION, words)
        return self.models.joinpath(*parts[1:])
