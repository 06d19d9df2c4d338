"""pvc:// targets: a folder next to the final one, compared with the manifest, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from hone_api.contract.manifest import MANIFEST, Entry
from hone_api.contract.report import DeliverResult
from hone_api.plan import DeliverPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery import at_once
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.errors import StoreError, TrainerError, classify
from hone_trainer.store import contents, folders, manifest

_REFUSED = (
    *(errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EILSEQ),
)
"""The path in the address, which only a person can change: a file is in its way, or the volume has no such names."""
_CODES = {
    **dict.fromkeys(_REFUSED, FailureCode.DESTINATION_REFUSED),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), FailureCode.DESTINATION_FULL),
    errno.EROFS: FailureCode.DESTINATION_DENIED,  # often on one node only, after an error: another attempt can succeed
}
_THERE_IS_ANOTHER = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def deliver(plan: DeliverPlan, original: Original, progress: Callable[[int], None]) -> DeliverResult:
    """Copy the folder to <targetPath>/<name>. A killed copy continues in the folder that it began.

    Raises:
        TrainerError: DestinationOccupied, DeliveryDamaged, DestinationFull, DestinationDenied, DestinationRefused.
        StoreError: ManifestMismatch or StorageError, of the original.
    """
    assert plan.target_path is not None
    parent = Path(plan.target_path)
    target, work = parent / plan.name, parent / f".hone-{plan.name}-{original.digest[7:19]}"
    own_manifest, sent = original.manifest_bytes, 0
    if os.path.lexists(target):
        _compare(target, original, FailureCode.DESTINATION_OCCUPIED)
    else:
        try:
            work.mkdir(parents=True, exist_ok=True)
            sent = sum(at_once.each(partial(_copy, original, work, progress), original.files))
            manifest.write_atomically(work / MANIFEST, own_manifest)
            _check_copy(work, original)
            _publish(work, target, original)
        except OSError as error:
            if error.errno not in _CODES:
                raise
            message = f"the volume cannot be written: {error.strerror} ({plan.target.uri})"
            raise TrainerError(_CODES[error.errno], message) from None
        manifest.flush_directory(parent)
    location = f"{plan.target.uri.rstrip('/')}/{plan.name}"
    return DeliverResult(location=location, digest=original.digest, size_bytes=original.size_bytes, uploaded_bytes=sent)


def _check_copy(work: Path, original: Original) -> None:
    """Compare the copy with the manifest, and if it differs, the original, to name the one that is wrong."""
    try:
        _compare(work, original, FailureCode.DELIVERY_DAMAGED)
    except TrainerError:
        original.check()
        raise


def _copy(original: Original, work: Path, progress: Callable[[int], None], entry: Entry, check: at_once.Check) -> int:
    """Copy one file, unless an earlier attempt did. Returns the bytes written."""
    target = work / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and target.stat().st_size == entry.size:
        progress(entry.size)
        return 0  # its content is compared with all others
    temporary = target.with_name(f".{target.name}.tmp")
    with open(temporary, "wb") as file:
        for piece in _read(original, entry):
            check()
            file.write(piece)
            progress(len(piece))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    return entry.size


def _read(original: Original, entry: Entry) -> Iterator[bytes]:
    """The pieces of a file in the store; an error is the store's, and not that of the volume. The copy is compared."""
    try:
        yield from original.unchecked(entry)
    except OSError as error:
        raise classify(error) from None


def _publish(work: Path, target: Path, original: Original) -> None:
    """Rename the folder; a target that another writer has created meanwhile is compared like one from before."""
    try:
        work.rename(target)
    except OSError as error:
        if error.errno not in _THERE_IS_ANOTHER:
            raise
        _compare(target, original, FailureCode.DESTINATION_OCCUPIED)
        folders.remove(work)


def _compare(folder: Path, original: Original, code: FailureCode) -> None:
    """Every byte in the folder with the original's manifest, read again from the volume."""
    try:
        manifest.verify(folder, original.digest)
        for entry in original.added:
            if not (folder / entry.path).is_file() or contents.sha256_of(folder / entry.path) != entry.sha256:
                raise StoreError(FailureCode.MANIFEST_MISMATCH, f"{folder}: {entry.path} is another one")
    except StoreError as error:
        if code is FailureCode.DELIVERY_DAMAGED:
            folders.remove(folder)  # the next attempt copies it again
        raise TrainerError(code, error.message) from None
