"""The content of a materialized Dataset: its digest, and the check that a folder still has that content.

The digest covers the split files only, so the same rows have the same folder, whoever reads them. The folder's manifest
covers every file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hone_api.plan import DatasetInput, TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.errors import StoreError
from hone_trainer.store import manifest

SPLITS = ("train", "validation", "test")
REPORT = "report.json"
"""Next to the split files: what was counted while the rows were read. Not part of the digest."""
KEYS = ".keys.parquet"
"""What the name of a split's file of keys ends with: see `datasets/engine/keys.py`. Not part of the digest either."""
UNKNOWN = "sha256:" + "0" * 64
"""The digest in a plan that a person wrote without one: the rows are not checked."""


def hashes_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each split file of a materialized folder, by the name of the file."""
    paths = [folder / f"{name}.jsonl" for name in SPLITS]
    return {path.name: sha256_of(path) for path in paths if path.is_file()}


def digest_of(folder: Path, hashes: Mapping[str, str] | None = None) -> str:
    """'sha256:' and the SHA-256 over name, size and SHA-256 of each split file of a materialized folder.

    Args:
        hashes: as `hashes_of`, if they are known.
    """
    hashes = hashes_of(folder) if hashes is None else hashes
    return _digest([[Path(name).stem, (folder / name).stat().st_size, sha256] for name, sha256 in hashes.items()])


def recorded(folder: Path) -> str:
    """The same digest for a folder that was just compared with its manifest: it uses the manifest's hashes."""
    entries = {entry.path: entry for entry in manifest.read_entries(folder)}
    names = [name for name in SPLITS if f"{name}.jsonl" in entries]
    return _digest([[name, (one := entries[f"{name}.jsonl"]).size, one.sha256] for name in names])


def verify_datasets(plan: TrainingPlan) -> TrainingPlan:
    """Hash every Dataset of the plan and return the plan. Runs before any rank starts, so once for each node.

    Raises:
        StoreError: as `verify`.
    """
    verify([*plan.datasets, *plan.evaluation_datasets, *plan.retention_datasets])
    return plan


def verify(inputs: Iterable[DatasetInput]) -> None:
    """Hash the files of the inputs: each folder of the store once, and each file outside the store.

    A folder named after its digest must have that content, and exactly the files that its manifest lists. For a file
    outside the store, in a plan that a person wrote, the digest is the SHA-256 of the file.

    Raises:
        StoreError: DatasetChanged, naming the Dataset, and each file that differs, is missing or is not listed.
    """
    verified = set()
    for one in inputs:
        file = Path(one.path)
        in_store = file.parent.name == one.digest.removeprefix("sha256:")
        place = file.parent if in_store else file
        if one.digest == UNKNOWN or (place, one.digest) in verified:
            continue
        verified.add((place, one.digest))
        if not file.is_file():
            raise _changed_error(one, f"{file} is missing")
        actual = _intact(one, place) if in_store else f"sha256:{sha256_of(file)}"
        if actual != one.digest:
            raise _changed_error(one, f"{place} holds {actual}, recorded is {one.digest}")


def _intact(one: DatasetInput, folder: Path) -> str:
    """The digest of a folder's rows, after every file was compared with the manifest."""
    try:
        manifest.verify(folder)
    except StoreError as error:
        raise _changed_error(one, error.message) from None
    return digest_of(folder)


def _digest(splits: list[list[Any]]) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(splits).encode()).hexdigest()}"


def _changed_error(one: DatasetInput, problem: str) -> StoreError:
    return StoreError(FailureCode.DATASET_CHANGED, f"Dataset {one.name}, split {one.split}: {problem}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
