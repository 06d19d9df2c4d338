"""Watches the ranks of this node, and ends them when one gives no sign of life in time.

The launcher does this, not a rank: a rank that is stopped, or waits inside of a C library, cannot look after itself.
The seconds are counted in the watcher's own ticks: a machine that is suspended, or a pod that is frozen, adds nothing.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hone_api.words.failures import FailureCode
from hone_trainer.distributed.heartbeat import Beat, Heartbeat
from hone_trainer.errors import TrainerError

TICK = 1.0
"""Seconds between two looks; a look that comes late counts as one."""
STACKS_SIGNAL = signal.SIGUSR1
STOPPED = 600.0
"""Seconds for which a rank may be stopped (SIGSTOP), whatever it did before: nobody waits an hour for that."""
PATIENCE = 5.0
"""Seconds in which a rank writes its stacks, unless it is stopped."""
FRAMES = 6
"""Innermost frames of a rank in the message; the log has all."""
STATES = {"T": "is stopped (SIGSTOP)", "t": "is stopped by a debugger", "D": "waits for a disk or a file server"}
_STACKS = "stacks-{}"
_THREAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*$", re.M)
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.M)
_OTHERS = re.compile(r"torch/distributed/|torch/autograd/graph\.py|deepspeed/comm/")
"""Files in whose frames a rank waits for the others; gradients are exchanged in the middle of autograd."""
_EXCHANGE = "torch/nn/parallel/distributed.py"
"""Waits for the others only as the innermost frame, where it calls C++; the model's own frames stand inside of it."""


@dataclass(frozen=True)
class Seen:
    """One rank at the moment of a hang."""

    beat: Beat
    state: str
    """Letter of proc(5), e.g. T for stopped; empty: it is gone."""
    stacks: str
    """All of its threads, by faulthandler; empty where it could not write them."""

    @property
    def frames(self) -> list[str]:
        """Frames of the main thread, innermost first, as file:line function."""
        threads = [text for text in _THREAD.split(self.stacks)[1:] if "hone_trainer/run/hangs.py" not in text]
        main = [text for text in threads if "hone_trainer/run/" in text] or threads[-1:]  # the first thread comes last
        return [f"{_short(file)}:{line} {name}" for file, line, name in _FRAME.findall(main[0])] if main else []

    @property
    def stands(self) -> bool:
        """Whether the rank waits for something other than the other ranks."""
        frames = self.frames
        waits = bool(frames) and (frames[0].startswith(_EXCHANGE) or _OTHERS.search(" ".join(frames[:FRAMES])))
        return self.state in STATES or bool(frames and not waits)


def _short(file: str) -> str:
    return file.rpartition("/site-packages/")[2]


@dataclass
class _Silence:
    """How long a rank has given no sign."""

    number: int = -1
    seconds: float = 0.0
    stopped: float = 0.0

    def tick(self, beat: Beat, state: str, longest_stop: float) -> bool:
        """Whether its time is over."""
        self.stopped = self.stopped + TICK if state == "T" else 0.0
        if beat.number != self.number:
            self.number, self.seconds = beat.number, 0.0
            return False
        self.seconds += TICK
        return 0 < beat.limit <= self.seconds or self.stopped >= longest_stop


def describe(seen: Mapping[int, Seen], silent: float) -> TrainerError:
    """The failure of a run that hangs. Pure.

    Args:
        seen: the ranks of this node.
        silent: seconds since the first rank of them gave its last sign.
    """
    standing = [rank for rank, one in seen.items() if one.state in STATES]
    standing = standing or [rank for rank, one in seen.items() if one.stands]
    culprit = standing[0] if standing and (len(standing) < len(seen) or len(seen) == 1) else None
    step = max(one.beat.step for one in seen.values())
    words = [f"no step for {silent:.0f} s after step {step}"]
    for rank in sorted(seen, key=lambda rank: rank != culprit):
        one = seen[rank]
        state = STATES.get(one.state, "") or ("is at" if one.stands else "waits for other ranks at")
        frames = " < ".join(one.frames[:FRAMES] if rank == culprit or not words[1:] else one.frames[:2])
        words.append(f"rank {rank} {state} {frames}".rstrip())
    return TrainerError(FailureCode.HUNG, "; ".join(words), rank=culprit, step=step)


def write_stacks_to(folder: Path, rank: int) -> None:
    """From now on this process writes the stacks of all its threads at a signal; also where Python does not run."""
    file = open(folder / _STACKS.format(rank), "w")  # noqa: SIM115 - faulthandler keeps it open
    faulthandler.register(STACKS_SIGNAL, file=file, all_threads=True)


def _state(process: int) -> str:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def look(folder: Path, hearts: Mapping[int, Heartbeat]) -> dict[int, Seen]:
    """Every rank of this node that is alive, with its stacks."""
    beats = {rank: heart.last() for rank, heart in hearts.items()}
    alive = {rank: beat for rank, beat in beats.items() if _state(beat.process) not in ("", "Z")}
    asked = {rank for rank, beat in alive.items() if _state(beat.process) not in ("T", "t")}
    for rank in asked:
        with suppress(ProcessLookupError):
            os.kill(alive[rank].process, STACKS_SIGNAL)
    files = {rank: folder / _STACKS.format(rank) for rank in alive}
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not all(_is_whole(files[rank]) for rank in asked):
        time.sleep(0.1)
    return {rank: Seen(beat, _state(beat.process), _text(files[rank])) for rank, beat in alive.items()}


def _text(file: Path) -> str:
    with suppress(OSError):
        return file.read_text(errors="replace")
    return ""


def _is_whole(file: Path) -> bool:
    """Whether a rank has written its main thread, which comes last."""
    return "hone_trainer/run/" in _text(file)


def end(seen: Mapping[int, Seen]) -> None:
    """Kill the ranks; also one that is stopped dies."""
    for one in seen.values():
        with suppress(ProcessLookupError):
            os.kill(one.beat.process, signal.SIGKILL)


@dataclass
class Watcher:
    """A thread that looks after the ranks of this node until `close`."""

    hearts: Callable[[], Mapping[int, Heartbeat]]
    """The ranks that have started."""
    on_hang: Callable[[float], None]
    """Called with the seconds since the last sign of life; again after as many seconds, should the rank still hang."""
    longest_stop: float = STOPPED
    """Seconds for which a rank may be stopped."""
    _closed: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> Watcher:
        self._thread = threading.Thread(target=self._watch, name="hangs", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Look no more; returns when `on_hang` is done, where it was called."""
        self._closed.set()
        if self._thread:
            self._thread.join()

    def _watch(self) -> None:
        silences: dict[int, _Silence] = {}
        while not self._closed.wait(TICK):
            over = [
                silence.seconds
                for rank, heart in self.hearts().items()
                if (silence := silences.setdefault(rank, _Silence())).tick(
                    beat := heart.last(), _state(beat.process), self.longest_stop
                )
            ]
            if over:
                self.on_hang(max(over))
                silences.clear()
