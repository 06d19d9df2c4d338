"""The folder that is delivered: every byte that leaves it is compared with its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hone_api.contract.manifest import ADDED, MANIFEST, Entry, manifest_digest
from hone_api.plan import PublicKey
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery import at_once
from hone_trainer.errors import StoreError
from hone_trainer.store import manifest, signature

CHUNK = 4 * 2**20


@dataclass(frozen=True)
class Original:
    """A folder with a manifest. files are what the manifest lists and, in a signed folder, what was added to it; digest
    is 'sha256:' and the SHA-256 of the manifest."""

    folder: Path
    digest: str
    files: tuple[Entry, ...]

    @classmethod
    def of(cls, folder: str | Path, digest: str, trusted: Sequence[PublicKey] | None = None) -> Original:
        """The folder of this digest; the content of its files is compared when it is read.

        Args:
            trusted: keys and identities; one of them must have signed the folder. None: no signature is needed.

        Raises:
            StoreError: ManifestMismatch, SignatureMissing, SignatureInvalid, SigningTrustUnusable.
        """
        manifest.verify(folder, digest, hashed=lambda path: False)
        files = manifest.read_entries(folder)
        if trusted:
            signature.verify(folder, digest, trusted)
            files += [_entry(Path(folder) / name) for name in ADDED if (Path(folder) / name).is_file()]
        return cls(Path(folder), digest, tuple(files))

    @property
    def added(self) -> tuple[Entry, ...]:
        """Those of the files that the manifest does not list."""
        return tuple(entry for entry in self.files if entry.path in ADDED)

    @property
    def manifest_entry(self) -> Entry:
        """The manifest as one more file."""
        return Entry(path=MANIFEST, size=len(self.manifest_bytes), sha256=self.digest.removeprefix("sha256:"))

    @property
    def size_bytes(self) -> int:
        """Of all files without the manifest."""
        return sum(entry.size for entry in self.files)

    @property
    def manifest_bytes(self) -> bytes:
        """The manifest itself.

        Raises:
            StoreError: ManifestMismatch, when it is no longer what `of` has seen.
        """
        text = (self.folder / MANIFEST).read_bytes()
        if manifest_digest(text) != self.digest:
            raise StoreError(FailureCode.MANIFEST_MISMATCH, f"{self.folder / MANIFEST} changed while it was delivered")
        return text

    def check(self) -> None:
        """Read every file, and compare it with the manifest.

        Raises:
            StoreError: ManifestMismatch.
        """

        def compare(entry: Entry, check: at_once.Check) -> None:
            for _ in self.content(entry):
                check()

        at_once.each(compare, [*self.files, self.manifest_entry])

    def content(self, entry: Entry) -> Iterator[bytes]:
        """As `read`, also of the manifest itself.

        Raises:
            StoreError: ManifestMismatch.
        """
        if entry.path == MANIFEST:
            yield self.manifest_bytes
        else:
            yield from self.read(entry)

    def read(self, entry: Entry, size: int = CHUNK) -> Iterator[bytes]:
        """The file in pieces of `size` bytes, compared with the manifest.

        Raises:
            StoreError: ManifestMismatch, after the last piece, when the content is not what the manifest lists.
        """
        hasher, length = hashlib.sha256(), 0
        with open(self.folder / entry.path, "rb") as file:
            while piece := file.read(size):
                hasher.update(piece)
                length += len(piece)
                yield piece
        if (length, hasher.hexdigest()) != (entry.size, entry.sha256):
            message = f"{self.folder / entry.path} differs from {MANIFEST}: it is not delivered"
            raise StoreError(FailureCode.MANIFEST_MISMATCH, message)

    def unchecked(self, entry: Entry) -> Iterator[bytes]:
        """The file in pieces, for a reader that compares a digest which was made from the bytes of `read`."""
        with open(self.folder / entry.path, "rb") as file:
            while piece := file.read(CHUNK):
                yield piece


def _entry(path: Path) -> Entry:
    content = path.read_bytes()
    return Entry(path=path.name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
