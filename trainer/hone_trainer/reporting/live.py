"""Live reporting: a bar, plain lines, the operator. Reporting never blocks and never fails training."""

from __future__ import annotations

import json
import os
import ssl
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pydantic import ConfigDict, Field

from hone_api.base.wording import duration
from hone_api.contract.report import CA_ENV, TOKEN_ENV, URL_ENV, HoneStatus, ProgressReport, TrainerStatus
from hone_api.words.phases import STEPPING, stage_words
from hone_api.words.progress_numbers import OF_STAGE, PROGRESS_NUMBERS, ReportedNumbers
from hone_trainer.reporting import phases
from hone_trainer.reporting.refused import FailedReports

POST_INTERVAL = 2.0
"""Seconds between reports to the operator; a change of stage is reported sooner."""
SHORTEST_INTERVAL = 0.5
"""Least seconds between any two reports: the operator accepts two a second from a pod and refuses more."""
POST_TIMEOUT = 5.0
ROWS_INTERVAL = 1.0
"""Seconds between reports of the rows of a stage."""
SIGN_INTERVAL = 5.0
"""Seconds after which work that goes on is reported again, though no number has changed."""
LINE_INTERVAL = 5.0
"""Seconds between plain lines of one stage."""


class Progress(ReportedNumbers[float]):
    """Where the run is. `hone_api.words.progress_numbers` has its numbers."""

    model_config = ConfigDict(frozen=True)
    stage: str = "Loading"
    start_step: int | None = None
    """Step that this process resumed from; None until training begins."""
    eta_seconds: int | None = None
    tracking_run: str | None = None
    """Id of the MLflow run."""
    metrics: Mapping[str, float] = Field(default_factory=dict)
    """Further metrics of the method, the latest value of each, e.g. reward_accuracy."""
    phases: Mapping[str, float] = Field(default_factory=dict)
    """Seconds of the attempt so far, by phase of `hone_api.words.phases`; a change of these alone is not progress."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Progress) and {**vars(self), "phases": {}} == {**vars(other), "phases": {}}

    def but(self, **fields: Any) -> Progress:
        """The same with other values of some fields. They are not validated: no report ends a run.

        Raises:
            TypeError: there is no field of this name.
        """
        if unknown := fields.keys() - Progress.model_fields.keys():
            raise TypeError(f"Progress has no field {', '.join(sorted(unknown))}")
        return self.model_copy(update=fields)


class Reporter(Protocol):
    """A destination of progress reports."""

    def report(self, progress: Progress) -> None:
        """Take the progress; returns at once and raises nothing."""

    def log(self, text: str) -> None:
        """Print one sentence for people."""

    def close(self) -> None:
        """The run ended; send what has not been sent."""


class Reporters:
    """Forwards to several reporters. Holds the current progress, so that each event changes only its own fields."""

    def __init__(self, *sinks: Reporter) -> None:
        self.sinks, self.progress = list(sinks), Progress()
        self.clock = phases.of_process()
        self._stage_began = self._reported = time.monotonic()
        self._rows = self._rows_begun = 0

    def add(self, sink: Reporter) -> None:
        """Add a reporter."""
        self.sinks.append(sink)

    def update(self, **fields: Any) -> None:
        """Change some fields of the progress, add to its metrics, and report the result to every reporter."""
        self.note(**fields)
        self._reported = time.monotonic()
        for sink in self.sinks:
            sink.report(self.progress)

    def note(self, **fields: Any) -> None:
        """The same without a report: the next one has it. What a stage has measured never outlives the stage."""
        self.clock.enter_stage(fields.get("stage", ""))
        metrics = {**self.progress.metrics, **fields.pop("metrics", {})}
        if fields.get("stage", self.progress.stage) != self.progress.stage:
            fields = {**dict.fromkeys((*OF_STAGE, "eta_seconds")), **fields}
            self._stage_began = time.monotonic()
        self.progress = self.progress.but(**fields, metrics=metrics, phases=self.clock.seconds())

    def begin_rows(self, stage: str, total: int = 0) -> None:
        """Report that a stage begins which counts rows; at least `total` of them."""
        self._rows = self._rows_begun = 0
        self.update(stage=stage, rows=0, total_rows=total or None)

    def add_rows(self, done: int, begun: int = 0) -> None:
        """Count rows of the stage: `done` have been measured, `begun` will be. The total grows with what is begun."""
        self._rows, self._rows_begun = self._rows + done, self._rows_begun + begun
        self.report_rows(self._rows, max(self.progress.total_rows or 0, self._rows_begun))

    def report_rows(self, done: int, total: int, *, kept: int = 0, **fields: Any) -> None:
        """Report how many rows of the stage are done, with their rate and the time that is left, now and then.

        Args:
            kept: of these rows, those that an earlier attempt did: they took none of this one's time.
            fields: further fields of the progress.
        """
        now = time.monotonic()
        self.note(rows=done, total_rows=total)
        if now < self._reported + ROWS_INTERVAL and done < total:
            return
        rate = (done - kept) / max(now - self._stage_began, 1e-6)
        left = round((total - done) / rate) if rate else None
        self.update(rows_per_second=rate or None, eta_seconds=left, **fields)

    def go_on(self) -> None:
        """Report the progress again if the last report is some time ago: long work without a number goes on."""
        if time.monotonic() >= self._reported + SIGN_INTERVAL:
            self.update()

    def log(self, text: str) -> None:
        for sink in self.sinks:
            sink.log(text)

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


class LogLines:
    """Plain lines on stderr, for a pod's log."""

    def __init__(self, interval: float = LINE_INTERVAL) -> None:
        self._interval, self._next = interval, 0.0
        self._stage = self._line = ""

    def report(self, progress: Progress) -> None:
        now, line = time.monotonic(), describe(progress)
        done, total = position(progress)
        stage = "" if progress.stage in STEPPING else progress.stage  # an evaluation among steps is one line or none
        if line == self._line or (stage == self._stage and now < self._next and done != total):
            return
        self._stage, self._line, self._next = stage, line, now + self._interval
        print(line, file=sys.stderr, flush=True)

    def log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class Bar:
    """A progress bar on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("Loading", total=None, numbers="")
        self._bar.start()

    def report(self, progress: Progress) -> None:
        done, total = position(progress)
        self._bar.tasks[0].total = total  # `update` keeps the total of the stage before where there is none
        self._bar.update(
            self._task,
            description=stage_words(progress.stage),
            completed=done,
            numbers=numbers(progress),
        )

    def log(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._bar.stop()


class Operator:
    """POSTs the newest progress to the operator's progress server from a thread, at most every POST_INTERVAL.

    If the server is unreachable or refuses, only the reports are lost; `say` gets each reason once. A report that
    failed for a temporary reason is sent again unless there is a newer one.
    """

    def __init__(
        self,
        url: str,
        token_file: Path,
        ca_file: Path | None,
        interval: float = POST_INTERVAL,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._url, self._token_file, self._interval = url, token_file, interval
        self._refusals = FailedReports(urllib.parse.urlsplit(url).netloc, log)
        context = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
        # Never through HTTPS_PROXY: a proxy outside the cluster does not know the name of the Service.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        self._newest: Progress | None = None
        self._stage = ""
        self._wake, self._closing = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def report(self, progress: Progress) -> None:
        with self._wake:
            self._newest = progress
            self._wake.notify()

    def log(self, text: str) -> None:
        pass

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout=2 * POST_TIMEOUT)

    def _run(self) -> None:
        failed: Progress | None = None
        shortest = min(self._interval, SHORTEST_INTERVAL)
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._newest or self._closing)
                progress, self._newest = self._newest, None
                last = self._closing
            if progress is None:
                return
            again = self._post(progress) and not (last and progress is failed)
            failed = progress if again else None
            if again and last:
                time.sleep(shortest)  # one more try; the run ends even if it fails
            with self._wake:
                self._newest = self._newest or failed
                self._wake.wait_for(lambda: self._closing, timeout=shortest)
                self._wake.wait_for(partial(self._is_urgent, progress.stage), timeout=self._interval - shortest)

    def _is_urgent(self, stage: str) -> bool:
        return self._closing or (self._newest is not None and self._newest.stage != stage)

    def _post(self, progress: Progress) -> bool:
        """Send a report. Returns whether it failed for a temporary reason, so that sending it again may help."""
        try:
            request = urllib.request.Request(
                self._url,
                data=json.dumps(to_report(progress).to_json()).encode(),
                headers={
                    "Content-Type": "application/json",
                    # Read every time: the kubelet rotates the token.
                    "Authorization": f"Bearer {self._token_file.read_text().strip()}",
                },
                method="POST",
            )
            with self._opener.open(request, timeout=POST_TIMEOUT):
                self._refusals.accepted()
                return False
        except Exception as error:  # never fails training; the next report has everything that this one had
            return self._refusals.failed(error)


def from_environment() -> Reporters:
    """Bar on a terminal, else lines; also the operator if the pod has its address."""
    shown: Reporter = Bar() if sys.stderr.isatty() else LogLines()
    operator = operator_from_environment(POST_INTERVAL, shown.log)
    return Reporters(shown, *([operator] if operator else []))


def operator_from_environment(interval: float, log: Callable[[str], None]) -> Operator | None:
    """The operator, if the pod has its address.

    Args:
        interval: seconds between reports.
        log: gets why reports fail.
    """
    url, token, ca = (os.environ.get(name) for name in (URL_ENV, TOKEN_ENV, CA_ENV))
    if not url or not token:
        return None
    try:
        return Operator(url, Path(token), Path(ca) if ca else None, interval, log)
    except OSError as error:
        log(f"progress is not reported to {url}: {error}")
        return None


def to_report(progress: Progress) -> ProgressReport:
    """Kubeflow Trainer's payload, with our own fields added. Numbers are in those alone: no number travels twice."""
    values = {number: getattr(progress, number.name) for number in PROGRESS_NUMBERS}
    sent = {n.name: value if n.count else f"{value:.6g}" for n, value in values.items() if value is not None}
    further = {name: f"{value:.6g}" for name, value in progress.metrics.items()}
    percent = 100 * progress.step // progress.total_steps if progress.total_steps else None
    return ProgressReport(
        trainer_status=TrainerStatus(
            progress_percentage=min(percent, 100) if percent is not None else None,
            estimated_remaining_seconds=progress.eta_seconds,
            last_updated_time=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        ),
        hone=HoneStatus(
            stage=progress.stage,
            start_step=progress.start_step,
            metrics=further,
            phases=dict(progress.phases),
            tracking_run=progress.tracking_run,
            **sent,
        ),
    )


def position(progress: Progress) -> tuple[int, int | None]:
    """How many rows or steps of the stage are done, of how many."""
    if progress.rows is not None and progress.total_rows:
        return progress.rows, progress.total_rows
    return progress.step, progress.total_steps


def describe(progress: Progress) -> str:
    """One line that describes the progress."""
    done, total = position(progress)
    steps = f"{done}/{total}{' rows' if progress.total_rows else ''}" if total else ""
    return " ".join(part for part in (stage_words(progress.stage), steps, numbers(progress)) if part)


def numbers(progress: Progress) -> str:
    """The headline numbers."""
    parts = [
        ("loss", progress.loss, "{:.4f}"),
        ("eval", progress.eval_loss, "{:.4f}"),
        ("lr", progress.learning_rate, "{:.2e}"),
        ("tok/s", progress.tokens_per_second, "{:.0f}"),
        ("rows/s", progress.rows_per_second, "{:.3g}"),
    ]
    left = [] if progress.eta_seconds is None else [f"ETA {duration(progress.eta_seconds)}"]
    return " ".join([*(f"{name} {form.format(value)}" for name, value, form in parts if value is not None), *left])
