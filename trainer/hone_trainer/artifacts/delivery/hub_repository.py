"""hf:// targets: one commit on main of a repository of the hub, then the tag of the version.

Large files are uploaded before the commit, under their SHA-256; what a killed upload left there is used again. The
commit is atomic, and the tag comes last, after the hashes that the hub lists were compared with the original's.

The title of the commit names model and version. A delivery touches main only if the newest of these titles is of the
same model and its manifest lists every file there. If it is of a later version, main stays, and the commit is made on a
branch that is deleted once the commit has its tag.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

from hone_api.contract.manifest import ADDED, MANIFEST, MAX_BYTES, Entry
from hone_api.contract.report import DeliverResult
from hone_api.plan import DeliverPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery.capacity import is_full
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.errors import SourceError, StoreError, TrainerError
from hone_trainer.store import hub, manifest
from hone_trainer.store.deadline import Deadline, LateError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

_TITLE = re.compile(r"Deliver (.+) v(\d+)")
_OWN = ".gitattributes"
"""File that the hub itself adds to a new repository."""
_AGAIN = (408, 409, 412, 429)
"""Answers of a hub that is busy, and of one that somebody else writes to at the same time."""


@dataclass(frozen=True)
class _Content:
    """A file, and the hashes by which the hub lists it: SHA-256 of a large one, git's of others."""

    original: Original
    entry: Entry

    def is_listed(self, digest: str | None) -> bool:
        return digest is not None and digest == (self.entry.sha256 if hub.is_sha256(digest) else self.git)

    @cached_property
    def git(self) -> str:
        """Only read of a file that the hub lists by it: two hashes of each byte take twice the time."""
        hasher = hashlib.sha1(b"blob %d\0" % self.entry.size, usedforsecurity=False)
        for piece in self.original.content(self.entry):
            hasher.update(piece)
        return hasher.hexdigest()


def deliver(
    plan: DeliverPlan, original: Original, progress: Callable[[int], None], deadline: Deadline
) -> DeliverResult:
    """Commit the folder to hf://owner/name, and tag the commit v<version>. A new repository is private.

    Raises:
        TrainerError: Destination…, DeliveryDamaged, SecretNotFound, SecretKeyNotFound.
        StoreError: ManifestMismatch, of the original.
    """
    token = hub.token_of(plan.secret_path)
    repository = hub.Repository.parse(plan.target.uri, "model", token, deadline)
    tag, contents = f"v{plan.version}", _contents(original)
    _use_plain_uploads()
    with _translated(repository):
        from huggingface_hub import HfApi

        api = HfApi(token=token or False)
        tagged = _listed(replace(repository, revision=tag))
        if tagged is not None and (other := _differences(contents, tagged)):
            message = f"{repository.name} has a tag {tag} with other content: {other[0]}"
            raise TrainerError(FailureCode.DESTINATION_OCCUPIED, message)
        sent, side = 0, replace(repository, revision=f"hone-delivery-{tag}")
        if tagged is None:
            branch, base = _base(api, repository, side, contents, _Commit.of(plan))
            sent = _commit(api, branch, base, original, contents, progress, _Commit.of(plan))
        stored = _listed(replace(repository, revision=tag))
        if _listed(side) is not None:
            repository.deadline.run([partial(api.delete_branch, repository.name, branch=side.revision)])
    if stored is None or (other := _differences(contents, stored)):
        words = f"{repository.name}, tag {tag}: not what was sent" + (f": {other[0]}" if stored else "")
        raise TrainerError(FailureCode.DELIVERY_DAMAGED, words)
    return DeliverResult(
        location=f"hf://{repository.name}@{tag}",
        digest=original.digest,
        size_bytes=original.size_bytes,
        uploaded_bytes=sent,
    )


@dataclass(frozen=True)
class _Commit:
    """The commit of a delivery, as its title names it."""

    model: str
    version: int

    @classmethod
    def of(cls, plan: DeliverPlan) -> _Commit:
        """That of the plan; without labels, as on a laptop, the model is the version's name without its number."""
        name = plan.labels.get("org.opencontainers.image.title") or plan.name.removesuffix(f"-v{plan.version}")
        return cls(name, plan.version)

    @classmethod
    def newest(cls, api: HfApi, repository: hub.Repository) -> _Commit | None:
        """The last delivery to the branch; None: there was none. Commits of others can be above it."""
        list_commits = partial(api.list_repo_commits, repository.name, revision=repository.revision)
        (commits,) = repository.deadline.run([list_commits])
        titles = (_TITLE.fullmatch(commit.title) for commit in commits)
        return next((cls(title[1], int(title[2])) for title in titles if title), None)

    @property
    def tag(self) -> str:
        return f"v{self.version}"

    @property
    def title(self) -> str:
        return f"Deliver {self.model} {self.tag}"


def _base(
    api: HfApi, repository: hub.Repository, side: hub.Repository, contents: Mapping[str, _Content], own: _Commit
) -> tuple[hub.Repository, hub.Snapshot | None]:
    """Where to commit and what is there: main, or the side branch if main has a later version. A repository that is
    missing is created.

    Raises:
        TrainerError: DestinationOccupied, if main has anything but a delivery of this model.
    """
    main = _listed(repository)
    if main is None:
        repository.deadline.run([lambda: api.create_repo(repository.name, private=True, exist_ok=True)])
        main = _listed(repository)
    if main is None or not set(main.files) - {_OWN} or not _differences(contents, main):
        return repository, main
    last = _Commit.newest(api, repository)
    delivered = {*_listed_files(repository, main), MANIFEST, *ADDED} if last else set()
    if foreign := sorted(set(main.files) - delivered - {_OWN}):
        message = f"{repository.name} has files that Hone did not deliver, e.g. {foreign[0]}: name another repository"
        raise TrainerError(FailureCode.DESTINATION_OCCUPIED, message)
    if last and last.model != own.model:
        message = f"{repository.name} has versions of the model {last.model}: name another repository"
        raise TrainerError(FailureCode.DESTINATION_OCCUPIED, message)
    if last is None or last.version <= own.version:
        return repository, main
    create = partial(api.create_branch, side.name, branch=side.revision, revision=main.commit, exist_ok=True)
    repository.deadline.run([create])
    return side, _listed(side)


def _listed_files(repository: hub.Repository, main: hub.Snapshot) -> set[str]:
    """Paths in the manifest on main; none, if it has no manifest of ours."""
    if not 0 < main.files.get(MANIFEST, 0) <= MAX_BYTES:
        return set()
    with TemporaryDirectory() as folder:
        hub.download(repository, main, [MANIFEST], Path(folder))
        try:
            return {entry.path for entry in manifest.read_entries(folder)}
        except (StoreError, ValueError):
            return set()


def _commit(
    api: HfApi,
    repository: hub.Repository,
    base: hub.Snapshot | None,
    original: Original,
    contents: Mapping[str, _Content],
    progress: Callable[[int], None],
    own: _Commit,
) -> int:
    """Make the branch the folder unless it is, and tag it. Returns the bytes sent."""
    from huggingface_hub import CommitOperationDelete

    before = base.digests if base else {}
    new = [content for path, content in contents.items() if not content.is_listed(before.get(path))]
    progress(sum(content.entry.size for content in contents.values()) - sum(content.entry.size for content in new))
    counter = _Counter(progress)
    additions = [_addition(original, content.entry, counter) for content in new]
    gone = [CommitOperationDelete(path) for path in sorted(set(before) - set(contents) - {_OWN})]
    if additions or gone:
        call = partial(
            api.create_commit,
            repository.name,
            [*additions, *gone],
            commit_message=own.title,
            revision=repository.revision,
            parent_commit=base.commit if base else None,
        )
        repository.deadline.run([call])
    head = _listed(repository)
    if head is None or (other := _differences(contents, head)):
        words = "it is gone" if head is None else other[0]
        raise TrainerError(FailureCode.DELIVERY_DAMAGED, f"{repository}: not what was sent: {words}")
    repository.deadline.run([partial(api.create_tag, repository.name, tag=own.tag, revision=head.commit)])
    small = [content.entry for content in new if not hub.is_sha256(head.digests[content.entry.path])]
    return counter.sent + sum(entry.size for entry in small if entry.path != MANIFEST)


class _Counter:
    """The large files that were uploaded; small ones travel in the commit."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.progress, self.sent = progress, 0
        self.paths: set[str] = set()


def _addition(original: Original, entry: Entry, counter: _Counter) -> CommitOperationAdd:
    from huggingface_hub import CommitOperationAdd

    class CountedAddition(CommitOperationAdd):
        @contextmanager
        def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
            """The library asks for a progress bar when it sends a large file, and then only."""
            with super().as_file(with_tqdm) as file:
                yield file
            if with_tqdm and entry.path not in counter.paths:
                counter.paths.add(entry.path)
                counter.sent += entry.size
                counter.progress(entry.size)

    addition = CountedAddition(entry.path, str(original.folder / entry.path))
    addition.upload_info.sha256 = bytes.fromhex(entry.sha256)  # or the library reads the whole file for it
    return addition


def _contents(original: Original) -> dict[str, _Content]:
    """All files by their paths. Each is read, and compared with the manifest."""
    original.check()
    return {entry.path: _Content(original, entry) for entry in (*original.files, original.manifest_entry)}


def _listed(repository: hub.Repository) -> hub.Snapshot | None:
    """What the hub has at the revision; None: no such repository or revision."""
    try:
        return hub.look_up(repository)
    except SourceError as error:
        if error.code in (FailureCode.MODEL_NOT_FOUND, FailureCode.REVISION_NOT_FOUND):
            return None
        raise


def _differences(contents: Mapping[str, _Content], listed: hub.Snapshot) -> list[str]:
    """Paths that the hub lacks, has in addition, or has with other content."""
    paths = sorted({*contents, *listed.digests} - ({_OWN} - set(contents)))
    return [path for path in paths if path not in contents or not contents[path].is_listed(listed.digests.get(path))]


def _use_plain_uploads() -> None:
    """Git LFS by HTTP: it names files by the SHA-256 that we compare, and mirrors without Xet storage take it."""
    hub.go_online()
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_XET = True  # of a library that was imported before


@contextmanager
def _translated(repository: hub.Repository) -> Iterator[None]:
    """Turn errors of huggingface_hub while it writes into TrainerErrors."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except LateError as error:
        raise TrainerError(FailureCode.DESTINATION_UNREACHABLE, f"{repository}: {error}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise TrainerError(_code(status, error.server_message or ""), f"{repository}: {_first_line(error)}") from None
    except ValueError as error:  # of the library: an answer that it cannot use, or a card that the hub refuses
        raise TrainerError(FailureCode.DESTINATION_REFUSED, f"{repository}: {str(error)[:400]}") from None
    except (httpx2.HTTPError, ConnectionError) as error:
        raise TrainerError(FailureCode.DESTINATION_UNREACHABLE, f"{repository}: {_first_line(error)}") from None


def _code(status: int, words: str) -> FailureCode:
    if is_full(status, "", words):
        return FailureCode.DESTINATION_FULL
    if status in (401, 403, 404):
        return FailureCode.DESTINATION_DENIED
    if 400 <= status < 500 and status not in _AGAIN:
        return FailureCode.DESTINATION_REFUSED
    return FailureCode.DESTINATION_UNREACHABLE


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
