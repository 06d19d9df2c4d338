"""Arrays as files that numpy maps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np


def save(path: Path, array: Any) -> None:
    """As `numpy.save`.

    Raises:
        OSError: with its number: of a full disk, numpy only says how many items it has written.
    """
    buffer = io.BytesIO()
    np.save(buffer, array)
    with open(path, "wb") as file:
        file.write(buffer.getbuffer())
