"""Which files of a listing are a source's rows, and why each of the others is not read. It reads nothing.

The same for a volume, a bucket and a hub: what `spec.source.files` names; else, of the data files by their names, those
that an index names (the list of files of `datasets`' save_to_disk, a card), and of these one split: see `layout`.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import PurePosixPath
from typing import NamedTuple

from hone_api.dataset.dataset_status import NotReadFiles, NotReadReason
from hone_api.dataset.source import Source
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.readers.compression import SUFFIXES, base_name
from hone_trainer.datasets.sources import layout
from hone_trainer.datasets.sources.layout import DOCUMENTS, SPLITS, Indexes, join
from hone_trainer.errors import SourceError, StoreError

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".md")
CARD = "README.md"
MAX_INDEX_BYTES = 5 * 2**20
_MAX_INDEXES = 256
_MAX_FILES = 1_000_000
_NAMED = 5
_STATE = "state.json"
_DESCRIPTIONS = {
    *("dataset_infos.json", "dataset_info.json", "readme.txt", "croissant.json"),
    *(_STATE, SPLITS, CARD.lower(), "_metadata", "_common_metadata", "_success"),
    *(f"{name}{suffix}" for name in ("license", "licence", "notice", "copying") for suffix in ("", ".txt", ".md")),
}
"""Files that describe a data set, and hold no rows."""
_LICENCE = re.compile(
    r"(?:licen[cs]e|notice|copying)[-_.](?:mit|apache|bsd|l?gpl|agpl|mpl|cc|isc|unlicense)[\w.-]*\.(?:txt|md)"
)
_TEMPORARY = {"_temporary", "__pycache__", "__macosx", "lost+found"}
_PAGE = ".md"
"""Next to files of rows, Markdown describes them (NOTES.md); alone it is a corpus."""
_LINES = (".jsonl", ".ndjson", ".csv", ".tsv", *DOCUMENTS)
"""Kinds of files in which no byte means no row; in others it is damage."""
_CACHE = re.compile(r"cache-[0-9a-f]{16}(_\d+_of_\d+)?\.arrow")
"""What `datasets` writes next to a data set when rows are mapped or filtered."""
_TABLES = {
    "a Delta table": re.compile(r"(^|/)_delta_log/"),
    "an Iceberg table": re.compile(r"(^|/)metadata/([^/]+\.metadata\.json|version-hint\.text)$"),
    "a Hudi table": re.compile(r"(^|/)\.hoodie/"),
}

_SNAPSHOT = re.compile(r"((?:.*/)?)snapshots/([0-9a-f]{40})/")


class NameKind(StrEnum):
    """What stands behind a name."""

    FILE = "File"
    LOOP = "Loop"
    """A link to a folder that it is in: all that is behind it is read without it."""
    HIDDEN = "Hidden"
    """A folder that is not looked at."""
    DANGLING = "Dangling"
    OUTSIDE = "Outside"
    SPECIAL = "Special"
    UNREADABLE = "Unreadable"


_REFUSALS = {
    NameKind.DANGLING: (
        FailureCode.SOURCE_NOT_FOUND,
        "is a link to what is not there: copy the file itself (git annex get, dvc pull, git lfs pull)",
    ),
    NameKind.OUTSIDE: (FailureCode.SOURCE_REFUSED, "is a link that leads out of the source: copy what it points to"),
    NameKind.SPECIAL: (FailureCode.SOURCE_REFUSED, "is neither a file nor a folder: remove it"),
    NameKind.UNREADABLE: (FailureCode.STORAGE_ERROR, "cannot be read: let the pod's user (10001) read it"),
}


_MAY_BE_FOLDERS = {NameKind.DANGLING, NameKind.UNREADABLE}


class ListedName(NamedTuple):
    """One name of a listing; that of a folder ends with /."""

    size: int = 0
    kind: NameKind = NameKind.FILE
    identity: tuple[int, int] | None = None
    """The same for all names of one file."""
    is_linked: bool = False
    """Whether its path goes through a link."""
    why: str = ""


class FileChoice(NamedTuple):
    """The files to read, sorted, and all others by the reason."""

    files: list[str]
    not_read: list[NotReadFiles]


Reasons = dict[str, NotReadReason]


def index_names(listing: Mapping[str, ListedName], *, on_hub: bool = False) -> list[str]:
    """The files to read before `choose`. Of cards in folders, a hub's do not count, nor those of folders without rows.

    Raises:
        SourceError: SourceTooLarge when there are too many.
    """
    rows = () if on_hub else [name for name in listing if is_data(name) and not name.lower().endswith(DOCUMENTS)]
    folders = {"", *(str(folder) for name in rows for folder in PurePosixPath(name).parents)}
    names = [
        name
        for name, one in listing.items()
        if one.kind == NameKind.FILE
        and one.size <= MAX_INDEX_BYTES
        and (PurePosixPath(name).name in (_STATE, SPLITS) or (_is_card(name) and name[: -len(CARD) - 1] in folders))
        and not is_hidden(name)
    ]
    if len(names) > _MAX_INDEXES:
        message = (
            f"{len(names)} files named {CARD}, {_STATE} or {SPLITS}, more than {_MAX_INDEXES}: choose by source.files"
        )
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, message)
    return sorted(names)


def choose(listing: Mapping[str, ListedName], indexes: Indexes, source: Source, what: str) -> FileChoice:
    """The files of the source that hold its rows: one split, of one configuration.

    Args:
        what: the source, for messages.

    Raises:
        SourceError: SourceNotFound, SourceRefused, SourceTooLarge, SeveralSplits: there is none, one of them cannot be
            read, or it is for the spec to say which.
        StoreError: StorageError for what the pod's user may not read.
    """
    reasons: Reasons = {}
    if source.files:
        chosen = _matching(listing, source.files, what)
        reasons |= dict.fromkeys(listing.keys() - {*chosen}, NotReadReason.NOT_CHOSEN)
    else:
        _refuse_tables(listing, what)
        reasons |= {name: reason for name, one in listing.items() if (reason := _not_rows(name, one))}
        chosen = [name for name in listing if name not in reasons]
    _refuse_unreadable(chosen, listing, what)
    _leave(reasons, chosen, _same_files(chosen, listing), NotReadReason.SAME_FILE)
    if not source.files:
        _leave(reasons, chosen, _unlisted(chosen, listing, indexes, what), NotReadReason.NOT_LISTED)
        _leave(reasons, chosen, _others(chosen, _PAGE), NotReadReason.PAGE)
        _leave(reasons, chosen, layout.left_by_cards(chosen, indexes, source, what), NotReadReason.OTHER_SPLIT)
        of_split = layout.one_split(chosen, indexes, source, what)
        _leave(reasons, chosen, {*chosen} - {*of_split}, NotReadReason.OTHER_SPLIT)
        _refuse_columns_in_folders(chosen, what)
        empty = [name for name in chosen if not listing[name].size and base_name(name).endswith(_LINES)]
        _leave(reasons, chosen, empty if len(empty) < len(chosen) else (), NotReadReason.EMPTY)
    if not chosen:
        readable = f"{', '.join(DATA_SUFFIXES)}, or those with {' or '.join(SUFFIXES)}"
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{what} has no data file ({readable}){_has(reasons)}")
    if len(chosen) > _MAX_FILES:
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"{what} has {len(chosen)} files, more than {_MAX_FILES}")
    return FileChoice(sorted(chosen), counts(reasons))


def _is_card(name: str) -> bool:
    return PurePosixPath(name).name == CARD


def _refuse_columns_in_folders(chosen: Iterable[str], what: str) -> None:
    """Folders that are called by a column and its value, as Spark and pyarrow partition rows: no row has that value."""
    values: dict[str, set[str]] = {}
    for part in (part for name in chosen for part in PurePosixPath(name).parts[:-1]):
        column, equals, _ = part.partition("=")
        if equals and column:
            values.setdefault(column, set()).add(part)
    for column, folders in ((column, sorted(folders)) for column, folders in values.items() if len(folders) > 1):
        raise SourceError(
            FailureCode.SOURCE_REFUSED,
            f"{what} has the column {_short(column)} in names of folders alone ({_short(', '.join(folders[:4]))}): no"
            " row has its value. Choose folders in spec.source.files,"
            f" files: {json.dumps([f'*{_short(folders[0])}/*'])}, or all, without that column,"
            ' files: ["*=*"]',
        )


def counts(reasons: Mapping[str, NotReadReason]) -> list[NotReadFiles]:
    """Names by reason: how many there are, and the first ones."""
    by_reason: dict[NotReadReason, list[str]] = {}
    for name in sorted(reasons):
        by_reason.setdefault(reasons[name], []).append(name)
    return [
        NotReadFiles(reason=reason, count=len(names), first=[_short(name) for name in names[:_NAMED]])
        for reason, names in sorted(by_reason.items())
    ]


def _short(name: str) -> str:
    """A name for a status: on one line, and of bounded length."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return printable if len(printable) <= 120 else f"{printable[:59]}…{printable[-60:]}"


def _has(reasons: Reasons) -> str:
    """What is there instead."""
    groups = counts({name: reason for name, reason in reasons.items() if reason != NotReadReason.DESCRIPTION})
    return "; it has " + ", ".join(name for one in groups for name in one.first)[:300] if groups else ""


def _leave(reasons: Reasons, chosen: list[str], names: Collection[str], reason: NotReadReason) -> None:
    """Take names out of those that are chosen."""
    reasons |= dict.fromkeys(names, reason)
    chosen[:] = [name for name in chosen if name not in names]


def _matching(listing: Mapping[str, ListedName], patterns: Sequence[str], what: str) -> list[str]:
    """The names that match a glob, and folders that may hold such names; hidden ones for a glob that says so alone."""
    files = [name for name in listing if not name.endswith("/")]
    plain = [name for name in files if not is_hidden(name)]
    matches = {pattern: fnmatch.filter(files if is_hidden(pattern) else plain, pattern) for pattern in patterns}
    if idle := [pattern for pattern in patterns if not matches[pattern]]:
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{what}: no file matches {', '.join(idle)}")
    starts = [re.split(r"[*?[]", pattern)[0] for pattern in patterns]
    shut = (name for name, one in listing.items() if one.kind in _REFUSALS and name.endswith("/"))
    folders = (name for name in shut if any(_overlap(name, start) for start in starts))
    return list(dict.fromkeys([*itertools.chain.from_iterable(matches.values()), *folders]))


def _overlap(folder: str, start: str) -> bool:
    return folder.startswith(start) or start.startswith(folder)


def _refuse_tables(listing: Iterable[str], what: str) -> None:
    """Tables whose log says which files count: a removed row may still stand in one of the others."""
    for kind, mark in _TABLES.items():
        if example := next((name for name in listing if mark.search(name)), None):
            raise SourceError(
                FailureCode.SOURCE_REFUSED,
                f"{what} is {kind} ({_short(example)}), whose log says which files count. Export its rows, e.g. as"
                " Parquet, or, if every file counts, name them in spec.source.files",
            )
    revisions = {(match[1], match[2]) for name in listing if (match := _SNAPSHOT.match(name))}
    if len(revisions) > len({repository for repository, _ in revisions}):
        folders = ", ".join(f"{repository}snapshots/{revision}/*" for repository, revision in sorted(revisions)[:4])
        raise SourceError(
            FailureCode.SOURCE_REFUSED,
            f"{what} is a hub's cache with several revisions of a data set. Choose one in spec.source.files: {folders}",
        )


def _not_rows(name: str, one: ListedName) -> NotReadReason | None:
    """Why a name is none of a data file; None: it is one, or may be."""
    if one.kind == NameKind.HIDDEN or is_hidden(name):
        return NotReadReason.HIDDEN
    if one.kind == NameKind.LOOP:
        return NotReadReason.SAME_FILE
    if is_description(name):
        return NotReadReason.DESCRIPTION
    if is_data(name) or name.endswith("/") or (one.kind in _MAY_BE_FOLDERS and not PurePosixPath(name).suffix):
        return None
    return NotReadReason.UNKNOWN_KIND


def is_hidden(name: str) -> bool:
    """Whether a name begins with a dot or is of a folder that a system keeps for itself, or is below such a one."""
    return any(part.startswith(".") or part.lower() in _TEMPORARY for part in PurePosixPath(name).parts)


def is_description(name: str) -> bool:
    """Whether a file describes a data set, by its name."""
    base = base_name(PurePosixPath(name).name)
    return base in _DESCRIPTIONS or bool(_LICENCE.fullmatch(base))


def is_data(name: str) -> bool:
    """Whether a file of a repository holds rows, by its name."""
    return base_name(name).endswith(DATA_SUFFIXES) and not is_description(name)


def _refuse_unreadable(chosen: Iterable[str], listing: Mapping[str, ListedName], what: str) -> None:
    for name in chosen:
        one = listing[name]
        if one.kind in _REFUSALS:
            code, words = _REFUSALS[one.kind]
            error = StoreError if one.kind == NameKind.UNREADABLE else SourceError
            why = f" ({one.why})" if one.why else ""
            raise error(code, f"{what}: {_short(name)} {words}{why}. Or choose other files by spec.source.files")


def _others(chosen: Sequence[str], suffix: str) -> list[str]:
    """The names with this suffix, where there are others."""
    names = [name for name in chosen if base_name(name).endswith(suffix)]
    return names if len(names) < len(chosen) else []


def _same_files(chosen: Iterable[str], listing: Mapping[str, ListedName]) -> set[str]:
    """Further names of files: of all names of one, that without a link counts, then the first."""
    seen: set[tuple[int, int]] = set()
    same = set()
    for name in sorted(chosen, key=lambda name: (listing[name].is_linked, name)):
        identity = listing[name].identity
        if identity in seen:
            same.add(name)
        elif identity:
            seen.add(identity)
    return same


def _unlisted(chosen: list[str], listing: Mapping[str, ListedName], indexes: Indexes, what: str) -> set[str]:
    """Files that the index of their folder does not name.

    Raises:
        SourceError: SourceNotFound for a file that an index names and that is not there.
    """
    unlisted: set[str] = set()
    for index, document in indexes.documents.items():
        folder, files = index.rpartition("/")[0], document.get("_data_files")
        if not index.endswith(_STATE) or not isinstance(files, list):
            continue
        listed = {join(folder, str(one.get("filename"))) for one in files if isinstance(one, dict)}
        if absent := sorted(listed - listing.keys()):
            message = f"{what}: {_short(index)} names {_short(absent[0])}, which is not there: copy the whole folder"
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, message)
        unlisted |= {name for name in chosen if name.rpartition("/")[0] == folder and name not in listed}
    for name in chosen:
        folder, _, last = name.rpartition("/")
        if _CACHE.fullmatch(last) and join(folder, "dataset_info.json") in listing:
            unlisted.add(name)
    return unlisted
