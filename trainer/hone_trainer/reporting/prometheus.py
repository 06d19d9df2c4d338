"""The trainer's own /metrics: the curves of one run, for Prometheus. Fixed names and one label, the run."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from hone_api.words.progress_numbers import PROGRESS_NUMBERS
from hone_trainer.reporting.live import Progress

_LABEL = "finetunejob"


class PrometheusReporter:
    """A Reporter that keeps gauges and serves them."""

    def __init__(self, run: str, port: int, address: str = "0.0.0.0") -> None:
        registry = CollectorRegistry()
        self._run = run
        self._gauges = {
            n.name: Gauge(f"hone_trainer_{n.gauge_name}", n.description, [_LABEL], registry=registry)
            for n in PROGRESS_NUMBERS
        }
        text = "Seconds of the attempt so far, by phase: see status.attempts[].phaseSeconds."
        self._phases = Gauge("hone_trainer_phase_seconds", text, [_LABEL, "phase"], registry=registry)
        self._updated = Gauge(
            "hone_trainer_last_progress_timestamp_seconds", "When progress was last seen.", [_LABEL], registry=registry
        )
        self._server, self._thread = start_http_server(port, addr=address, registry=registry)

    @property
    def port(self) -> int:
        """The port that is served; differs from the requested one if that was 0."""
        return int(self._server.server_port)

    def report(self, progress: Progress) -> None:
        for field, gauge in self._gauges.items():
            value = getattr(progress, field)
            if value is None:  # a number that is not known, or no longer, has no series instead of a wrong one
                gauge.clear()
            else:
                gauge.labels(self._run).set(value)
        for phase, seconds in progress.phases.items():
            self._phases.labels(self._run, phase).set(seconds)
        self._updated.labels(self._run).set(time.time())

    def log(self, text: str) -> None:
        pass

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
