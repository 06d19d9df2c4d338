"""An operator that is killed at a write of its own, in one life of objects after another, and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from support.cluster.fault_proxy import Fault, FaultProxy, Lane
from support.cluster.hand import Namespace
from support.cluster.kube import GUARD_SECONDS

Point = Literal["before", "carried out", "answered"]
LOOK_SECONDS = 0.2
"""Between two looks at objects that the operator does not write."""
POINTS: tuple[Point, ...] = ("before", "carried out", "answered")

FORKS = """
import json, os, signal, sys
import hone_operator.__main__ as operator
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(0)
        os.environ.update(order["env"])
        operator.main()
        os._exit(0)
    print(pid, flush=True)
"""
"""A process that has the imports done and forks operators: a restart takes milliseconds."""


class Processes:
    """The operator's process, one at a time."""

    def __init__(self, log: str, kubeconfig: str):
        self._log = log
        # The client reads KUBECONFIG when it is imported: it must be there before the fork.
        env = {**os.environ, "KUBECONFIG": kubeconfig}
        self._forks = subprocess.Popen(
            [sys.executable, "-c", FORKS], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._pid: int | None = None
        self._starting = threading.Lock()
        """An operator can write before its process id has arrived here, and is killed at that write."""

    def start(self, env: dict[str, str]) -> None:
        assert self._forks.stdin
        assert self._forks.stdout
        with self._starting:
            self._forks.stdin.write(json.dumps({"env": env, "log": self._log}) + "\n")
            self._forks.stdin.flush()
            self._pid = int(self._forks.stdout.readline())

    def log(self) -> str:
        return Path(self._log).read_text()[-4000:]

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        with self._starting:
            pid, self._pid = self._pid, None
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            while True:
                os.kill(pid, 0)
                time.sleep(0.001)

    def alive(self) -> bool:
        """Whether it runs, or `kill` has ended it."""
        if (pid := self._pid) is None:
            return True
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return self._pid is None
        return True

    def close(self) -> None:
        self.kill()
        self._forks.kill()
        self._forks.wait()


class Story(Protocol):
    """The life of the objects of one namespace, in which a hand plays Job controller and kubelet."""

    def begin(self) -> None:
        """Create what the life begins with."""

    def step(self) -> bool:
        """Bring what is there one step on; True at the end of the life."""

    def state(self) -> dict[str, Any]:
        """What must not depend on when the operator was killed."""


@dataclass
class Sweep:
    """One life after another, each with another moment of death."""

    proxy: FaultProxy
    processes: Processes
    spaces: Callable[[], Namespace]
    story: Callable[[Namespace], Story]
    ports: list[int]
    settings: dict[str, str]
    """Of the operator, in addition."""

    def life(self, at: tuple[int, Point] | None, times: int = 1) -> tuple[dict[str, Any], list[str]]:
        """(end state, writes) of a life in which the operator dies at `at`, and so often at the writes that follow."""
        space = self.spaces()
        env = {
            "HONE_NAMESPACE": "hone-system",
            "HONE_TRAINER__IMAGE": "trainer",
            "HONE_WATCH_NAMESPACES": json.dumps([space.name]),
            "HONE_PORTS__PROBES": str(self.ports[0]),
            "HONE_PORTS__METRICS": str(self.ports[1]),
            **self.settings,
        }
        killed = threading.Event()

        def kill() -> None:
            self.processes.kill()
            killed.set()

        number, point = at or (0, "before")
        lane = Lane(Fault(f"kill {point}", times=times), write=number)
        self.proxy.lanes, self.proxy.kill = {space.name: lane}, kill
        self.processes.start(env)
        story = self.story(space)
        story.begin()
        end, written = time.monotonic() + GUARD_SECONDS, len(lane.writes)
        while not story.step():
            assert self.processes.alive(), f"killed at {at}: it ended by itself\n{self.processes.log()}"
            assert time.monotonic() < end, f"killed at {at}: no end\n{self.processes.log()}\n{story.state()}"
            if killed.is_set():
                killed.clear()
                self.processes.start(env)
            written = wait_for_a_write(lane, written)
        time.sleep(0.1)
        state, writes = story.state(), list(lane.writes)
        self.processes.kill()
        return state, writes


def wait_for_a_write(lane: Lane, written: int) -> int:
    """Until the operator has written more than so often; how often it has.

    After LOOK_SECONDS it returns in any case. Only the operator and the hand change anything, and a look costs as much
    processor time as a write.
    """
    end = time.monotonic() + LOOK_SECONDS
    time.sleep(0.02)
    while len(lane.writes) <= written and time.monotonic() < end:
        time.sleep(0.02)
    return len(lane.writes)


def conditions_of(body: dict[str, Any]) -> dict[str, str]:
    """<status>/<reason> of each condition, by type."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return {c["type"]: f"{c['status']}/{c['reason']}" for c in conditions}
