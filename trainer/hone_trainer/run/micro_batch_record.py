"""What the probe of the micro batch leaves for the attempts of a run, and what a probe is started with."""

from __future__ import annotations

from pathlib import Path

from hone_api.plan import TrainingPlan

FOLDER = "micro-batch"
"""Folder of workPath with what each rank measured, and what attempts agreed on."""
RANK_ENV = "HONE_PROBED_RANK"
"""The rank for which a process measures."""
PROBE = "hone_trainer.run.micro_batch_probe"
"""The module that a process of its own runs."""


def record_file(plan: TrainingPlan, rank: int) -> Path:
    """JSON with microBatchSize (0: not even one row fits), limitBytes, measuredBytes by rows, and, until the probe has
    ended, the size that it is `trying`."""
    return Path(plan.work_path) / FOLDER / f"rank-{rank}.json"
