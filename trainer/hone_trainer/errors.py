"""Errors of the trainer: each knows its code, exit code, and whether a retry helps.

The codes, their exit codes and hints are one table, shared with the operator: `hone_api.words.failures.FAILURES`.
"""

from __future__ import annotations

import errno

from pydantic import ValidationError

from hone_api.base.reading import in_words, only_unknown
from hone_api.contract.plan_reading import PLANS
from hone_api.contract.report import DatasetResult
from hone_api.contract.termination import FailureReport, TerminationMessage
from hone_api.words.failures import FAILURES, ExitCode, FailureCode, Retry
from hone_trainer.secrets import scrub

_MAX_MESSAGE = 2000
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class TrainerError(Exception):
    """A failure that has a code of the closed list.

    Args:
        code: key of `FAILURES`.
        message: what happened, where (field, row, rank) and what to do.
        rank: rank that failed, where that matters.
        step: optimizer step, from 1, where that matters.
        micro_batch_size: rows of the forward pass in which the memory ran out, where fewer are possible.
    """

    def __init__(
        self,
        code: FailureCode,
        message: str,
        *,
        rank: int | None = None,
        step: int | None = None,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__(message)
        if code not in FAILURES:
            raise KeyError(f"{code} is not in hone_api.words.failures.FAILURES")
        self.code, self.message, self.rank, self.step = code, message, rank, step
        self.micro_batch_size = micro_batch_size

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the process."""
        return FAILURES[self.code].exit_code

    @property
    def retry(self) -> Retry:
        """Whether trying again can help."""
        return FAILURES[self.code].retry

    @property
    def hint(self) -> str:
        """What to do."""
        return FAILURES[self.code].hint


class ConfigError(TrainerError):
    """The plan asks for something that is impossible."""

    def __init__(self, message: str, code: FailureCode = FailureCode.INVALID_CONFIGURATION) -> None:
        super().__init__(code, message)


class SourceError(TrainerError):
    """A source (model, rows, secret) is missing, unreachable, refused or not what was promised."""


class DataError(TrainerError):
    """The rows are not fit for training; carries what was counted until then."""

    def __init__(self, code: FailureCode, message: str, result: DatasetResult | None = None) -> None:
        super().__init__(code, message)
        self.result = result


class StoreError(TrainerError):
    """The store's files are missing, damaged or not writable."""


def classify(error: BaseException) -> TrainerError:
    """The error as a TrainerError: out of memory, full disk, wrong plan, or unknown."""
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, ValidationError):
        return ConfigError(
            "; ".join(in_words(error, tagged=PLANS)),
            FailureCode.UNKNOWN_FIELD if only_unknown(error) else FailureCode.INVALID_VALUE,
        )
    if type(error).__name__ == "OutOfMemoryError":  # torch.OutOfMemoryError, without importing torch
        return TrainerError(FailureCode.GPU_OUT_OF_MEMORY, str(error))
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("hone_"):
        return ConfigError(
            f"the Python package {error.name} is not installed. Commands of the trainer need the extra `trainer`, in a"
            " clone: pip install '.[trainer]'"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return TrainerError(FailureCode.OUT_OF_MEMORY, str(error) or "the process ran out of memory")
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return StoreError(FailureCode.DISK_FULL, f"no space left for {error.filename or 'the output'}")
    if isinstance(error, OSError) and error.errno is not None:
        return StoreError(FailureCode.STORAGE_ERROR, str(error))
    return TrainerError(FailureCode.TRAINER_ERROR, f"{type(error).__name__}: {error}")


def to_outcome(error: BaseException) -> TerminationMessage:
    """The failed outcome of an error, without secrets."""
    described = classify(error)
    message = scrub(described.message)
    if len(message) > _MAX_MESSAGE:
        message = message[: _MAX_MESSAGE - 1] + "…"
    report = FailureReport(
        code=described.code,
        message=message,
        hint=described.hint,
        rank=described.rank,
        step=described.step,
        micro_batch_size=described.micro_batch_size,
    )
    return TerminationMessage(result=described.result if isinstance(described, DataError) else None, failure=report)
