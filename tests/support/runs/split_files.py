"""Files of rows for plans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write(path: Path, rows: Iterable[Mapping[str, Any]], name: str, split: str = "") -> dict[str, str]:
    """Write a split's file; what a plan says of it.

    Args:
        split: default: the file is named after it.
    """
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return {"name": name, "split": split or path.stem, "path": str(path), "digest": digest}
