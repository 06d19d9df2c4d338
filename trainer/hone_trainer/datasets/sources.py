"""Sources of rows: one function a scheme, in `SOURCES`. Each gives local files in a stable order."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from hone_api.dataset_status import Croissant
from hone_api.failures import FailureCode
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import croissant, downloads, layout, s3
from hone_trainer.datasets.compression import SUFFIXES, base_name
from hone_trainer.datasets.read import DataFile, named
from hone_trainer.endpoints.http import Client, Mark, UnchangedError, checked
from hone_trainer.errors import SourceError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import hub, hub_card
from hone_trainer.store.deadline import Deadline

_log = logging.getLogger(__name__)
DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".md")
_MAX_FILES = 10_000
_HASHED_AT_ONCE = 4
# Files that describe a data set in a repository and hold no rows.
_NOT_ROWS = {
    "dataset_infos.json",
    "dataset_info.json",
    "dataset_dict.json",
    "state.json",
    "readme.md",
    "croissant.json",
    "readme.txt",
    *(f"{name}{suffix}" for name in ("license", "licence", "notice", "copying") for suffix in (".txt", ".md")),
}
_LICENCE = re.compile(
    r"(?:licen[cs]e|notice|copying)[-_.](?:mit|apache|bsd|l?gpl|agpl|mpl|cc|isc|unlicense)[\w.-]*\.(?:txt|md)"
)
_PAGE = ".md"
"""Next to files of rows, Markdown describes them (NOTES.md); alone it is a corpus."""
_DOCUMENTS = (".txt", _PAGE)


@dataclass(frozen=True)
class Fetched:
    """Files of a source; revision is a hub commit, or the SHA-256 of the content.

    mark identifies this content of the source without reading it; None: there is no mark. about is what the
    source's Croissant metadata says, where there is any. left_out are pages about the rows, which are not read.
    """

    files: list[DataFile]
    revision: str
    mark: str | None = None
    about: Croissant | None = None
    left_out: tuple[str, ...] = ()


def shown(uri: str) -> str:
    """The URI for people and reports: without a query, which may hold a signature."""
    return uri.partition("?")[0].partition("#")[0]


def fetch(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    """The source's files: where they are mounted, or downloaded into folder.

    Raises:
        SourceError: missing, unreachable, refused, too large, or not what sha256 promised.
        UnchangedError: the source still has the mark plan.known.
    """
    scheme = plan.source.uri.partition("://")[0]
    if scheme not in SOURCES:
        raise SourceError(FailureCode.NOT_SUPPORTED_YET, f"source {scheme}://: this version has {', '.join(SOURCES)}")
    return SOURCES[scheme](plan, folder, progress)


def _from_hub(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    deadline = Deadline.after(plan.limits.timeout_seconds)
    repository = hub.Repository.parse(plan.source.uri, "dataset", hub.token_of(plan.secret_path), deadline)
    snapshot = hub.look_up(repository)
    _compare(plan, snapshot.commit)
    names, pages = _choose_files(snapshot.files, plan.source.files, str(repository))
    about = hub_card.front_matter(repository, snapshot, folder)
    if not plan.source.files:
        names = layout.choose(names, about, plan.source.config, plan.source.split, str(repository))
    if sum(snapshot.files[name] for name in names) > plan.limits.max_source_bytes:
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"{repository}: over {plan.limits.max_source_bytes} bytes")
    progress.log(f"downloading {len(names)} files of {repository.name} at {snapshot.commit[:12]}")
    _download(repository, snapshot, names, folder)
    files = [DataFile(folder / name, name, f"{snapshot.commit} {name}") for name in names]
    described = croissant.of_hub(repository, snapshot, about, folder)
    return Fetched(files, snapshot.commit, snapshot.commit, described, pages)


def _download(repository: hub.Repository, snapshot: hub.Snapshot, names: list[str], folder: Path) -> None:
    """Those of the files that are not in the folder, or are not what the hub lists."""
    for _ in range(2):
        there = [name for name in names if (folder / name).is_file()]
        for name in (others := hub.differing(snapshot, there, folder)):
            (folder / name).unlink()
        kept = {*there} - {*others}
        if not (wanted := [name for name in names if name not in kept]):
            return
        hub.download(repository, snapshot, wanted, folder, resumable=True)
        if not (others := hub.differing(snapshot, wanted, folder)):
            return
    raise SourceError(
        FailureCode.CHECKSUM_MISMATCH, f"{repository}: {others[0]} is not the file that the hub lists, twice"
    )


def _from_web(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    authorization = hub.secret_key(plan.secret_path, "AUTHORIZATION") if plan.secret_path else None
    path = unquote(checked(plan.source.uri).path)
    name = "".join(c for c in PurePosixPath(path).name if c.isprintable())[-100:] or "data"
    target = folder / "download"
    progress.log(f"downloading {name}")
    known_mark = Mark.parse(plan.known) if plan.known else None
    client = Client(plan.limits, authorization)
    mark = client.download(plan.source.uri, target, progress.add_bytes, known_mark)
    fetched = _hash_files([DataFile(target, name)], plan, str(mark) if mark else None)
    return replace(fetched, about=croissant.of_web(client, plan.source.uri, folder))


def _from_s3(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    bucket, what = s3.Bucket.of(plan), shown(plan.source.uri)
    path = plan.source.uri.removeprefix("s3://").partition("/")[2]
    objects = bucket.list(path)
    names, pages = _choose_files({name: one.size for name, one in objects.items()}, plan.source.files, what)
    _check_one_split(names, plan.source.files, what)
    if sum(objects[name].size for name in names) > plan.limits.max_source_bytes:
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"{what}: over {plan.limits.max_source_bytes} bytes")
    mark = _digest([[name, objects[name].size, objects[name].etag] for name in names])
    _compare(plan, mark)
    progress.log(f"downloading {len(names)} files of {what}")
    deadline = Deadline.after(plan.limits.timeout_seconds)
    # Keys are anything, so files are called by their hash.
    files = [DataFile(folder / hashlib.sha256(name.encode()).hexdigest(), name) for name in names]
    downloads.fetch([_of_object(bucket, objects[f.name], f, deadline, progress) for f in files], deadline)
    about = croissant.of_bucket(bucket, path, folder, deadline.until)
    return replace(_hash_files(files, plan, mark), about=about, left_out=pages)


def _of_object(
    bucket: s3.Bucket, one: s3.Object, file: DataFile, deadline: Deadline, progress: TaskProgress
) -> downloads.Download:
    def get(path: Path) -> None:
        bucket.download(one, path, deadline.until, progress.add_bytes)

    return downloads.Download(file.name, file.path, f"{one.key} {one.size} {one.etag}", get)


def _from_mount(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> Fetched:
    if plan.source_path is None:
        raise SourceError(
            FailureCode.SOURCE_NOT_FOUND, f"{shown(plan.source.uri)} is not mounted: the plan has no sourcePath"
        )
    path = Path(plan.source_path)
    root = _root(path)
    if not path.exists():
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{shown(plan.source.uri)}: there is no such file or folder")
    inside = _inside(path, root)
    pages: tuple[str, ...] = ()
    if inside.is_dir():
        by_path = {p.relative_to(inside).as_posix(): p for p in _walk(inside)}
        names, pages = _choose_files({name: 0 for name in by_path}, plan.source.files, shown(plan.source.uri))
        _check_one_split(names, plan.source.files, shown(plan.source.uri))
        files = [DataFile(_inside(by_path[name], root), name) for name in names]
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
        fetched = _hash_files(files, plan)
        _compare(plan, fetched.revision)
        return replace(fetched, mark=fetched.revision, left_out=pages)
    mark = _digest([[file.name, stat.st_size, stat.st_mtime_ns] for file, stat in zip(files, stats, strict=True)])
    _compare(plan, mark)
    return replace(_hash_files(files, plan, mark), about=croissant.of_mount(inside, root), left_out=pages)


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


def _walk(root: Path) -> list[Path]:
    """Files below root; hidden ones and folders behind links are not looked at (a config map's are both).

    Raises:
        SourceError: SourceRefused for folders that are nested more deeply than a path can be long.
    """
    paths: list[Path] = []
    todo = [root]
    while todo:  # no recursion: whoever made the source chose how deep it is
        folder = todo.pop()
        try:
            for path in folder.iterdir():
                if path.name.startswith((".", "lost+found")):
                    continue
                if path.is_dir() and not path.is_symlink():
                    todo.append(path)
                elif path.is_file():
                    paths.append(path)
        except PermissionError:
            _log.warning("%s cannot be read, and is left out", folder.relative_to(root))
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            name = folder.relative_to(root).as_posix()[:80]
            raise SourceError(
                FailureCode.SOURCE_REFUSED, f"{name}…: folders are nested too deeply to be read"
            ) from None
    return sorted(paths)


def _inside(path: Path, root: Path) -> Path:
    """The path without links, which must be inside root.

    Raises:
        SourceError: SourceRefused for a link that leads outside.
    """
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        raise SourceError(FailureCode.SOURCE_REFUSED, f"{path.name} is a link that leads out of the source")
    return resolved


def _choose_files(
    names: dict[str, int], patterns: Sequence[str] | None, what: str
) -> tuple[list[str], tuple[str, ...]]:
    """The names that match the globs, or all data files, and the pages next to them that are left out; sorted.

    Raises:
        SourceError: SourceNotFound when there is none, or a glob matches nothing.
    """
    pages: tuple[str, ...] = ()
    if patterns:
        idle = [p for p in patterns if not fnmatch.filter(names, p)]
        if idle:
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{what}: no file matches {', '.join(idle)}")
        chosen = sorted(name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns))
    else:
        data_files = sorted(name for name in names if is_data(name))
        rows = [name for name in data_files if not base_name(name).endswith(_PAGE)]
        chosen, pages = (rows, tuple(name for name in data_files if name not in {*rows})) if rows else (data_files, ())
    if not chosen:
        readable = f"{', '.join(DATA_SUFFIXES)}, or those with {' or '.join(SUFFIXES)}"
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{what} has no data file ({readable})")
    if len(chosen) > _MAX_FILES:
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"{what} has {len(chosen)} files, more than {_MAX_FILES}")
    return chosen, pages


def _check_one_split(names: Sequence[str], patterns: Sequence[str] | None, what: str) -> None:
    """Refuse a folder whose files are splits, if the spec does not choose one: test rows must not be trained on.

    Raises:
        SourceError: SeveralSplits.
    """
    by_split = splits_of(names)
    if patterns or len(by_split) < 2:
        return
    globs = "; ".join(f"{split}: files: {json.dumps(_glob(files))}" for split, files in by_split.items())
    every = json.dumps(sorted({f"*{PurePosixPath(name).suffix}" for name in names}))
    raise SourceError(
        FailureCode.SEVERAL_SPLITS,
        f"{what} has the files of several splits. Choose one in spec.source.files ({globs}), and make a Dataset of "
        f"each; to split all rows again, write files: {every}"[:1000],
    )


def splits_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split in their names, train first."""
    texts = [name for name in names if base_name(name).endswith(_DOCUMENTS)]
    by_split = layout.by_name([name for name in names if name not in {*texts}])
    for split, files in layout.documents(texts).items():
        by_split.setdefault(split, []).extend(files)
    return {split: by_split[split] for split in (layout.TRAIN, "validation", "test") if split in by_split}


def _glob(files: Sequence[str]) -> list[str]:
    """Names or a glob that choose these files."""
    folders = {PurePosixPath(name).parent.as_posix() for name in files}
    if len(files) > 1 and len(folders) == 1 and "." not in folders:
        return [f"{folders.pop()}/*{PurePosixPath(files[0]).suffix}"]
    return list(files[:8])


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
    return _hash_files([DataFile(path.resolve(), path.absolute().relative_to(top).as_posix()) for path in paths], plan)


def is_data(name: str) -> bool:
    """Whether a file of a repository holds rows, by its name."""
    base = base_name(PurePosixPath(name).name)
    return base not in _NOT_ROWS and not _LICENCE.fullmatch(base) and base.endswith(DATA_SUFFIXES)


def _hash_files(files: list[DataFile], plan: MaterializePlan, mark: str | None = None) -> Fetched:
    """With the SHA-256 as revision: of the file, or of all names and hashes."""
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as threads:
        hashes = list(threads.map(_sha256, files))
    if plan.source.sha256 is not None:
        if len(files) != 1:
            raise SourceError(
                FailureCode.CHECKSUM_MISMATCH, f"sha256 is for one file, {shown(plan.source.uri)} has {len(files)}"
            )
        if hashes[0] != plan.source.sha256:
            message = f"{files[0].name} has the SHA-256 {hashes[0]}, expected {plan.source.sha256}"
            raise SourceError(FailureCode.CHECKSUM_MISMATCH, message)
    files = [file._replace(version=sha) for file, sha in zip(files, hashes, strict=True)]
    if len(files) == 1:
        return Fetched(files, hashes[0], mark)
    listing = "".join(f"{sha}  {file.name}\n" for sha, file in zip(hashes, files, strict=True))
    return Fetched(files, hashlib.sha256(listing.encode()).hexdigest(), mark)


def _sha256(file: DataFile) -> str:
    with named(file):
        return downloads.sha256_of(file.path)


Fetcher = Callable[[MaterializePlan, Path, TaskProgress], Fetched]
SOURCES: dict[str, Fetcher] = {
    "hf": _from_hub,
    "https": _from_web,
    "s3": _from_s3,
    "pvc": _from_mount,
    "configmap": _from_mount,
}
