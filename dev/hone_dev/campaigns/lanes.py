"""Work in lanes: side by side, within each one after the other; each piece timed, its output in one piece.

Lanes that run together are a stage. A stage begins when the one before it has ended.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_LOOK = 0.1  # seconds between two looks for output, or for what work needs
_PATIENCE = 300.0
"""Seconds for which a lane waits for what its next work needs, before it takes later work that can begin. The cores are
not idle meanwhile: the other lanes compute."""
_TELLS_WHY = re.compile(r"FAILED |ERROR |INTERNALERROR>|    FAILED ")
"""How pytest's summary of failed tests, its own errors and what is printed here begin."""
_MOST_REASONS = 40


@dataclass(frozen=True)
class Work:
    """Commands, and what stands in their way on this machine (None: nothing).

    Attributes:
        needs: names of work of other lanes that has to end first; a name that does not run counts as ended.
    """

    name: str
    commands: Sequence[Sequence[str]]
    obstacle: Callable[[], str | None] = lambda: None
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class Lane:
    """Work that runs one after the other, in this order as far as what it needs has ended.

    Attributes:
        nice: added to the niceness of its processes. With 10 they have a tenth of a core that others want, too, and
            all of one that nobody wants.
    """

    works: Sequence[Work]
    nice: int = 0


Stage = Sequence[Lane]


@dataclass(frozen=True)
class Result:
    """What came of one piece of work.

    Attributes:
        seconds: from its start to its end.
        cpu: seconds of processor time of its commands and of all that these waited for; not of a daemon they left.
        busy: share of the machine's processor time that anything used meanwhile; None where the kernel does not say.
        log: its output; None if that went to the terminal.
    """

    name: str
    passed: bool
    seconds: float = 0.0
    cpu: float = 0.0
    busy: float | None = None
    log: Path | None = None


@dataclass(frozen=True)
class Processors:
    """Processor time of the whole machine since its start, in ticks."""

    used: int
    passed: int

    @classmethod
    def now(cls, stat: Path = Path("/proc/stat")) -> Processors | None:
        """As the kernel counts it; None where there is no such file."""
        try:
            ticks = [int(number) for number in stat.read_text().splitlines()[0].split()[1:9]]
        except OSError:
            return None
        idle, waits_for_disk = ticks[3:5]
        return cls(sum(ticks) - idle - waits_for_disk, sum(ticks))

    def busy_since(self, before: Processors) -> float | None:
        """The used share of what passed; None if nothing did."""
        passed = self.passed - before.passed
        return (self.used - before.used) / passed if passed else None


@dataclass
class _Lanes:
    """All that run together; `stopped` when nothing more may start."""

    folder: Path
    env: Mapping[str, str]
    logs: Path | None
    names: frozenset[str] = frozenset()
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    results: dict[str, Result] = field(default_factory=dict)
    stopped: bool = False

    def log(self, work: Work) -> Path | None:
        """Where its output goes; None for the terminal."""
        return self.logs / f"{work.name}.log" if self.logs else None

    def follow(self, lane: Lane) -> None:
        """Run a lane to its end, all of it even after a piece failed."""
        prefix = ("nice", "-n", str(lane.nice)) if lane.nice else ()
        remaining = list(lane.works)
        while work := self._next(remaining):
            remaining.remove(work)
            try:
                result = self._finish(work, prefix)
            except Exception:  # whoever shows the output waits for a result
                traceback.print_exc()
                result = Result(work.name, False)
            self.results[work.name] = dataclasses.replace(result, log=self.log(work))

    def _next(self, remaining: Sequence[Work]) -> Work | None:
        """The first, once it can begin; after a while, the first that can. None when nothing more is to start."""
        own = {work.name for work in remaining}
        patient_until = time.monotonic() + _PATIENCE
        while remaining and not self.stopped:
            missing = self.names - self.results.keys() - own
            able = next((work for work in remaining if missing.isdisjoint(work.needs)), None)
            if able is remaining[0] or (able and time.monotonic() > patient_until):
                return able
            time.sleep(_LOOK)
        return None

    def _finish(self, work: Work, prefix: Sequence[str]) -> Result:
        log = self.log(work)
        if log is None:
            return self._commands(work, prefix, sys.stdout)
        with log.open("w") as out:
            return self._commands(work, prefix, out)

    def _commands(self, work: Work, prefix: Sequence[str], out: IO[str]) -> Result:
        print(f"\n==> {work.name}", file=out, flush=True)
        if reason := work.obstacle():
            way_out = f"or leave it out by name: SKIP={work.name}"
            print(f"    cannot run here: {work.name} {reason}, {way_out}", file=out, flush=True)
            return Result(work.name, False)
        start, cpu, failed = time.monotonic(), 0.0, list[str]()
        before = Processors.now()
        for command in work.commands:
            code, took = self._command([*prefix, *command], out)
            cpu += took
            failed += [f"    FAILED (exit code {code}): {' '.join(command)}"] if code else []
        for line in failed:
            print(line, file=out)
        seconds, after = time.monotonic() - start, Processors.now()
        busy = after.busy_since(before) if before and after else None
        print(f"    {work.name}: {'failed' if failed else 'passed'} in {seconds:.0f} s", file=out, flush=True)
        return Result(work.name, not failed, seconds, cpu, busy)

    def _command(self, command: Sequence[str], out: IO[str]) -> tuple[int, float]:
        """Exit code, and seconds of processor time."""
        if self.stopped:
            return 1, 0.0
        stderr = subprocess.STDOUT if self.logs else None
        process = subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=out, stderr=stderr)
        self.running.add(process)
        _, status, usage = os.wait4(process.pid, 0)
        self.running.discard(process)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_utime + usage.ru_stime

    def show(self, work: Work) -> None:
        """Print its output as it comes, until it has ended."""
        log = self.log(work)
        if log is None:
            return
        while not log.exists():
            time.sleep(_LOOK)
        with log.open(errors="replace") as file:
            ended = False
            while not ended:
                ended = work.name in self.results  # before the read: what was written until then is read
                shutil.copyfileobj(file, sys.stdout)
                sys.stdout.flush()
                time.sleep(0 if ended else _LOOK)

    def stop(self) -> None:
        """End what runs; nothing more starts."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()


def run(stages: Sequence[Stage], folder: Path, env: Mapping[str, str], logs: Path) -> list[Result]:
    """The results, in the order of the stages and of their lanes.

    Where nothing runs side by side, output goes straight to the terminal. Else each piece of work writes a file in
    `logs`, and the files are shown one after the other, in the order of the lanes: the first that has not ended as it
    grows.
    """
    stages = [kept for stage in stages if (kept := [lane for lane in stage if lane.works])]
    names = frozenset(work.name for stage in stages for lane in stage for work in lane.works)
    together = _Lanes(folder, env, logs if any(len(stage) > 1 for stage in stages) else None, names)
    if together.logs:
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        for before, stage in enumerate(stages):
            words = "then" if before else "side by side"
            print(f"{words}: {' | '.join(', '.join(work.name for work in lane.works) for lane in stage)}")
        print(f"shown one after the other; all output is in {logs}", flush=True)
    try:
        for stage in stages:
            _run_stage(together, stage)
    except BaseException:
        together.stop()
        raise
    return [together.results[work.name] for stage in stages for lane in stage for work in lane.works]


def _run_stage(together: _Lanes, stage: Stage) -> None:
    threads = [threading.Thread(target=together.follow, args=(lane,)) for lane in stage]
    for thread in threads:
        thread.start()
    for lane in stage:
        for work in lane.works:
            together.show(work)
    for thread in threads:
        thread.join()


def reasons(results: Sequence[Result]) -> list[str]:
    """The last lines that tell why work failed; of what wrote to the terminal itself, none."""
    lines = list[str]()
    for log in (each.log for each in results if each.log and not each.passed):
        told = [line for line in log.read_text(errors="replace").splitlines() if _TELLS_WHY.match(line)]
        lines += ["", f"{log}:", *told[-_MOST_REASONS:]]
    return lines


def table(results: Sequence[Result]) -> str:
    """One line each: name, whether it passed, minutes and seconds, processor time, how busy the machine was."""

    def clock(seconds: float) -> str:
        return f"{int(seconds) // 60:3d} min {int(seconds) % 60:02d} s"

    lines = [f"{'tier':12} {'result':8} {'time':>12} {'CPU time':>12} {'machine busy':>13}"]
    for each in results:
        outcome = "passed" if each.passed else "FAILED"
        busy = "" if each.busy is None else f"{each.busy:.0%}"
        lines.append(f"{each.name:12} {outcome:8} {clock(each.seconds):>12} {clock(each.cpu):>12} {busy:>13}".rstrip())
    return "\n".join(lines)
