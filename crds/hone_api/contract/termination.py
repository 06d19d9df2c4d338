"""The termination message of a pod of the trainer image, and how it is made to fit in 4096 bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, StringConstraints

from hone_api.base.credentials import hide_credentials_in
from hone_api.base.meta import MAX_COUNT, ApiModel, Storable
from hone_api.base.reading import read_known
from hone_api.contract.report import DatasetResult, EncodeResult, Result, TrainingResult
from hone_api.kinds.modelversion import AnsweredPrompt
from hone_api.words.failures import FAILURES, ExitCode
from hone_api.words.phases import PhaseSeconds

MAX_TERMINATION_MESSAGE = 4096
"""Bytes that the kubelet keeps of /dev/termination-log."""


class FailureReport(ApiModel):
    """Why it failed. `code` is one of `hone_api.words.failures.FAILURES`."""

    code: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)]
    message: Annotated[str, StringConstraints(max_length=2000), Storable]
    hint: Annotated[str, StringConstraints(max_length=600), Storable] | None = None
    rank: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    step: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    micro_batch_size: int | None = Field(
        default=None,
        ge=2,
        le=MAX_COUNT,
        description="Rows of the forward pass in which the memory ran out, where the next attempt can have fewer.",
    )


class TerminationMessage(ApiModel):
    """The termination message: a result, or a failure (with a DatasetResult when rows were read)."""

    result: Result | None = None
    failure: FailureReport | None = None
    phases: PhaseSeconds | None = Field(default=None, description="Where the time of a training attempt went.")

    @property
    def exit_code(self) -> int:
        """Exit code of the process that ends with this outcome."""
        return int(FAILURES[self.failure.code].exit_code) if self.failure else int(ExitCode.DONE)

    def to_termination_message(self) -> str:
        """JSON of at most 4096 bytes: the least important parts go first, digests and paths never."""
        outcome = self.model_copy(deep=True)
        reductions = _reductions(outcome)
        while len(_encode(outcome)) > MAX_TERMINATION_MESSAGE:
            next(reductions)
        return _encode(outcome).decode()


def _reductions(outcome: TerminationMessage) -> Iterator[None]:
    """Each step makes the outcome smaller in place. After the last one it fits, whatever its texts contain."""
    result, failure = outcome.result, outcome.failure
    if failure:
        failure.message = _cut(failure.message, 1000)
        yield
    if isinstance(result, TrainingResult):
        yield from _reductions_of_training(result)
    if isinstance(result, DatasetResult):
        yield from _reductions_of_dataset(result)
    if isinstance(result, EncodeResult):
        yield from _reductions_of_encoding(result)
    if failure:
        failure.hint = None
        yield
        failure.message = _cut(failure.message, 200)
        yield
    outcome.phases = None
    yield


def _reductions_of_training(result: TrainingResult) -> Iterator[None]:
    result.samples = [_shorten(s) for s in result.samples[:1]]
    yield
    result.samples = []
    yield
    result.advice = [_cut(sentence, 200) for sentence in result.advice[:4]]
    yield
    while len(result.numbers) > 10:  # the artifact's report has all
        result.numbers.pop()
        yield
    result.resolved = {}
    yield
    result.datasets = []
    yield
    while result.numbers:
        result.numbers.pop()
        yield
    result.advice = []
    result.rejected = _cut(result.rejected, 200) if result.rejected else None
    yield


def _reductions_of_dataset(result: DatasetResult) -> Iterator[None]:
    result.mixture = result.mixture[:8]
    yield
    result.mixture = []
    yield
    if result.croissant:
        result.croissant.description = None
        result.croissant.cite_as = _cut(result.croissant.cite_as, 200) if result.croissant.cite_as else None
    yield
    for error in result.errors:
        error.example = _cut(error.example, 120) if error.example else None
    for step in result.curation:
        step.example = _cut(step.example, 120) if step.example else None
    yield
    result.summary = _cut(result.summary, 200) if result.summary else None
    yield
    result.shared_rows = result.shared_rows[:4]
    for files in result.not_read:
        files.first = []
    yield
    while result.advice:
        result.advice.pop()
        yield
    result.shared_rows, result.not_read = [], []
    yield
    result.languages, result.croissant = [], None
    yield
    while result.errors:
        result.errors.pop()
        yield
    for step in result.curation:
        step.rows, step.example = [], None
        yield
    result.format_detected = _cut(result.format_detected, 64) if result.format_detected else None
    yield
    result.curation = []
    if result.tokens:
        result.tokens.over = []
    if result.synthetic:
        result.synthetic.filtered = []
    yield
    result.source_version = None  # then the source is read again at the next look
    yield


def _reductions_of_encoding(result: EncodeResult) -> Iterator[None]:
    result.summary = [_cut(sentence, 200) for sentence in result.summary[:4]]
    result.advice = [_cut(sentence, 200) for sentence in result.advice[:4]]
    yield
    result.summary = []
    yield
    result.advice = []
    yield


def _shorten(sample: AnsweredPrompt, limit: int = 400) -> AnsweredPrompt:
    texts = {
        "prompt": _cut(sample.prompt, limit),
        "reference": _cut(sample.reference, limit) if sample.reference else None,
        "base": _cut(sample.base, limit) if sample.base else None,
        "tuned": _cut(sample.tuned, limit),
    }
    return sample.model_copy(update=texts)


def _cut(text: str, limit: int) -> str:
    """At most `limit` characters, with a sign where text was cut. In JSON a character takes up to 6 bytes."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _encode(outcome: TerminationMessage) -> bytes:
    return outcome.model_dump_json(by_alias=True, exclude_none=True).encode()


def parse_outcome(text: str) -> TerminationMessage | None:
    """Parse a termination message, without credentials; None if it is not ours (the kubelet may put logs there)."""
    try:
        outcome, _ = read_known(TerminationMessage, hide_credentials_in(json.loads(text)))
    except (ValueError, RecursionError):
        return None
    return outcome if outcome.result or outcome.failure else None
