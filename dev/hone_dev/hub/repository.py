"""Repositories as folders: revisions, commits that are digests of content, and who may read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

KINDS = ("models", "datasets")
DEFAULT = "main"
LFS_BYTES = 10 * 2**20
_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
"""What git has in place of a large file."""
_MOST_KNOWN = 4096
_known: dict[tuple[int, int, int, int], str] = {}
"""SHA-256 of large files by `_content_of`."""


@dataclass(frozen=True)
class File:
    """One file of a commit. `oid` is git's blob id; `sha256` is set for what the Hub keeps in LFS."""

    path: str
    local: Path
    size: int
    oid: str
    sha256: str | None

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    def to_json(self) -> dict[str, Any]:
        """As `/tree` and `/paths-info` list it."""
        lfs = {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 134}} if self.sha256 else {}
        return {"type": "file", "path": self.path, "size": self.size, "oid": self.oid, **lfs}


@dataclass(frozen=True)
class Commit:
    """The content of a revision."""

    sha: str
    files: tuple[File, ...]

    def file(self, path: str) -> File | None:
        return next((file for file in self.files if file.path == path), None)


@dataclass(frozen=True)
class Access:
    """Who may read: gated hides files, private hides that the repository exists. Read again at each request."""

    gated: bool = False
    private: bool = False
    tokens: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Repository:
    """One repository of models or datasets."""

    kind: str
    id: str
    folder: Path

    @property
    def access(self) -> Access:
        try:
            settings = json.loads((self.folder / "hub.json").read_text())
        except FileNotFoundError:
            return Access()
        tokens = frozenset(settings.get("tokens", ()))
        return Access(bool(settings.get("gated")), bool(settings.get("private")), tokens)

    def revisions(self) -> list[str]:
        """Names of branches and tags."""
        return sorted(unquote(path.name) for path in self.folder.iterdir() if path.is_dir())

    def commit(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag or a 40-digit id; None when there is none."""
        folder = self.folder / quote(revision, safe="")
        if revision not in ("", ".", "..") and folder.is_dir():
            return _commit(folder)
        commits = (_commit(path) for path in self.folder.iterdir() if path.is_dir())
        return next((commit for commit in commits if commit.sha == revision), None)


def find(root: Path, kind: str, owner: str, name: str) -> Repository | None:
    """The repository, or None when there is none."""
    folder = root / kind / owner / name
    if kind not in KINDS or {owner, name} & {".", ".."} or not folder.is_dir():
        return None
    return Repository(kind, f"{owner}/{name}", folder)


def _commit(folder: Path) -> Commit:
    files = tuple(_files(folder))
    listing = "".join(f"{file.path}\0{file.etag}\n" for file in files)
    return Commit(hashlib.sha1(listing.encode()).hexdigest(), files)


def _files(folder: Path) -> Iterator[File]:
    for local in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = local.stat().st_size
        large = size >= LFS_BYTES or local.suffix == ".safetensors"
        sha256 = _sha256(local) if large else None
        text = _POINTER.format(sha256, size).encode() if large else local.read_bytes()
        oid = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
        yield File(local.relative_to(folder).as_posix(), local, size, oid, sha256)


def remember(local: Path, sha256: str) -> None:
    """Note the digest of a file that was hashed while it arrived, so that no listing reads it again."""
    if len(_known) > _MOST_KNOWN:
        _known.clear()
    _known[_content_of(local)] = sha256


def _sha256(local: Path) -> str:
    if (content := _content_of(local)) not in _known:
        with local.open("rb") as file:
            remember(local, hashlib.file_digest(file, "sha256").hexdigest())
    return _known[content]


def _content_of(local: Path) -> tuple[int, int, int, int]:
    """Of all names of the file in one, and another one once it is changed."""
    stat = local.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
