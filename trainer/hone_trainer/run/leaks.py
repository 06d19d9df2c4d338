"""Held-out rows whose question the run trains on: a score on them is partly memory."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from hone_api.plan import TrainingPlan
from hone_trainer.datasets.engine import keys

_log = logging.getLogger(__name__)


def advice(plan: TrainingPlan) -> list[str]:
    """A sentence for each held-out split that has such rows; or why that is not known, which ends no run."""
    if not plan.evaluation_datasets:
        return []
    try:
        return _found(plan)
    except Exception as error:
        _log.warning("held-out rows were not compared with the training rows", exc_info=True)
        return [f"held-out rows were not compared with the training rows: {type(error).__name__}: {error}"]


def _found(plan: TrainingPlan) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="hone-leaks-") as folder:
        return [
            f"{split.name}/{split.split}: {met:,} of {rows:,} held-out rows have their question in the training rows: a"
            " score on them is partly memory"
            for split, met, rows in keys.trained_on(plan.datasets, plan.evaluation_datasets, Path(folder))
        ]
