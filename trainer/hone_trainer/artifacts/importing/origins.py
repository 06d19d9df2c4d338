"""Where a foreign model is: a repository of the hub, a folder of a bucket or of a volume, or an image (`image`)."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hone_api.plan import ImportPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.importing.image import ImageOrigin
from hone_trainer.datasets.readers.s3 import Bucket, Object
from hone_trainer.endpoints import s3
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.http import Resolver
from hone_trainer.errors import SourceError
from hone_trainer.store import folders, hub
from hone_trainer.store.deadline import Deadline
from hone_trainer.store.ranged import SLOWEST

_PART = ".part"


class ForeignFiles(Protocol):
    """The files of one source, as they were when it was opened."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by its path in the folder."""

    @property
    def mark(self) -> Sequence[object]:
        """Changes when the files do, as far as the source says so without reading them."""

    @property
    def commit(self) -> str | None:
        """Commit of the hub, or digest of an image."""

    def fetch(self, names: Sequence[str], folder: Path, progress: Callable[[int], None]) -> None:
        """Write the files into the folder, except those that are there already.

        Raises:
            SourceError: SourceUnreachable, SourceNotFound.
        """


@dataclass(frozen=True)
class HubOrigin:
    """A repository of the hub at one commit."""

    repository: hub.Repository
    snapshot: hub.Snapshot

    @classmethod
    def open(cls, plan: ImportPlan, resolver: Resolver) -> HubOrigin:
        """Raises SourceError, as `hub.look_up` and `hub.token_of`."""
        token, deadline = hub.token_of(plan.secret_path), Deadline.after(plan.limits.timeout_seconds)
        repository = hub.Repository.parse(plan.source.uri, "model", token, deadline)
        return cls(repository, hub.look_up(repository))

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.snapshot.files

    @property
    def mark(self) -> Sequence[object]:
        return [self.snapshot.commit]

    @property
    def commit(self) -> str | None:
        return self.snapshot.commit

    def fetch(self, names: Sequence[str], folder: Path, progress: Callable[[int], None]) -> None:
        hub.download(self.repository, self.snapshot, names, folder)
        if damaged := hub.differing(self.snapshot, names, folder):
            for name in damaged:
                (folder / name).unlink()
            words = f"{', '.join(damaged[:5])} arrived with another digest than the hub lists"
            raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{self.repository}: {words}")
        progress(sum(self.sizes[name] for name in names))


@dataclass(frozen=True)
class BucketOrigin:
    """A folder of a bucket."""

    bucket: Bucket
    objects: Mapping[str, Object]

    @classmethod
    def open(cls, plan: ImportPlan, resolver: Resolver) -> BucketOrigin:
        """Raises SourceError, as `Bucket.list` and `s3.credentials`."""
        name, _, path = plan.source.uri.removeprefix("s3://").partition("/")
        carrier = s3.Carrier(network_of(plan), time.monotonic() + plan.limits.timeout_seconds, resolver)
        bucket = Bucket(s3.client(plan.source.s3, s3.credentials(plan.secret_path), carrier), name, plan.limits)
        return cls(bucket, bucket.list(f"{path.rstrip('/')}/"))

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: one.size for name, one in self.objects.items()}

    @property
    def mark(self) -> Sequence[object]:
        return sorted((name, one.size, one.etag) for name, one in self.objects.items())

    @property
    def commit(self) -> str | None:
        return None

    def fetch(self, names: Sequence[str], folder: Path, progress: Callable[[int], None]) -> None:
        deadline = time.monotonic() + max(
            self.bucket.limits.timeout_seconds, sum(self.objects[n].size for n in names) / SLOWEST
        )
        for name in _absent(names, folder):
            part = folder / f"{name}{_PART}"
            self.bucket.download(self.objects[name], part, deadline, progress)
            _complete(part, folder / name)


@dataclass(frozen=True)
class VolumeOrigin:
    """A folder of another volume of the namespace."""

    volume: Path
    folder: Path
    uri: str

    @classmethod
    def open(cls, plan: ImportPlan, resolver: Resolver) -> VolumeOrigin:
        """Raises SourceError: SourceNotFound, SourceRefused."""
        assert plan.source_volume is not None
        volume, path = Path(plan.source_volume), plan.source.uri.removeprefix("pvc://").partition("/")[2]
        origin = cls(volume, volume / path, plan.source.uri)
        if not origin.folder.is_dir():
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{origin.uri}: there is no such folder on the volume")
        return origin

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: state.st_size for name, state in self._files().items()}

    @property
    def mark(self) -> Sequence[object]:
        return sorted((name, state.st_size, state.st_mtime_ns) for name, state in self._files().items())

    @property
    def commit(self) -> str | None:
        return None

    def fetch(self, names: Sequence[str], folder: Path, progress: Callable[[int], None]) -> None:
        for name in _absent(names, folder):
            part = folder / f"{name}{_PART}"
            try:
                shutil.copyfile(self._inside(self.folder / name), part)
            except PermissionError:
                words = f"user {os.geteuid()} may not read {name}: let others read the files (chmod -R o+rX)"
                raise SourceError(FailureCode.SOURCE_REFUSED, f"{self.uri}: {words}") from None
            progress(part.stat().st_size)
            _complete(part, folder / name)

    def _files(self) -> Mapping[str, os.stat_result]:
        """Regular files, also behind links: a cache of huggingface_hub is made of them."""
        paths = {path.relative_to(self.folder).as_posix(): path for path in folders.walk(self.folder)}
        states = {name: self._inside(path).stat() for name, path in paths.items() if path.exists()}
        return {name: state for name, state in states.items() if stat.S_ISREG(state.st_mode)}

    def _inside(self, path: Path) -> Path:
        """The path behind all links, which stays on the volume: elsewhere are the files of this pod."""
        target = path.resolve()
        if not target.is_relative_to(self.volume.resolve()):
            words = f"{path.relative_to(self.folder)} is a link that leaves the volume"
            raise SourceError(FailureCode.SOURCE_REFUSED, f"{self.uri}: {words}")
        return target


OPEN: Mapping[str, Callable[[ImportPlan, Resolver], ForeignFiles]] = {
    "hf": HubOrigin.open,
    "s3": BucketOrigin.open,
    "pvc": VolumeOrigin.open,
    "oci": ImageOrigin.open,
}
"""By scheme of the source."""


def _absent(names: Sequence[str], folder: Path) -> list[str]:
    """Those that no earlier attempt has completed in the folder."""
    return [name for name in names if not (folder / name).is_file()]


def _complete(part: Path, target: Path) -> None:
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
