"""Logs a run to an experiment tracker from a thread. Tracking never stops or slows training.

What cannot be written waits in a bounded queue and is tried again; a full queue drops its oldest points. The first
failure is reported, and at the end how many points are missing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from hone_api.base.wording import counted
from hone_api.blocks.tracking import TrackedRun
from hone_api.plan import TrackingInput, TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.mlflow.run import MOST_POINTS, MlflowRun, Point, key_of
from hone_trainer.endpoints.mlflow.server import MlflowServer
from hone_trainer.endpoints.tracker_files import FileRun
from hone_trainer.errors import classify
from hone_trainer.secrets import scrub

MOST_WAITING = 20_000
"""Points in the queue: some megabytes."""
SETTLE_SECONDS = 10.0
"""How long the end of a run waits for the server."""
UNSETTLED_SECONDS = 1.0
"""The same once it has waited in vain."""
PAUSE_SECONDS, LONGEST_PAUSE = 1.0, 60.0
"""Between batches, and doubled after each failure."""
WAY_OUT = "the run goes on without; check spec.tracking, and the server with the network policy, or the store"


class Tracker(Protocol):
    """Where a run is logged to in addition to its own reports."""

    @property
    def run_id(self) -> str | None:
        """Id of the run there, once it exists."""

    def describe(self, params: Mapping[str, str], step: int = 0) -> None:
        """Note parameters of an attempt that goes on from this step; returns at once."""

    def measure(self, step: int, values: Mapping[str, float]) -> None:
        """Note values of metrics at an optimiser step; returns at once."""

    def settle(self) -> tuple[TrackedRun | None, str | None]:
        """Wait a moment for what was noted to arrive. Returns the run, and what is missing, in a sentence."""

    def close(self, status: str) -> None:
        """End with a status of MLflow: FINISHED, FAILED or SCHEDULED."""


class TrackerRun(Protocol):
    """The run of one tracker, as the thread writes to it; any method may raise, and is called again."""

    @property
    def run_id(self) -> str:
        """Its id there."""

    def log(self, points: Sequence[Point]) -> None:
        """Write at most MOST_POINTS points. Writing the same points again changes nothing."""

    def describe(self, params: Mapping[str, str], attempt: int, step: int) -> None:
        """Write the parameters of an attempt, which goes on from this step."""

    def end(self, status: str) -> None:
        """Set the state of the run, as MLflow calls it."""


class NoTracker:
    """Of a run that is not tracked."""

    run_id = None

    def describe(self, params: Mapping[str, str], step: int = 0) -> None:
        pass

    def measure(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def settle(self) -> tuple[TrackedRun | None, str | None]:
        return None, None

    def close(self, status: str) -> None:
        pass


def tracker_of(plan: TrainingPlan, log: Callable[[str], None]) -> Tracker:
    """The tracker that the plan asks for."""
    if plan.tracking is None:
        return NoTracker()
    about = plan.tracking
    open_run: Callable[[], TrackerRun] = partial(FileRun.open, about, plan.run)
    if about.type == "MLflow":
        server = MlflowServer(about.uri, network_of(plan), about.secret_path)
        open_run = partial(MlflowRun.open, server, about, plan.run)
    return QueuedTracker(about, open_run, plan.attempt, log, SETTLE_SECONDS)


class QueuedTracker:
    """Writes to one run of a tracker; its methods never raise.

    Args:
        open_run: finds or creates the run; may raise, and is called again.
        log: prints one sentence for people.
        settle_seconds: how long `settle` and `close` may wait, each.
        pause: seconds between batches.
    """

    def __init__(
        self,
        tracking: TrackingInput,
        open_run: Callable[[], TrackerRun],
        attempt: int,
        log: Callable[[str], None],
        settle_seconds: float,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._tracking, self._open, self._attempt = tracking, open_run, attempt
        self._log, self._settle_seconds, self._pause = log, settle_seconds, pause
        self._run: TrackerRun | None = None
        self._points: deque[Point] = deque()
        self._params: dict[str, str] = {}
        self._status: str | None = None
        self._lost = self._failures = self._step = 0
        self._problem: str | None = None
        self._given_up = self._urgent = self._busy = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        run = self._run
        return run.run_id if run else None

    def describe(self, params: Mapping[str, str], step: int = 0) -> None:
        with self._wake:
            self._params |= params
            self._step = step
            self._wake.notify_all()

    def measure(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        with self._wake:
            self._points += [Point(key_of(name), value, step, now) for name, value in values.items()]
            self._drop_oldest()
            self._wake.notify_all()

    def settle(self) -> tuple[TrackedRun | None, str | None]:
        with self._wake:
            self._urgent = True
            self._wake.notify_all()
            self._wake.wait_for(self._is_settled, timeout=self._settle_seconds)
            missing = self._lost + len(self._points)
            problem, run = self._problem or "it has not answered yet", self._run
        if run is None or missing:
            self._settle_seconds = min(self._settle_seconds, UNSETTLED_SECONDS)
            words = f"{counted(missing, 'value')} of metrics" if missing else "the run"
            return self._tracked(), f"spec.tracking: {words} did not reach {self._tracking.place}: {problem}"
        return self._tracked(), None

    def close(self, status: str) -> None:
        with self._wake:
            self._status, self._urgent = status, True
            self._wake.notify_all()
        self._thread.join(timeout=self._settle_seconds)

    def _tracked(self) -> TrackedRun | None:
        if self._run is None:
            return None
        return TrackedRun(uri=self._tracking.uri, experiment=self._tracking.experiment, run_id=self._run.run_id)

    def _is_settled(self) -> bool:
        return self._given_up or not (self._points or self._params or self._busy or self._run is None)

    def _drop_oldest(self) -> None:
        while len(self._points) > MOST_WAITING:
            self._points.popleft()
            self._lost += 1

    # The thread

    def _work(self) -> None:
        while not self._given_up:
            with self._wake:
                self._wake.wait_for(lambda: self._points or self._params or self._status or self._run is None)
                status = self._status
                points = [self._points.popleft() for _ in range(min(MOST_POINTS, len(self._points)))]
                params, self._params = self._params, {}
                self._busy = True
            failed = self._send(points, params)
            with self._wake:
                self._busy = False
                if failed:
                    self._points.extendleft(reversed(points))
                    self._params = params | self._params
                    self._drop_oldest()
                ended = status is not None and (failed or not (self._points or self._params))
                self._wake.notify_all()
            if ended:
                break
            self._rest()
        if status is not None and self._run is not None and not self._given_up:
            self._attempt_to(lambda run: run.end(status))

    def _rest(self) -> None:
        """Collect more points, or let the server recover. At the end of the run, nothing is waited for."""
        pause = min(LONGEST_PAUSE, self._pause * 2 ** min(self._failures, 10))
        with self._wake:
            self._wake.wait_for(lambda: self._status or (self._urgent and not self._failures), timeout=pause)

    def _send(self, points: list[Point], params: dict[str, str]) -> bool:
        """Returns whether it failed and can be tried again."""

        def write(run: TrackerRun) -> None:
            if params:
                run.describe(params, self._attempt, self._step)
            if points:
                run.log(points)

        return self._attempt_to(write, len(points))

    def _attempt_to(self, act: Callable[[TrackerRun], object], points: int = 0) -> bool:
        """Returns whether it failed and can be tried again. What an open run refuses is lost, and nothing else."""
        try:
            if self._run is None:
                self._run = self._open()
            act(self._run)
        except Exception as error:  # never fails training
            failure = classify(error)
            self._failures += 1
            first, self._problem = self._problem is None, scrub(failure.message)
            if first:
                self._log(f"warning: spec.tracking: {self._problem}; {WAY_OUT}")
            if failure.code != FailureCode.DESTINATION_REFUSED:
                return True
            if self._run is not None:
                self._lost += points
                return False
            self._given_up = True
            return True
        self._failures = 0
        return False
