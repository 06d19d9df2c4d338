"""A program under a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyte

HANG_SECONDS = 900.0
"""A guard against hanging, not an expectation."""


def _take_terminal() -> None:
    """Ctrl-C is a signal only from one's own terminal, and is ignored by what a background job of a shell starts."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Screen:
    """A program under a pseudo-terminal, and what a person would see."""

    def __init__(self, *command: str, columns: int = 110, lines: int = 40, **environment: str):
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)

    @property
    def text(self) -> str:
        """What is on the screen now."""
        return "\n".join(self._screen.display)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def until(self, shown: Callable[[str], bool] | str) -> str:
        """Wait until the screen shows it; a text may be wrapped."""
        deadline = time.monotonic() + HANG_SECONDS
        while not (shown in " ".join(self.text.split()) if isinstance(shown, str) else shown(self.text)):
            assert time.monotonic() < deadline, f"not shown: {shown}; the screen:\n{self.text}"
            assert self._read(0.2) or self.process.poll() is None, f"it ended; the screen:\n{self.text}"
        return self.text

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + HANG_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end; the screen:\n{self.text}"
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the program has closed its side
            return False
        self._stream.feed(data)
        return bool(data)


@contextmanager
def terminals() -> Iterator[Callable[..., Screen]]:
    """Starts `hone` with arguments under a terminal; ends what is left."""
    opened: list[Screen] = []

    def start(*arguments: str, columns: int = 110, **environment: str) -> Screen:
        opened.append(Screen(sys.executable, "-m", "hone_cli", *arguments, columns=columns, **environment))
        return opened[-1]

    try:
        yield start
    finally:
        for screen in opened:
            screen.close()
