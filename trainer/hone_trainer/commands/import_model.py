"""`python -m hone_trainer import`: a foreign model into the store, and its numbers where they are asked for."""

from __future__ import annotations

from pathlib import Path

from hone_api.contract.report import ImportResult
from hone_api.kinds.modelversion import EvaluationNumber
from hone_api.plan import ImportPlan
from hone_trainer.artifacts.importing import importing
from hone_trainer.commands import evaluate
from hone_trainer.store import contents


def run(plan: ImportPlan) -> ImportResult:
    """Import the plan's source, and score it on the plan's rows.

    Raises:
        TrainerError: as `importing.run`, and what reading the rows and loading the model raises.
        StoreError: DatasetChanged.
    """
    result = importing.run(plan)
    if plan.rows is None or plan.source.evaluation is None:
        return result
    contents.verify([plan.rows])
    return result.model_copy(update={"numbers": _numbers(plan, result)})


def _numbers(plan: ImportPlan, result: ImportResult) -> list[EvaluationNumber]:
    """Of the model, and of an adapter's base, on the same rows."""
    assert plan.rows is not None
    assert plan.source.evaluation is not None
    folder = Path(plan.store) / "models" / plan.folder / result.artifact.uri
    base = importing.base_folder(plan, result)
    numbers = evaluate.recompute(folder, Path(plan.rows.path), base, most=plan.source.evaluation.max_rows)
    name = f"{plan.rows.name}/{plan.rows.split}"
    return [number.model_copy(update={"dataset": name}) for number in numbers]
