"""At most one attempt of a run writes checkpoints and models. Each names itself in a file of the run's folder when it
starts, and reads the file again before it writes: where a later one has taken over, it ends.

Kubernetes alone cannot prevent two attempts at once: a pod that has lost its Job, or whose node has lost its network,
goes on.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.store import manifest

FILE = "attempt"
ENV = "HONE_START"
"""Names this start of the attempt for its ranks; pods of a suspended run start the same attempt again."""


def take_folder(plan: TrainingPlan) -> None:
    """Make the run's folder this start's, before anything in it is read. On the first node only.

    Raises:
        TrainerError: Interrupted, if a later attempt has it.
    """
    os.environ[ENV] = uuid.uuid4().hex
    attempt, _ = _holder(plan)
    if attempt > plan.attempt:
        raise _lost(plan, attempt)
    _write(plan)


def check(plan: TrainingPlan) -> None:
    """Check that no other start has taken the run's folder. Where an earlier attempt took it at the same moment, it is
    taken back.

    Raises:
        TrainerError: Interrupted.
    """
    own = os.environ.get(ENV)
    attempt, start = _holder(plan)
    if attempt > plan.attempt or (attempt == plan.attempt and own and own != start):
        raise _lost(plan, attempt)
    if own and 0 < attempt < plan.attempt:
        _write(plan)


def explain(plan: TrainingPlan, error: BaseException) -> BaseException:
    """The error, or Interrupted where the folder was lost: what this attempt wrote was then removed under its hands."""
    try:
        check(plan)
    except TrainerError as lost:
        return lost
    except OSError:  # the store is what failed
        pass
    return error


def _file(plan: TrainingPlan) -> Path:
    return Path(plan.work_path) / FILE


def _holder(plan: TrainingPlan) -> tuple[int, str]:
    """Attempt and start that have the folder; attempt 0: none."""
    try:
        attempt, start = _file(plan).read_text().split()
        return int(attempt), start
    except (FileNotFoundError, ValueError):
        return 0, ""


def _write(plan: TrainingPlan) -> None:
    _file(plan).parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(_file(plan), f"{plan.attempt} {os.environ[ENV]}\n".encode())


def _lost(plan: TrainingPlan, attempt: int) -> TrainerError:
    other = "another start of it" if attempt == plan.attempt else f"attempt {attempt}"
    return TrainerError(
        FailureCode.INTERRUPTED,
        f"attempt {plan.attempt} ends without writing: {other} has taken over {plan.work_path}. Two at once would mix "
        "their checkpoints",
    )
