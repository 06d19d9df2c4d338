"""Measures where the time of an attempt goes, by a monotonic clock. Phases are those of `hone_api.words.phases`.

A process has one run at a time, and one clock (`of_process`): a signal handler, an error and a result all report it. A
process that is started for the run goes on with the clock of its parent, since the clock of Linux is one for all. What
earlier pods of the attempt measured, before a suspension, is in the work folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hone_api.words.phases import FIRST_STEP, LOADING, OF_STAGE, TRAINING, PhaseSeconds

FILE = "phases.json"
ENV = "HONE_PHASES"
"""Environment variable that gives a process the clock of its parent."""
LONGEST_START = 600
"""Seconds that Python itself can take to start, from a slow disk; above that, the system's answer is not credible."""
_SECONDS: TypeAdapter[dict[str, float]] = TypeAdapter(PhaseSeconds)


class Clock:
    """Adds up seconds by phase. Exactly one phase is current at any time."""

    def __init__(
        self, seconds: Mapping[str, float] | None = None, phase: str = LOADING, since: float | None = None
    ) -> None:
        """
        Args:
            seconds: what counts already.
            since: since when `phase` is current, by `time.monotonic()`; default: now.
        """
        self._seconds = dict(seconds or {})
        self._phase = phase
        self._since = time.monotonic() if since is None else since
        self._has_stepped = False
        self._is_complete = True
        self.on_enter: Callable[[str], None] | None = None
        """Called whenever a phase begins, also the same one again."""

    def enter(self, phase: str) -> None:
        """From now on the time counts to this phase. Before the first step nothing counts to training."""
        if phase == TRAINING and not self._has_stepped:
            phase = LOADING
        now = time.monotonic()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now
        if self.on_enter:
            self.on_enter(phase)

    def enter_stage(self, stage: str) -> None:
        """The same for a stage that the run reports; others change nothing."""
        if stage in OF_STAGE and not (stage == "Training" and self._phase == FIRST_STEP):
            self.enter(OF_STAGE[stage])

    def begin_step(self) -> None:
        """An optimiser step begins."""
        if not self._has_stepped:
            self.enter(FIRST_STEP)

    def end_step(self) -> None:
        """An optimiser step has ended."""
        self._has_stepped = True
        self.enter(TRAINING)

    @contextlib.contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """Count the time of a block to this phase, and then go on with the one before."""
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase so far, to a tenth."""
        seconds = {**self._seconds}
        seconds[self._phase] = seconds.get(self._phase, 0.0) + time.monotonic() - self._since
        return {phase: round(value, 1) for phase, value in seconds.items()}

    def take_over(self, measured: Mapping[str, float] | None) -> None:
        """Go on from what the process of rank 0 measured to its end; None: it was killed, and nobody knows."""
        if measured is None:
            self._is_complete = False
            return
        self._seconds, self._since = dict(measured), time.monotonic()

    def outcome(self) -> dict[str, float] | None:
        """What an outcome reports: the seconds by phase, unless they are not known to the end."""
        return self.seconds() if self._is_complete else None

    def to_json(self) -> str:
        """For a process that is started now."""
        return json.dumps({"seconds": self._seconds, "phase": self._phase, "since": self._since})

    @classmethod
    def from_json(cls, text: str) -> Clock:
        """The clock of the process that started this one."""
        values = json.loads(text)
        return cls(values["seconds"], values["phase"], values["since"])

    def keep(self, work: Path, attempt: int) -> None:
        """Keep the seconds in the work folder, for later pods of the same attempt, if they are known to the end."""
        if not self._is_complete:
            return
        with contextlib.suppress(OSError):  # the disk may be what failed
            work.mkdir(parents=True, exist_ok=True)
            temporary = work / f".{FILE}"
            temporary.write_text(json.dumps({"attempt": attempt, "seconds": self.seconds()}))
            temporary.replace(work / FILE)


def process_start() -> float:
    """When this process was started, by `time.monotonic()`; now, where the system does not say so credibly."""
    now = time.monotonic()
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return now
    return now - age if 0 <= age <= LONGEST_START else now


_clock: Clock | None = None
_is_run = False
"""Whether this process carries out a run or a part of one."""


def of_process() -> Clock:
    """The clock of this process; begins with the first call."""
    global _clock, _is_run
    if _clock is None:
        inherited = os.environ.get(ENV)
        _is_run = inherited is not None
        _clock = Clock.from_json(inherited) if inherited else Clock()
    return _clock


def begin(work: Path, attempt: int, since: float | None = None) -> Clock:
    """A new clock for this process, that goes on from what earlier pods of the attempt measured.

    Args:
        since: when the run began, by `time.monotonic()`; default: now.
    """
    global _clock, _is_run
    _is_run = True
    _clock = Clock(_earlier(work, attempt), since=since)
    return _clock


def outcome() -> dict[str, float] | None:
    """What the outcome of this process reports; None for a command that is not a run."""
    return _clock.outcome() if _clock and _is_run else None


def _earlier(work: Path, attempt: int) -> dict[str, float]:
    try:
        kept = json.loads((work / FILE).read_bytes())
        return _SECONDS.validate_python(kept["seconds"]) if kept["attempt"] == attempt else {}
    except (OSError, ValueError, KeyError, TypeError, ValidationError, RecursionError):
        return {}  # of another attempt or damaged: the phases count from now on
