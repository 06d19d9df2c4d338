"""A finished run does not run again, and an export that was reported is never overwritten.

`result.json` in the work folder records how a run ended: its result, or a failure that no other attempt can change.
If that record never reached the operator, the next attempt reports it again.

A folder that is being exported contains a marker file. A folder with a manifest and without the marker was reported and
may belong to a ModelVersion, so it is left unchanged.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from hone_api.blocks.placement import MAX_RATE_HALVINGS
from hone_api.contract.manifest import MANIFEST
from hone_api.contract.report import TrainingResult
from hone_api.contract.termination import FailureReport, TerminationMessage
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FAILURES, FailureCode, Retry
from hone_trainer.errors import ConfigError, StoreError, TrainerError
from hone_trainer.store import manifest

RECORD = "result.json"
MARK = ".exporting"
NOT_THE_RUN = {
    "release",
    "attempt",
    "export_folder",
    "master_address",
    "master_port",
    "metrics_port",
    "failure_interval",
    "hang_timeout",
    "micro_batch_limit",
    "learning_rate_halvings",
    "cluster_domain",
    "memory",
    "template_date",
    "allow_private_addresses",
    "namespace",
    "services",
    "cluster_cidrs",
    "checkpoints",
    "model_path",
    "reward_paths",
    "teacher_secret_path",
    "generation_secret_path",
}
"""Fields of a plan in which attempts of one run may differ."""
log = logging.getLogger("hone.trainer")


class FinishedRecord(BaseModel):
    """How a run ended."""

    run: str
    """Its identity."""
    attempt: int
    outcome: TerminationMessage


def identity(plan: TrainingPlan) -> str:
    """SHA-256 of what the run is and where its model goes; the same for every attempt."""
    body = plan.largest.model_dump(mode="json", exclude=NOT_THE_RUN, exclude_defaults=True)
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def result(plan: TrainingPlan) -> TrainingResult | None:
    """The result of this run if an earlier attempt finished it and every file still matches its manifest.

    Raises:
        TrainerError: the failure that ended this run for good. Only in a cluster, where a run cannot be changed.
    """
    record = _read(plan)
    if record is None:
        return None
    if record.outcome.failure and plan.export_folder:
        failure = record.outcome.failure
        words = f"attempt {record.attempt} has ended this run: {failure.message}"
        raise TrainerError(FailureCode(failure.code), words, rank=failure.rank, step=failure.step)
    finished = record.outcome.result
    if not isinstance(finished, TrainingResult):
        return None
    try:
        for artifact in finished.artifacts:
            manifest.verify(Path(plan.output_path) / artifact.uri, artifact.digest)
    except StoreError as error:
        log.warning("this run has finished, but its model is damaged, and is exported again elsewhere: %s", error)
        return None
    for folder in {(Path(plan.output_path) / artifact.uri).parent for artifact in finished.artifacts}:
        close(folder)  # the attempt may have been killed between recording its result and closing the export
    log.info("attempt %d has finished this run: its result is reported again, nothing is trained", record.attempt)
    return (
        finished if record.attempt == plan.attempt else finished.model_copy(update={"finished_attempt": record.attempt})
    )


def place(plan: TrainingPlan) -> Path:
    """Folder below which this attempt exports; never one with a reported export.

    In a cluster each attempt has its own folder, or another one if that is taken.

    Raises:
        ConfigError: outside a cluster, when outputPath holds a finished export.
    """
    for folder in _places(plan):
        if not _holds_export(folder) or _is_ours(folder, plan):
            return folder
    raise ConfigError(
        f"outputPath {plan.output_path} holds a finished model, which is never written again: "
        "name another folder, or remove it"
    )


def begin(plan: TrainingPlan) -> Path:
    """Create the folder to export to, with the marker file. On the first rank only.

    Raises:
        ConfigError: see `place`.
    """
    folder = place(plan)
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(folder / MARK, _mark(plan))
    return folder


def close(folder: Path) -> None:
    """Remove the marker: the export is complete and recorded, and nothing writes there any more."""
    (folder / MARK).unlink(missing_ok=True)


def keep(plan: TrainingPlan, outcome: TerminationMessage) -> None:
    """Record the end of the run. A failure that another attempt may overcome is not recorded."""
    failure = outcome.failure
    if failure and (not plan.export_folder or not _is_final(failure, plan)):
        return
    record = FinishedRecord(run=identity(plan), attempt=plan.attempt, outcome=outcome)
    file = Path(plan.work_path) / RECORD
    file.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(file, record.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode())


def _is_final(failure: FailureReport, plan: TrainingPlan) -> bool:
    if failure.code == FailureCode.DIVERGED and plan.learning_rate_halvings is not None:
        return plan.learning_rate_halvings >= MAX_RATE_HALVINGS
    return FAILURES[failure.code].retry is Retry.NEVER and failure.micro_batch_size is None


def _read(plan: TrainingPlan) -> FinishedRecord | None:
    try:
        record = FinishedRecord.model_validate_json((Path(plan.work_path) / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    return record if record.run == identity(plan) else None


def _places(plan: TrainingPlan) -> Iterator[Path]:
    root = Path(plan.output_path)
    if plan.export_folder is None:
        yield root
        return
    yield root / plan.export_folder
    for number in range(2, 1000):
        yield root / f"{plan.export_folder}-{number}"


def _holds_export(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob(f"*/{MANIFEST}"))


def _is_ours(folder: Path, plan: TrainingPlan) -> bool:
    """Whether this attempt exported there and was killed before it finished."""
    try:
        return (folder / MARK).read_bytes() == _mark(plan)
    except OSError:
        return False


def _mark(plan: TrainingPlan) -> bytes:
    return f"{identity(plan)} attempt {plan.attempt}\n".encode()
