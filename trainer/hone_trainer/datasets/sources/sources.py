"""Sources of rows: one function a scheme, in `SOURCES`. Each gives files in a stable order, without reading them."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hone_api.base.schemes import scheme_of
from hone_api.dataset.dataset_status import Croissant, NotReadFiles
from hone_api.plan import MaterializePlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.readers import remote
from hone_trainer.datasets.readers.read import DataFile, named
from hone_trainer.datasets.sources import croissant, listing
from hone_trainer.datasets.sources.layout import Indexes
from hone_trainer.datasets.sources.listing import ListedName, NameKind
from hone_trainer.endpoints import http
from hone_trainer.endpoints.http import Mark, UnchangedError
from hone_trainer.errors import SourceError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import hub, hub_card
from hone_trainer.store.deadline import Deadline

_HASHED_AT_ONCE = 4
_LINKED_FOLDERS = 10_000
"""Folders that links lead to, at most: links in such folders multiply them."""


@dataclass(frozen=True)
class Fetched:
    """Files of a source; revision is a hub commit, or a SHA-256: see `_identified`.

    mark identifies this content of the source without reading it; None: there is no mark. about is what the
    source's Croissant metadata says, where there is any.
    """

    files: list[DataFile]
    revision: str
    mark: str | None = None
    about: Croissant | None = None
    not_read: Sequence[NotReadFiles] = ()


LAPTOP = "pvc://laptop/"
"""Begins the URI of files that `validate` reads, which are in no claim."""


def shown(uri: str) -> str:
    """The URI for people and reports: without a query, which may hold a signature; a file of a laptop by its name."""
    return uri.partition("?")[0].partition("#")[0].removeprefix(LAPTOP)


def fetch(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    """The source's files, on a mount or where they are read by ranges. A web server's that gives no ranges is
    downloaded into folder.

    Raises:
        SourceError: missing, unreachable, refused, too large, or not what sha256 promised.
        UnchangedError: the source still has the mark plan.known.
    """
    scheme = scheme_of(plan.source.uri)
    if scheme not in SOURCES:
        raise SourceError(FailureCode.NOT_SUPPORTED_YET, f"source {scheme}://: this version knows {', '.join(SOURCES)}")
    return SOURCES[scheme](plan, folder, progress)


def _from_hub(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    deadline = Deadline.after(plan.limits.timeout_seconds)
    repository = hub.Repository.parse(plan.source.uri, "dataset", hub.token_of(plan.secret_path), deadline)
    snapshot = hub.look_up(repository)
    _compare(plan, snapshot.commit)
    entries = {name: ListedName(size) for name, size in snapshot.files.items()}
    about = hub_card.front_matter(repository, snapshot, folder)

    def get(wanted: Sequence[str]) -> Iterator[Path]:
        hub.download(repository, snapshot, [n for n in wanted if n != listing.CARD], folder, resumable=True)
        return (folder / name for name in wanted)  # the card is there

    names, not_read = _choose(plan, entries, str(repository), get)
    keys = {n: hub.ListedFile(snapshot.commit, n, snapshot.files[n], snapshot.digests[n]) for n in names}
    files = _remote(remote.HubFiles(plan, str(repository)), keys, str(repository), plan, folder)
    files = [file._replace(version=f"{snapshot.commit} {file.name}") for file in files]
    progress.log(f"reading {len(names)} files of {repository.name} at {snapshot.commit[:12]}")
    described = croissant.of_hub(repository, snapshot, about, folder)
    return Fetched(files, snapshot.commit, snapshot.commit, described, not_read)


def _remote(
    origin: remote.OriginFiles, keys: Mapping[str, Any], what: str, plan: MaterializePlan, folder: Path
) -> list[DataFile]:
    """Files that are read where they are, by their names.

    Raises:
        SourceError: SourceTooLarge.
    """
    if sum(key.size for key in keys.values()) > plan.limits.max_source_bytes:
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"{what}: over {plan.limits.max_source_bytes} bytes")
    path = folder / "remote"
    return [DataFile(path, name, _digest([name, str(key)]), origin, key) for name, key in keys.items()]


def _from_web(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    origin, target = remote.WebFile(plan, shown(plan.source.uri)), folder / "download"
    known_mark = Mark.parse(plan.known) if plan.known else None
    file = origin.client.find(plan.source.uri, target, progress.add_bytes, known_mark)
    progress.log(f"reading {file.name}")
    if isinstance(file, http.Ranged):
        files = _remote(origin, {file.name: file}, shown(plan.source.uri), plan, folder)
    else:
        files = [DataFile(target, file.name)]
        if not (file.ends_surely or plan.source.sha256):
            progress.log(f"{file.name}: the server does not say how long it is; sha256 would show a file that was cut")
    fetched = _identified(files, plan, str(file.mark) if file.mark else None)
    return replace(fetched, about=croissant.of_web(origin.client, plan.source.uri, folder))


def _from_s3(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    what = shown(plan.source.uri)
    origin = remote.BucketFiles(plan, what)
    bucket, path = origin.bucket, plan.source.uri.removeprefix("s3://").partition("/")[2]
    objects = bucket.list(path)
    deadline = Deadline.after(plan.limits.timeout_seconds)

    def get(wanted: Sequence[str]) -> Iterator[Path]:
        for number, name in enumerate(wanted):
            target = folder / f"index-{number}"
            bucket.download(objects[name], target, deadline.until, lambda _: None)
            yield target

    if [one.key for one in objects.values()] == [path]:
        names, not_read = listing.FileChoice([*objects], [])
    else:
        names, not_read = _choose(plan, {name: ListedName(one.size) for name, one in objects.items()}, what, get)
    files = _remote(origin, {name: objects[name] for name in names}, what, plan, folder)
    mark = _digest([[name, objects[name].size, objects[name].etag] for name in names])
    _compare(plan, mark)
    progress.log(f"reading {len(names)} files of {what}")
    about = croissant.of_bucket(bucket, path, folder, deadline.until)
    return replace(_identified(files, plan, mark), about=about, not_read=not_read)


def _from_mount(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    if plan.source_path is None:
        raise SourceError(
            FailureCode.SOURCE_NOT_FOUND, f"{shown(plan.source.uri)} is not mounted: the plan has no sourcePath"
        )
    path = Path(plan.source_path)
    root = _root(path)
    if not path.exists():
        names = sorted(each.name for each in path.parent.iterdir()) if path.parent.is_dir() else []
        names = [name for name in names if not name.startswith("..")]  # the kubelet's own, in a ConfigMap
        has = f"; next to it there are {', '.join(names[:10])}{', …' if len(names) > 10 else ''}" if names else ""
        raise SourceError(
            FailureCode.SOURCE_NOT_FOUND, f"{shown(plan.source.uri)}: there is no such file or folder{has}"[:1000]
        )
    inside = _inside(path, root)
    not_read: list[NotReadFiles] = []
    if inside.is_dir():
        entries = _walk(inside, root)
        get = functools.partial(map, inside.joinpath)
        names, not_read = _choose(plan, entries, shown(plan.source.uri), get)
        files = [DataFile(_inside(inside / name, root), name) for name in names]
    elif inside.is_file():
        files = [DataFile(inside, path.name)]
    else:  # a pipe would be read for ever
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{shown(plan.source.uri)} is neither a file nor a folder")
    stats = [file.path.stat() for file in files]
    if sum(stat.st_size for stat in stats) > plan.limits.max_source_bytes:
        raise SourceError(
            FailureCode.SOURCE_TOO_LARGE, f"{shown(plan.source.uri)}: over {plan.limits.max_source_bytes} bytes"
        )
    if plan.source.uri.startswith("configmap://"):  # its files are as new as the pod
        fetched = _identified(files, plan)
        _compare(plan, fetched.revision)
        return replace(fetched, mark=fetched.revision, not_read=not_read)
    mark = _digest([[file.name, stat.st_size, stat.st_mtime_ns] for file, stat in zip(files, stats, strict=True)])
    _compare(plan, mark)
    return replace(_identified(files, plan, mark), about=croissant.of_mount(inside, root), not_read=not_read)


def _compare(plan: MaterializePlan, mark: str) -> None:
    if plan.known == mark:
        raise UnchangedError


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _root(path: Path) -> Path:
    """The boundary of the source: the volume that it is on; on a laptop, the folder that it is or is in."""
    for parent in path.absolute().parents:
        if os.path.ismount(parent) and parent != Path("/"):
            return parent.resolve()
    return path.resolve() if path.is_dir() and not path.is_symlink() else path.parent.resolve()


def _walk(root: Path, boundary: Path) -> dict[str, ListedName]:
    """What is below root: files, folders that are not looked into (name/), and what cannot be read.

    Links to folders inside the boundary are followed.

    Raises:
        SourceError: SourceRefused for folders that are nested more deeply than a path can be long; SourceTooLarge for
            links that multiply folders.
    """
    names: dict[str, ListedName] = {}
    todo: list[_Folder] = [_Folder(root, "", None, None, False)]
    linked = 0
    while todo:  # no recursion: whoever made the source chose how deep it is
        folder = todo.pop()
        try:
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    name, below = _entry(entry, folder, boundary)
                    if isinstance(below, _Folder):
                        todo.append(below)
                        linked += below.is_linked
                    else:
                        names[name] = below
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                message = f"{folder.name[:80]}…: folders are nested too deeply to be read"
                raise SourceError(FailureCode.SOURCE_REFUSED, message) from None
            names[folder.name or "./"] = ListedName(kind=NameKind.UNREADABLE, why=error.strerror or str(error))
        if linked > _LINKED_FOLDERS:
            message = f"{folder.name[:80]}…: links lead to over {_LINKED_FOLDERS} folders: remove links"
            raise SourceError(FailureCode.SOURCE_TOO_LARGE, message)
    return names


@dataclass(frozen=True)
class _Folder:
    """A folder to look into; name ends with /."""

    path: Path
    name: str
    real: Path | None
    """Where it is, if a link leads there."""
    parent: _Folder | None
    is_linked: bool

    def is_in(self, real: Path) -> bool:
        """Whether it is this folder, or was reached through it."""
        folder: _Folder | None = self
        while folder:
            if (folder.real or folder.path) == real:
                return True
            folder = folder.parent
        return False


def _entry(entry: os.DirEntry[str], folder: _Folder, boundary: Path) -> tuple[str, ListedName | _Folder]:
    """The name of an entry in the source, and what it is."""
    name, is_link = f"{folder.name}{entry.name}", entry.is_symlink()
    path = folder.path / entry.name
    try:
        real = Path(os.path.realpath(path)) if is_link else None
        if real and not real.is_relative_to(boundary):
            return name + ("/" if real.is_dir() else ""), ListedName(kind=NameKind.OUTSIDE)
        if entry.is_dir():
            if listing.is_hidden(entry.name):
                return f"{name}/", ListedName(kind=NameKind.HIDDEN)
            if real and folder.is_in(real):
                return f"{name}/", ListedName(kind=NameKind.LOOP)
            return name, _Folder(path, f"{name}/", real, folder, folder.is_linked or is_link)
        about = entry.stat()
    except FileNotFoundError:
        return name, ListedName(kind=NameKind.DANGLING)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
        kind = NameKind.DANGLING if error.errno == errno.ELOOP else NameKind.UNREADABLE
        return name, ListedName(kind=kind, why=error.strerror or str(error))
    kind = NameKind.FILE if stat.S_ISREG(about.st_mode) else NameKind.SPECIAL
    return name, ListedName(about.st_size, kind, (about.st_dev, about.st_ino), folder.is_linked or is_link)


def _inside(path: Path, root: Path) -> Path:
    """The path without links, which must be inside root.

    Raises:
        SourceError: SourceRefused for a link that leads outside.
    """
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{path.name} is a link that leads out of the source")
    return resolved


Get = Callable[[Sequence[str]], Iterator[Path]]
"""Files of the source on this machine, by their names."""


def _choose(plan: MaterializePlan, entries: Mapping[str, ListedName], what: str, get: Get) -> listing.FileChoice:
    """The files that hold the source's rows, by its listing and its indexes.

    Raises:
        SourceError, StoreError: as `listing.choose`.
    """
    names = [] if plan.source.files else listing.index_names(entries, on_hub=plan.source.uri.startswith("hf://"))
    paths = dict(zip(names, get(names), strict=True))
    documents = {name: document for name, path in paths.items() if (document := _document(path))}
    cards = {name: hub_card.read(path) for name, path in paths.items() if name.endswith(listing.CARD)}
    return listing.choose(entries, Indexes(cards.pop(listing.CARD, {}), documents, cards), plan.source, what)


def _document(path: Path) -> dict[str, Any] | None:
    """The object in a file of JSON; None: there is none."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def of_files(paths: Sequence[Path], plan: MaterializePlan) -> Fetched:
    """Files of a laptop, in the order in which they were named.

    Raises:
        SourceError: SourceNotFound, SourceRefused or ChecksumMismatch.
    """
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"there is no file {', '.join(absent[:5])}")
    odd = [str(path) for path in paths if not path.is_file()]
    if odd:
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{', '.join(odd[:5])}: name either several files, or one folder")
    top = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return _identified([DataFile(path.resolve(), path.absolute().relative_to(top).as_posix()) for path in paths], plan)


def _identified(files: list[DataFile], plan: MaterializePlan, mark: str | None = None) -> Fetched:
    """With the SHA-256 as revision: of the file, or of all names and hashes.

    Files that are read where they are have their listing's, so that each is read once; one that sha256 promises is
    read for it first, and its mark shows a change.
    """
    if plan.source.sha256 is not None and len(files) != 1:
        raise SourceError(
            FailureCode.CHECKSUM_MISMATCH, f"sha256 is for one file, {shown(plan.source.uri)} has {len(files)}"
        )
    if plan.source.sha256 is None and any(file.origin for file in files):
        return Fetched(files, _digest([file.version for file in files]), mark)
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as threads:
        hashes = list(threads.map(_sha256, files))
    if plan.source.sha256 not in (None, hashes[0]):
        message = f"{files[0].name} has the SHA-256 {hashes[0]}, expected {plan.source.sha256}"
        raise SourceError(FailureCode.CHECKSUM_MISMATCH, message)
    files = [file._replace(version=sha) for file, sha in zip(files, hashes, strict=True)]
    if len(files) == 1:
        return Fetched(files, hashes[0], mark)
    listing = "".join(f"{sha}  {file.name}\n" for sha, file in zip(hashes, files, strict=True))
    return Fetched(files, hashlib.sha256(os.fsencode(listing)).hexdigest(), mark)


def _sha256(file: DataFile) -> str:
    with named(file), file.open() as plain:
        return hashlib.file_digest(plain, "sha256").hexdigest()


Fetcher = Callable[[MaterializePlan, Path, TaskProgress], Fetched]
SOURCES: dict[str, Fetcher] = {
    "hf": _from_hub,
    "https": _from_web,
    "s3": _from_s3,
    "pvc": _from_mount,
    "configmap": _from_mount,
}
