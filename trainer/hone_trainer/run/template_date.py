"""The date that chat templates print: that of the run's first attempt, whenever an attempt goes on."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

from hone_api.plan import TrainingPlan
from hone_trainer.errors import ConfigError
from hone_trainer.signals import Stop
from hone_trainer.store.manifest import write_atomically

FILE = "template-date"
"""In the run's work folder: the date, as 2026-11-27."""


def fixed(plan: TrainingPlan, stop: Stop, first: bool) -> TrainingPlan:
    """The plan with the date of its run. A folder of work from before this file was written gets the date now.

    Args:
        first: whether this is the first node, which chooses the date where neither plan nor work folder has it.

    Raises:
        ConfigError: the plan of a run outside a cluster names another date than its first attempt had; the file of the
            date was edited.
        TrainerError: Interrupted.
    """
    file = Path(plan.work_path) / FILE
    if first and not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, (plan.template_date or date.today()).isoformat().encode())
    while plan.template_date is None and not file.is_file():
        stop.check("while waiting for the first node")
        time.sleep(1)
    kept = _read(file) if file.is_file() else plan.template_date
    # In a cluster an attempt's plan may be of an operator that wrote no date, and the next one's of one that does.
    if plan.template_date not in (None, kept) and plan.export_folder is None:
        raise ConfigError(
            f"templateDate is {plan.template_date}, but the first attempt in workPath {plan.work_path} had {kept}: "
            "name that date or another folder"
        )
    return plan.model_copy(update={"template_date": kept})


def _read(file: Path) -> date:
    try:
        return date.fromisoformat(file.read_text().strip())
    except ValueError:
        raise ConfigError(
            f"{file} is not the date that chat templates print, as 2026-11-27: write that of the first attempt there"
        ) from None
