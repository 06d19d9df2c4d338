"""The trainer's own /metrics: the curves of one run, for Prometheus. Fixed names, one label: the run."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from hone_trainer.reporting.live import Progress

GAUGES = {
    "step": "Optimiser steps done.",
    "total_steps": "Optimiser steps of the whole run.",
    "epoch": "Passes over the rows.",
    "loss": "Training loss, nats per token.",
    "eval_loss": "Held-out loss, nats per token.",
    "learning_rate": "Learning rate.",
    "grad_norm": "Gradient norm before clipping.",
    "tokens_per_second": "Tokens per second over all ranks.",
    "checkpoint_step": "Step of the newest complete checkpoint.",
    "checkpoint_bytes": "Size of the run's checkpoints in the store.",
}
_RENAMED = {"step": "steps", "total_steps": "steps_target"}
_LABEL = "finetunejob"


class Metrics:
    """A Reporter that keeps gauges and serves them."""

    def __init__(self, run: str, port: int, address: str = "0.0.0.0") -> None:
        registry = CollectorRegistry()
        self._run = run
        self._gauges = {
            field: Gauge(f"hone_trainer_{_RENAMED.get(field, field)}", text, [_LABEL], registry=registry)
            for field, text in GAUGES.items()
        }
        self._updated = Gauge(
            "hone_trainer_last_progress_timestamp_seconds", "When progress was last seen.", [_LABEL], registry=registry
        )
        self._server, self._thread = start_http_server(port, addr=address, registry=registry)

    @property
    def port(self) -> int:
        """The port that is served; useful when asked for port 0."""
        return int(self._server.server_port)

    def report(self, progress: Progress) -> None:
        for field, gauge in self._gauges.items():
            value = getattr(progress, field)
            if value is not None:  # a number that is not known yet has no series, rather than a wrong 0
                gauge.labels(self._run).set(value)
        self._updated.labels(self._run).set(time.time())

    def say(self, text: str) -> None:
        pass

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
