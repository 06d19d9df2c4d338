"""The wall clock of a node that jumps while processes of a run look at it; see `jumping_clock.c`."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE_ENV = "HONE_TEST_CLOCK"
HOUR = 3600.0
JUMPED = "the clock has jumped at {}"
"""Line in the log of a run."""
STEPPED = "a step ended at {} s"
"""Line in the log of a run, by a clock that no jump touches."""
_FORM = struct.Struct("q")


class NodeClock:
    """The clock of all processes that are started with `environment`. Needs a C compiler, as DeepSpeed does."""

    def __init__(self, folder: Path) -> None:
        source, library = Path(__file__).with_suffix(".c"), folder / "jumping_clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl", "-lpthread"], check=True)
        self.file = folder / "clock"
        self.file.write_bytes(bytes(_FORM.size))
        self.environment = {**os.environ, "LD_PRELOAD": str(library), FILE_ENV: str(self.file)}

    def set(self, seconds: float) -> None:
        """From now on the clock is so far ahead of this machine's."""
        set_clock(self.file, seconds)


def set_clock(file: Path, seconds: float) -> None:
    """In place, so that processes which map the file see it at once."""
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), _FORM.size) as memory:
        _FORM.pack_into(memory, 0, round(seconds * 1e9))


def jump_at(moments: Mapping[str, float], stop: str = "") -> None:
    """In a process of a run: have the clock jump, by the moment; see `NodeClock.set`.

    Moments are "step N", in the middle of the step after N steps, and "save N", in the middle of the writing of the
    checkpoint after N steps. Each process checks that its own clock has jumped, and by how much.

    Args:
        stop: the moment at which the process gets a SIGTERM, after the jump.
    """
    from hone_trainer.training.checkpoints import RunCheckpoints
    from hone_trainer.training.loop import Loop

    file, left = Path(os.environ[FILE_ENV]), dict(moments)
    (offset,) = _FORM.unpack(file.read_bytes())
    machine = time.time() - time.monotonic() - offset / 1e9
    train, complete = Loop.training_step, RunCheckpoints.complete

    def say(line: str) -> None:
        """In one write: ranks share the log."""
        os.write(1, f"{line}\n".encode())

    def jump(moment: str) -> None:
        if moment in left:
            set_clock(file, left[moment])
            moved = time.time() - time.monotonic() - machine
            assert abs(moved - left.pop(moment)) < 1, f"{moment}: the clock of this process is {moved} s ahead"
            say(JUMPED.format(moment))
        if moment == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def training_step(self: Any, *given: Any, **named: Any) -> Any:
        loss = train(self, *given, **named)
        if self.args.process_index == 0:
            say(STEPPED.format(time.monotonic()))
        jump(f"step {self.state.global_step}")
        return loss

    def completed(self: Any, step: int, *given: Any, **named: Any) -> Path:
        jump(f"save {step}")
        return complete(self, step, *given, **named)

    Loop.training_step, RunCheckpoints.complete = training_step, completed
