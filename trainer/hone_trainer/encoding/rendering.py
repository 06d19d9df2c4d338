"""Bounds on a chat template. It is a program of the model's author: jinja's sandbox keeps it from code and files, and a
limit keeps it from running for ever or filling the pod's memory: an operator like '%99999999999d' would."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hone_trainer.errors import ConfigError

SECONDS = 60.0
"""Longest rendering of one conversation, in seconds of CPU time; templates take milliseconds."""
MAX_CHARACTERS = 2**26
"""Longest conversation as text; a row has at most 2**24 bytes."""
MORE_BYTES = 2**30
"""Address space that one rendering may add to what the process has."""


@contextmanager
def bounded() -> Iterator[None]:
    """Ends what is within after `SECONDS` of CPU time; without effect in other threads than the main one.

    Raises:
        ConfigError: UnsupportedModel, when the time is over.
        MemoryError: it wants more than `MORE_BYTES`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise ConfigError(
            f"the model's chat template took more than {SECONDS:.0f} s of CPU time for one conversation: it may "
            "loop for ever; look at chat_template.jinja of the model",
            "UnsupportedModel",
        )

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _address_space() + MORE_BYTES
    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _address_space() -> int:
    """Bytes of this process's address space, by proc(5)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
