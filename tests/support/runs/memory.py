"""How much memory Python takes."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable


def peak_bytes(function: Callable[[], object]) -> int:
    """Bytes that Python and numpy take while the function runs, at the most."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        del kept
