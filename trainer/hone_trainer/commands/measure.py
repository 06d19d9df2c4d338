"""`python -m hone_trainer measure`: a finished model on rows again, next to another version, for spec.evaluations."""

from __future__ import annotations

from pathlib import Path

from hone_api.contract.report import MeasureResult
from hone_api.plan import MeasurePlan, ModelInput
from hone_api.words.failures import FailureCode
from hone_trainer.commands import evaluate
from hone_trainer.commands.exported import Exported
from hone_trainer.errors import TrainerError
from hone_trainer.store import contents, signature


def run(plan: MeasurePlan) -> MeasureResult:
    """Compare every file of the rows and models with its manifest, and measure.

    Raises:
        StoreError: DatasetChanged, ManifestMismatch, SignatureMissing, SignatureInvalid, SigningTrustUnusable.
        TrainerError: as `evaluate.recompute`.
    """
    contents.verify([plan.rows])
    signature.compare(plan.model)
    if plan.against:
        signature.compare(plan.against)
    exported = _exported(plan.model, plan.base_path)
    other = _exported(plan.against) if plan.against else None
    try:
        numbers = evaluate.measure(exported, other, Path(plan.rows.path), plan.max_rows)
    except TrainerError as error:
        if error.code != FailureCode.FILE_NOT_FOUND:
            raise
        words = f"{plan.name} cannot be measured without its run: {error.message}"
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, words) from error
    name = f"{plan.rows.name}/{plan.rows.split}"
    return MeasureResult(numbers=[number.model_copy(update={"dataset": name}) for number in numbers])


def _exported(model: ModelInput, base: str | None = None) -> Exported:
    """Args: base: folder of the base of a merged or full model."""
    if model.adapter:
        return Exported.read(Path(model.adapter.path), Path(model.path))
    exported = Exported.read(Path(model.path), Path(base) if base else None)
    if base and exported.plan.model_adapter:  # it started from base and adapter, merged only for that run
        return Exported.read(Path(model.path))
    return exported
