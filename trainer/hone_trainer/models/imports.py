"""Imports of the libraries that train: the collector of garbage leaves them alone.

They are four thousand modules of more than a million objects that stay. The collector would look at all of them again
and again while they are imported, and at each full collection of a run: together a quarter of the processor time of a
start. A training step that a full collection interrupts keeps the other ranks waiting.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """For import statements: no garbage is collected meanwhile, and later collections leave out what was imported.

    Where the block imports nothing new, later collections leave out nothing more.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
            atexit.unregister(gc.unfreeze)
            atexit.register(gc.unfreeze)  # or nanobind's libraries report what is left at the end as leaks
        if enabled:
            gc.enable()
