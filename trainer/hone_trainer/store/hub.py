"""Hugging Face Hub repositories: look up a commit, download it. Every error has a failure code.

`HF_ENDPOINT` names the hub, e.g. a mirror. Importing this module does not import huggingface_hub, which reads its
settings at import: the training image sets HF_HUB_OFFLINE=1.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from hone_api.words.failures import FailureCode
from hone_trainer.errors import SourceError
from hone_trainer.secrets import read_key, remember, secret_name
from hone_trainer.store.deadline import NO_END, Deadline, LateError
from hone_trainer.store.ranged import BUSY, SLOWEST, BrokenOffError, check_range

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_URI = re.compile(r"^hf://(?P<repo>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>[^\s]+))?$")
_SILENT_SECONDS = 60
_HASHED_AT_ONCE = 4
NOT_FOUND = {"model": FailureCode.MODEL_NOT_FOUND, "dataset": FailureCode.DATASET_SOURCE_NOT_FOUND}


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, the token to ask with, and the deadline. kind is model or dataset."""

    name: str
    revision: str = "main"
    kind: str = "model"
    token: str | None = None
    deadline: Deadline = NO_END

    @classmethod
    def parse(cls, uri: str, kind: str, token: str | None = None, deadline: Deadline = NO_END) -> Repository:
        """Parse hf://owner/name[@revision]."""
        match = _URI.match(uri)
        if match is None:
            raise SourceError(FailureCode.SOURCE_REFUSED, f"{uri} is not hf://owner/name[@revision]")
        return cls(match["repo"], match["revision"] or "main", kind, token, deadline)

    def __str__(self) -> str:
        return f"hf://{self.name}@{self.revision}"


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit: file names to sizes in bytes."""

    commit: str
    files: dict[str, int]
    digests: dict[str, str] = field(default_factory=dict)
    """By file name: the SHA-256 where the hub knows it, else git's blob id, which is a SHA-1; in hexadecimal digits."""


def token_of(secret_path: str | None) -> str | None:
    """The hub token: key HF_TOKEN of the mounted secret, else the environment's HF_TOKEN (on a laptop).

    Raises:
        SourceError: SecretNotFound or SecretKeyNotFound.
    """
    if secret_path is None:
        token = os.environ.get("HF_TOKEN") or None
        if token:
            remember(token)
        return token
    return secret_key(secret_path, "HF_TOKEN")


def secret_key(secret_path: str, key: str) -> str:
    """One key of a mounted secret.

    Raises:
        SourceError: SecretNotFound or SecretKeyNotFound.
    """
    name = secret_name(secret_path)
    try:
        value = read_key(secret_path, key)
    except FileNotFoundError:
        way_out = f"kubectl create secret generic {name or 'NAME'} --from-literal={key}=…"
        raise SourceError(
            FailureCode.SECRET_NOT_FOUND,
            f"Secret {name or 'named in secretName'} (key {key}) does not exist in this namespace: {way_out}",
        ) from None
    if not value:
        raise SourceError(FailureCode.SECRET_KEY_NOT_FOUND, f"Secret {name or 'named in secretName'} has no key {key}")
    return value


def look_up(repository: Repository) -> Snapshot:
    """The commit that the revision names at present, and its files.

    Raises:
        SourceError: ModelNotFound, DatasetSourceNotFound, GatedModelAccessDenied, RevisionNotFound, SourceUnreachable.
    """
    go_online()
    with _translated(repository):
        (snapshot,) = repository.deadline.run([partial(_look_up, repository)])
    if outside := [name for name in snapshot.files if not _is_inside(name)]:
        raise SourceError(
            FailureCode.SOURCE_REFUSED, f"{repository}: the hub names a file outside of it: {outside[0]!r}"
        )
    return snapshot


def commit_of(repository: Repository) -> str:
    """The commit that the revision names at present: one question to the hub.

    Raises:
        SourceError: as `look_up`.
    """
    go_online()
    with _translated(repository):
        (commit,) = repository.deadline.run([partial(_commit, repository)])
    return commit


def _commit(repository: Repository) -> str:
    info = _api(repository).repo_info(repository.name, repo_type=repository.kind, revision=repository.revision)
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", info.sha or ""):
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{repository}: the hub returns no commit: {info.sha!r}")
    return str(info.sha)


def _api(repository: Repository) -> HfApi:
    from huggingface_hub import HfApi

    # False, not None: None would fall back to a token stored on this machine.
    return HfApi(token=repository.token or False)


def _look_up(repository: Repository) -> Snapshot:
    from huggingface_hub.hf_api import RepoFile

    commit = _commit(repository)
    tree = _api(repository).list_repo_tree(repository.name, recursive=True, revision=commit, repo_type=repository.kind)
    files = [file for file in tree if isinstance(file, RepoFile)]
    digests = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}
    return Snapshot(commit, {file.path: file.size for file in files}, digests)


def differing(snapshot: Snapshot, names: Sequence[str], folder: Path) -> list[str]:
    """Those of the files in a folder whose content is not that of the snapshot."""
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as threads:
        same = threads.map(lambda name: _has_digest(folder / name, snapshot.digests[name]), names)
        return [name for name, is_same in zip(names, same, strict=True) if not is_same]


def is_sha256(digest: str) -> bool:
    """Whether a digest that the hub lists is of the content alone: of a large file. The others are git's."""
    return len(digest) == 64


def _has_digest(path: Path, digest: str) -> bool:
    hasher = (
        hashlib.sha256()
        if is_sha256(digest)
        else hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    )
    with open(path, "rb") as file:
        while data := file.read(2**20):
            hasher.update(data)
    return hasher.hexdigest() == digest


def download(
    repository: Repository, snapshot: Snapshot, names: Sequence[str], folder: Path, resumable: bool = False
) -> None:
    """Download the named files of the snapshot into a folder, as plain files. The limit is the deadline, or the seconds
    that their size takes at `SLOWEST` if that is longer.

    Args:
        resumable: leave notes of the library in the folder, by which another call goes on where this one ends.

    Raises:
        SourceError: as `look_up`.
    """
    go_online()
    from huggingface_hub import hf_hub_download

    get = partial(
        hf_hub_download,
        repository.name,
        repo_type=repository.kind,
        revision=snapshot.commit,
        token=repository.token or False,
        local_dir=folder,
    )
    deadline = repository.deadline.at_least(sum(snapshot.files.get(name, 0) for name in names) / SLOWEST)
    with _translated(repository):
        # Not snapshot_download: at its end the process waits for the download threads, however long that takes.
        deadline.run([partial(get, name) for name in names])
    if not resumable:
        forget_download(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise SourceError(
            FailureCode.SOURCE_UNREACHABLE, f"{repository}: the hub did not send {', '.join(missing[:5])}"
        )


def forget_download(folder: Path) -> None:
    """Remove the library's notes about the files that it downloaded into a folder."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)


class ListedFile(NamedTuple):
    """A file of a commit, as the hub lists it."""

    commit: str
    name: str
    size: int
    digest: str


def read(repository: Repository, file: ListedFile, begin: int, end: int, seconds: float) -> Iterator[bytes]:
    """The bytes [begin, end) of a file as they come.

    Raises:
        BrokenOffError: another try may get the rest.
        SourceError: ChecksumMismatch when it is another file than the hub lists; as `look_up`.
    """
    go_online()
    import httpx2
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    what, until = f"{repository}: {file.name}", time.monotonic() + seconds
    url = hf_hub_url(repository.name, file.name, repo_type=repository.kind, revision=file.commit)
    headers = {**build_hf_headers(token=repository.token or False), "Accept-Encoding": "identity"}
    headers["Range"] = f"bytes={begin}-{end - 1}"
    try:
        with get_session().stream("GET", url, headers=headers, timeout=_SILENT_SECONDS) as response:
            if response.status_code in BUSY:
                raise BrokenOffError(f"the hub answers {response.status_code}", response.headers.get("Retry-After"))
            with _translated(repository):
                hf_raise_for_status(response)
            for answer in (*response.history, response):
                digest = answer.headers.get("X-Linked-Etag", answer.headers.get("ETag", "")).strip('W/"')
                if len(digest) == len(file.digest) and digest != file.digest:
                    raise SourceError(FailureCode.CHECKSUM_MISMATCH, f"{what} is not the file that the hub lists")
            check_range(what, response.headers, begin, file.size)
            for chunk in response.iter_raw(2**20):
                yield chunk
                if time.monotonic() > until:
                    raise BrokenOffError(f"it took longer than {seconds:.0f} s")
    except (httpx2.HTTPError, OSError) as error:
        raise BrokenOffError(error) from None


def metadata(repository: Repository) -> bytes:
    """The Croissant metadata that the hub generates for a data set; empty if it generates none.

    Raises:
        SourceError: as `look_up`.
    """
    go_online()
    from huggingface_hub.utils import build_hf_headers, get_session

    url = f"{_endpoint()}/api/datasets/{repository.name}/croissant"
    get = partial(get_session().get, url, headers=build_hf_headers(token=repository.token or False), timeout=60)
    with _translated(repository):
        (answer,) = repository.deadline.run([get])
    return bytes(answer.content) if answer.status_code == 200 else b""


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def go_online() -> None:
    """Make huggingface_hub use the network whatever HF_HUB_OFFLINE says. Call before it is imported."""
    os.environ["HF_HUB_OFFLINE"] = "0"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HOME", str(Path(tempfile.gettempdir()) / "huggingface"))


@contextmanager
def _translated(repository: Repository) -> Iterator[None]:
    """Turn errors of huggingface_hub into TrainerErrors."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except LateError as error:
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"the hub at {_endpoint()}, {repository}: {error}") from None
    # GatedRepoError is a subclass of RepositoryNotFoundError, so it is caught first.
    except errors.GatedRepoError:
        who = "this token has" if repository.token else "no token was given, so it has"
        message = f"{repository} is gated and {who} no access"
        raise SourceError(FailureCode.GATED_MODEL_ACCESS_DENIED, message) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError, errors.DisabledRepoError):
        message = f"the hub has no {repository.kind} {repository.name}, or it is private and the token cannot see it"
        raise SourceError(NOT_FOUND[repository.kind], message) from None
    except errors.RevisionNotFoundError:
        message = f"{repository.name} has no revision {repository.revision}"
        raise SourceError(FailureCode.REVISION_NOT_FOUND, message) from None
    except errors.HfHubHTTPError as error:
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{repository}: {_first_line(error)}") from None
    except (httpx2.HTTPError, errors.LocalEntryNotFoundError, errors.FileMetadataError, ConnectionError) as error:
        message = f"the hub at {_endpoint()} cannot be reached for {repository}: {_first_line(error)}"
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, message) from None


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
