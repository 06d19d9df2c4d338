"""The folder in which the files of an import arrive: the same one for each attempt at the same files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from hone_api.plan import ImportPlan


def target_of(plan: ImportPlan) -> Path:
    """The folder below models/ in which the model will be."""
    return Path(plan.store) / "models" / plan.folder


def incoming_of(plan: ImportPlan, mark: Sequence[object]) -> Path:
    """The folder in it for files whose source has this mark."""
    digest = hashlib.sha256(json.dumps(mark, sort_keys=True).encode()).hexdigest()
    return target_of(plan) / f".incoming-{digest[:12]}"
