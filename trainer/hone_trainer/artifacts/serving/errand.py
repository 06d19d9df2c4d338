"""Work that may take minutes, one thing at a time, while the passes go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass
class Errand:
    """A thread that goes through a list, and ends."""

    name: str
    """Of the thread."""
    clock: Callable[[], float]
    doing: str | None = None
    """The thing that it is doing."""
    began: float | None = None
    """When that began, by `clock`."""
    error: Exception | None = None
    """What nobody expected, and ended the thread."""
    _thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it is not through its list."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, things: Sequence[str], work: Callable[[str], None], done: Callable[[], None]) -> None:
        """Do the work for each thing, and call `done` after each. Only if it is not busy, and there is a thing."""

        def run() -> None:
            for thing in things:
                self.doing, self.began = thing, self.clock()
                try:
                    work(thing)
                except Exception as error:
                    self.error = error
                    return
                finally:
                    self.doing = self.began = None
                    done()

        self.doing = things[0]
        # The process ends without waiting for it: a copy that is not complete is removed at the next start.
        self._thread = threading.Thread(target=run, name=self.name, daemon=True)
        self._thread.start()
