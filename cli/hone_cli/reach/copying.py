"""Copies a folder with a manifest, file by file: resumes where it stopped, compares every byte with the manifest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from hone_api.contract.manifest import MANIFEST, MAX_BYTES, Entry, Manifest, manifest_digest
from hone_cli.errors import AGAIN, CommandError
from hone_cli.reach.incoming import sha256_of

WORK = ".hone-download"
"""Folder inside a copy that is not complete: the copy's digest, and the file that is being read."""
_DIGEST = "digest"
_TRIES = 5
"""Times that a connection may break without a byte in between."""
_PAUSE_SECONDS = 2.0
"""Before the second try; each later pause is twice as long, so an API server has half a minute to restart."""


class BrokenConnectionError(Exception):
    """The connection broke; what arrived before is correct, but incomplete."""


class MissingFileError(CommandError):
    """The folder has no such file."""


class FileSource(Protocol):
    """A folder elsewhere."""

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """The bytes of a file from an offset on.

        Raises:
            BrokenConnectionError: another try may help.
            MissingFileError: the folder has no such file.
            CommandError: no other try will help.
        """
        ...


@dataclass(frozen=True)
class Copied:
    """A complete copy."""

    files: int
    size_bytes: int
    read_bytes: int
    """Bytes that came over the connection this time."""


def copy(
    source: FileSource,
    folder: Path,
    digest: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
    added: Sequence[str] = (),
) -> Copied:
    """Copy all files; the manifest comes last, so a folder that has one is complete.

    Args:
        folder: new, empty, or of an earlier copy of the same digest, which is completed.
        digest: 'sha256:' and the SHA-256 of the manifest, as the cluster recorded it.
        progress: called with the bytes that are there and the bytes of all files.
        added: names of files outside the manifest, e.g. its signature; those that are not there are left out.

    Raises:
        CommandError: the folder is not ours or has no room, the connection breaks again and again, or the files are
            not those of the record.
    """
    check_folder(folder, digest)
    text = _read_whole(source, MANIFEST)
    entries = _entries(text, digest)
    total = sum(entry.size for entry in entries)
    work = folder / WORK
    if (folder / MANIFEST).exists() and not work.exists():
        _check_complete(folder, entries)
        if all((folder / name).exists() for name in added):  # it may have been signed since
            return Copied(len(entries), total, 0)
    work.mkdir(parents=True, exist_ok=True)
    (work / _DIGEST).write_text(digest)
    left = [entry for entry in entries if not _is_there(folder, entry)]
    _check_room(folder, left)
    there, read = total - sum(entry.size for entry in left), 0
    for entry in left:
        read += _fetch(source, folder, entry, _after(there, total, progress))
        there += entry.size
    progress(there, total)
    for name in added:
        _copy_added(source, folder / name, work / name)
    (work / MANIFEST).write_bytes(text)
    (work / MANIFEST).replace(folder / MANIFEST)
    shutil.rmtree(work)
    return Copied(len(entries), total, read)


def copy_one(source: FileSource, folder: Path, path: str, digest: str) -> Path:
    """Copy one file of a folder into another one, and return where it is; it is compared with the manifest.

    Raises:
        MissingFileError: the manifest has no such file.
        CommandError: as `copy`.
    """
    entry = next((entry for entry in _entries(_read_whole(source, MANIFEST), digest) if entry.path == path), None)
    if entry is None:
        raise MissingFileError(f"the folder in the cluster has no {path}")
    (folder / WORK).mkdir()
    _fetch(source, folder, entry, lambda size: None)
    return folder / path


def _copy_added(source: FileSource, target: Path, temporary: Path) -> None:
    """Its content is for whoever checks the signature: the cluster has no record of it to compare with."""
    try:
        temporary.write_bytes(_read_whole(source, target.name))
    except MissingFileError:
        return
    temporary.replace(target)


def _after(before: int, total: int, progress: Callable[[int, int], None]) -> Callable[[int], None]:
    """The progress of one file, reported as that of all files."""
    return lambda size: progress(before + size, total)


def check_folder(folder: Path, digest: str) -> None:
    """Let a folder pass that is new, empty, or has this model, complete or not.

    Raises:
        CommandError: it has something else, which is left alone.
    """
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file: name a folder")
    begun, finished = folder / WORK / _DIGEST, folder / MANIFEST
    if begun.is_file():
        other = begun.read_text(errors="replace").strip()
    elif finished.is_file():
        other = manifest_digest(finished.read_bytes())
    elif folder.is_dir() and any(folder.iterdir()):
        raise CommandError(f"{folder} is not empty, and hone did not download what is in it: name another folder")
    else:
        return
    if other != digest:
        raise CommandError(f"{folder} contains another model ({other[:19]}…, not {digest[:19]}…): use another folder")


def _entries(text: bytes, digest: str) -> Sequence[Entry]:
    if manifest_digest(text) != digest:
        raise CommandError(
            f"the folder in the cluster is not the one that was recorded: its {MANIFEST} has digest "
            f"{manifest_digest(text)}, the ModelVersion says {digest}. Nothing was written."
        )
    try:
        files = Manifest.model_validate_json(text).files
    except ValidationError as error:
        raise CommandError(f"{MANIFEST} is not a manifest: {error.errors()[0]['msg']}") from None
    for entry in files:
        first = entry.path.split("/")[0]
        if not entry.is_inside or "\\" in entry.path or first in (WORK, MANIFEST):
            raise CommandError(f"{MANIFEST} lists {entry.path!r}, which a download must not write")
    return files


def _check_complete(folder: Path, entries: Sequence[Entry]) -> None:
    changed = [entry.path for entry in entries if not _is_there(folder, entry)]
    if changed:
        raise CommandError(
            f"{folder} was downloaded before, and {len(changed)} of its files were changed or removed since, e.g. "
            f"{changed[0]}: name another folder, or delete this one"
        )


def _is_there(folder: Path, entry: Entry) -> bool:
    path = folder / entry.path
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
        return False
    return sha256_of(path) == entry.sha256


def _check_room(folder: Path, left: Sequence[Entry]) -> None:
    begun = sum(part.stat().st_size for part in (folder / WORK).iterdir() if part.name != _DIGEST)
    needed, free = sum(entry.size for entry in left) - begun, shutil.disk_usage(folder).free
    if needed > free:
        raise CommandError(
            f"{folder} has room for {free:,} bytes, but {needed:,} more are needed: make room in it, and {AGAIN}"
        )


def _fetch(source: FileSource, folder: Path, entry: Entry, progress: Callable[[int], None]) -> int:
    """Read one file into the folder; returns the bytes that came."""
    part = folder / WORK / entry.sha256
    resumed = part.exists()
    read = _read(source, entry, part, progress)
    if sha256_of(part) != entry.sha256 and resumed:  # what was there before may have been damaged
        part.unlink()
        read += _read(source, entry, part, progress)
    if (actual := sha256_of(part)) != entry.sha256:
        part.unlink()
        raise CommandError(
            f"{entry.path} in the cluster is not the file that was recorded: its SHA-256 is {actual}, "
            f"{MANIFEST} says {entry.sha256}. The volume was changed: restore the folder from a backup."
        )
    target = folder / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
    return read


def _read(source: FileSource, entry: Entry, part: Path, progress: Callable[[int], None]) -> int:
    """Append what is missing of one file, over as many connections as it takes; returns the bytes that came."""
    came = failures = 0
    part.touch()
    while (have := part.stat().st_size) < entry.size:
        reason = "it ended early"
        try:
            with open(part, "ab") as file:
                for piece in _within(source.read(entry.path, have), entry.size - have):
                    file.write(piece)
                    progress(file.tell())
        except BrokenConnectionError as error:
            reason = str(error)
        more = part.stat().st_size - have
        came += more
        failures = 0 if more else failures + 1
        if failures:
            _pause(failures, reason)
    return came


def _read_whole(source: FileSource, path: str) -> bytes:
    """A small file, over as many connections as it takes."""
    failures = 0
    while True:
        try:
            return b"".join(_within(source.read(path, 0), MAX_BYTES))
        except BrokenConnectionError as error:
            failures += 1
            _pause(failures, str(error))


def _pause(failures: int, reason: str) -> None:
    """Wait before the next try.

    Raises:
        CommandError: there were enough.
    """
    if failures == _TRIES:
        raise CommandError(f"the connection broke {failures} times without any progress ({reason}): {AGAIN}")
    time.sleep(_PAUSE_SECONDS * 2 ** (failures - 1))


def _within(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The pieces, which must not be longer in all than announced."""
    for piece in pieces:
        size -= len(piece)
        if size < 0:
            raise CommandError("the cluster sends more bytes than its manifest says")
        yield piece
