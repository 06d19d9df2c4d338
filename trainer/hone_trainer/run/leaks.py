"""Held-out rows whose question the run trains on: a score on them is partly memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hone_api.plan import TrainingPlan
from hone_trainer.datasets.engine import keys


def advice(plan: TrainingPlan) -> list[str]:
    """A sentence for each held-out split that has such rows.

    Raises:
        SourceError: a split is not there.
    """
    if not plan.evaluation_datasets:
        return []
    with tempfile.TemporaryDirectory(prefix="hone-leaks-") as folder:
        return [
            f"{split.name}/{split.split}: {met:,} of {rows:,} held-out rows have their question in the training rows: a"
            " score on them is partly memory"
            for split, met, rows in keys.trained_on(plan.datasets, plan.evaluation_datasets, Path(folder))
        ]
