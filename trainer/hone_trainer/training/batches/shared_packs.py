"""Packs of a run with several ranks: computed once a node, and mapped by all ranks.

Each rank would come to the same packs: with ten million rows that takes 1.7 s of its processor.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from hone_trainer import ranks
from hone_trainer.store import folders, manifest
from hone_trainer.training.batches.packing import Packs, leave

FOLDER = "packs"
"""Folder of workPath. What an earlier attempt left there serves the next one."""
_PAUSE_SECONDS = 0.1


def packs(lengths: Any, longest: int, work_path: Path) -> Packs:
    """The rows of these lengths, packed as by `Packs.of`. With several ranks, all must call it: the first one of each
    node writes files in workPath unless they are there, and the others wait for them.

    Raises:
        StoreError: the folder cannot be written.
    """
    if ranks.world_size() == 1:
        return Packs.of(lengths, longest)
    folder = work_path / FOLDER / _key(lengths, longest)
    while not folders.is_intact(folder):
        if ranks.is_first_of_node():
            _write(Packs.of(lengths, longest), folder)
        else:
            time.sleep(_PAUSE_SECONDS)
    return Packs.mapped(folder)


def _write(packed: Packs, folder: Path) -> None:
    with folders.work_folder(folder.parent) as work:
        packed.save(work)
        manifest.write(work)
        folders.publish(work, folder)


def _key(lengths: Any, longest: int) -> str:
    hasher = hashlib.sha256(f"{lengths.dtype} {longest} ".encode())
    hasher.update(np.ascontiguousarray(lengths).data)
    leave(lengths)
    return hasher.hexdigest()[:40]
