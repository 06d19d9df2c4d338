"""manifest.json: path, size and SHA-256 of each file of a folder. A folder is complete when it exists.

It is written last, by rename, after every file was flushed to the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hone_api.contract.manifest import ADDED, MANIFEST, MAX_BYTES, Entry, Manifest, manifest_digest
from hone_api.words.failures import FailureCode
from hone_trainer.errors import StoreError

_CHUNK = 4 * 2**20
_HASHED_AT_ONCE = 4
"""Files; a hash runs without Python's lock."""


@dataclass(frozen=True)
class VerifiedFolder:
    """A folder whose every file matches. digest is 'sha256:' and the SHA-256 of manifest.json."""

    digest: str
    files: int
    size_bytes: int


def write(folder: str | Path, hashes: Mapping[str, str] | None = None) -> str:
    """Hash and flush every file of the folder, then write its manifest.json.

    Args:
        hashes: SHA-256 of files by their path: of those that were hashed as they were written.

    Returns:
        'sha256:' and the SHA-256 of manifest.json.

    Raises:
        StoreError: ManifestMismatch, for a link or device in the folder, or more files than a manifest may list.
    """
    root = Path(folder)
    paths = list(_files(root))
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as threads:
        entries = list(threads.map(lambda path: _flushed(root, path, (hashes or {}).get(path)), paths))
    for directory in {(root / path).parent for path in paths} | {root}:
        flush_directory(directory)
    text = json.dumps(Manifest(files=entries).model_dump(), indent=1, sort_keys=True).encode() + b"\n"
    if len(text) > MAX_BYTES:
        raise _mismatch(root, [f"too many files: {MANIFEST} would have {len(text)} bytes, more than {MAX_BYTES}"])
    write_atomically(root / MANIFEST, text)
    return manifest_digest(text)


def verify(
    folder: str | Path, digest: str | None = None, hashed: Callable[[str], bool] = lambda path: True
) -> VerifiedFolder:
    """Hash every file of the folder again.

    Args:
        folder: a folder with a manifest.json.
        digest: expected digest of manifest.json; None skips that comparison.
        hashed: whether the content of the file at a path is compared; of the others only whether they are there.

    Raises:
        StoreError: ManifestMismatch, naming each file that differs, is missing or is not listed (the first ten); also
            when the folder is removed or replaced while it is read.
    """
    try:
        return _verified(Path(folder), digest, hashed)
    except FileNotFoundError as error:
        raise _mismatch(Path(folder), [f"{error.filename}: removed while the folder was read"]) from None


def _verified(root: Path, digest: str | None, hashed: Callable[[str], bool]) -> VerifiedFolder:
    text = _read_manifest(root)
    if digest is not None and manifest_digest(text) != digest:
        raise _mismatch(root, [f"{MANIFEST}: digest is {manifest_digest(text)}, expected {digest}"])
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise _mismatch(root, [f"{MANIFEST} is not a manifest: {error.errors()[0]['msg']}"]) from None
    listed = {entry.path: entry for entry in manifest.files}
    problems = [f"{path}: not a path inside the folder" for path, entry in listed.items() if not entry.is_inside]
    if problems or len(listed) != len(manifest.files):
        raise _mismatch(root, problems or [f"{MANIFEST} lists a path twice"])
    present = set(_files(root))
    problems = [f"{path}: missing" for path in sorted(set(listed) - present)]
    problems += [f"{path}: not in the manifest" for path in sorted(present - set(listed))]
    both = sorted(path for path in present & set(listed) if hashed(path))
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as threads:
        problems += filter(None, threads.map(lambda path: _difference(root, listed[path]), both))
    if problems:
        raise _mismatch(root, problems)
    return VerifiedFolder(manifest_digest(text), len(listed), sum(e.size for e in manifest.files))


def is_complete(folder: str | Path) -> bool:
    """Whether the folder has a manifest.json: all its files were written. It does not hash them; `verify` does."""
    return (Path(folder) / MANIFEST).is_file()


def digest_of(folder: str | Path) -> str:
    """'sha256:' and the SHA-256 of the folder's manifest.json, without hashing the other files."""
    return manifest_digest(_read_manifest(Path(folder)))


def size_of(folder: str | Path) -> int:
    """Bytes of all files that the folder's manifest lists."""
    return sum(entry.size for entry in read_entries(folder))


def read_entries(folder: str | Path) -> list[Entry]:
    """What the folder's manifest lists."""
    return Manifest.model_validate_json(_read_manifest(Path(folder))).files


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either absent, or complete and on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    flush_directory(path.parent)


def _read_manifest(root: Path) -> bytes:
    path = root / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise _mismatch(root, [f"{MANIFEST}: missing"])
    with open(path, "rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise _mismatch(root, [f"{MANIFEST}: {path.stat().st_size} bytes, more than {MAX_BYTES}"])
    return text


def _files(root: Path) -> list[str]:
    """Relative paths of all files below root except its manifest and what is added to it, sorted. Links and devices are
    refused."""
    own = {root / name for name in (MANIFEST, *ADDED)}
    scan: list[Path] = []
    todo = [root]
    while todo:  # no recursion: whoever made the folder chose how deep it is
        for path, mode in _level(root, todo.pop()):
            if stat.S_ISDIR(mode):
                todo.append(path)
            elif not stat.S_ISREG(mode):
                name = path.relative_to(root).as_posix()
                raise _mismatch(root, [f"{name}: neither a file nor a folder (links are refused)"])
            elif path not in own:
                scan.append(path)
    return [path.relative_to(root).as_posix() for path in sorted(scan)]


def _level(root: Path, folder: Path) -> list[tuple[Path, int]]:
    """What is in a folder below root, with its mode."""
    try:
        return [(path, path.lstat().st_mode) for path in folder.iterdir()]
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _mismatch(root, [f"{folder.relative_to(root).as_posix()[:80]}…: nested too deeply"]) from None
        raise


def _flushed(root: Path, path: str, sha256: str | None) -> Entry:
    descriptor = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    return Entry(path=path, size=size, sha256=sha256) if sha256 else _entry(root, path)


def _entry(root: Path, path: str) -> Entry:
    hasher, size = hashlib.sha256(), 0
    descriptor = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return Entry(path=path, size=size, sha256=hasher.hexdigest())


def _difference(root: Path, expected: Entry) -> str | None:
    size = (root / expected.path).lstat().st_size
    if size != expected.size:
        return f"{expected.path}: {size} bytes, expected {expected.size}"
    actual = _entry(root, expected.path)
    return None if actual == expected else f"{expected.path}: SHA-256 is {actual.sha256}, expected {expected.sha256}"


def flush_directory(directory: Path) -> None:
    """Write a directory's entries to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mismatch(root: Path, problems: list[str]) -> StoreError:
    more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    return StoreError(FailureCode.MANIFEST_MISMATCH, f"{root}: {'; '.join(problems[:10])}{more}")
