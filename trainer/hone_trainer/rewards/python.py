"""Python: a function that the user wrote, run in the sandbox."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.errors import ConfigError, TrainerError
from hone_trainer.rewards.base import Context, Masked, Sample, Scored
from hone_trainer.rewards.code import limits
from hone_trainer.sandbox import Program, Reply

ARGUMENTS = ("answer", "tests", "solution")
BATCH = 8
"""Samples in one run of the program: each start costs about 0.05 s of CPU, and a sample that loops fails its batch."""


class PythonScorer:
    """What the function returns. None, an error or a limit masks the sample, with the reason."""

    def __init__(self, context: Context) -> None:
        assert context.spec.python is not None
        self._options, self._workers = context.spec.python, context.workers
        if context.path is None or not context.path.is_file():
            where = f"{self._options.config_map_name}/{self._options.key}"
            raise TrainerError(
                FailureCode.CONFIG_MAP_NOT_FOUND, f"reward {context.spec.title}: there is no ConfigMap key {where}"
            )
        try:
            self._source = context.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            key = f"ConfigMap key {self._options.config_map_name}/{self._options.key}"
            raise ConfigError(f"reward {context.spec.title}: {key} is not UTF-8 text: {error}") from None

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        batches = [list(samples[i : i + BATCH]) for i in range(0, len(samples), BATCH)]
        scores: list[Scored] = []
        for batch, reply in zip(batches, self._run(batches), strict=True):
            if reply.outcome == "Done":
                scores += [_scored(result) for result in reply.value]
            elif len(batch) == 1:
                scores.append(_masked(reply))
            else:  # one sample broke it: run each alone
                alone = self._run([[sample] for sample in batch])
                scores += [_scored(r.value[0]) if r.outcome == "Done" else _masked(r) for r in alone]
        return scores

    def gold(self, record: Mapping[str, Any]) -> str | None:
        """The row's solution or answer. The function must return a number for it, which need not be 1."""
        text = record.get("solution", record.get("answer"))
        return None if text is None else str(text)

    def _run(self, batches: Sequence[Sequence[Sample]]) -> list[Reply]:
        programs = [
            Program([self._source], self._options.function, list(map(_arguments, batch)), limits(self._options))
            for batch in batches
        ]
        return self._workers.run([program.request() for program in programs])


def _arguments(sample: Sample) -> dict[str, Any]:
    fields = {name: sample.record.get(name) for name in ARGUMENTS}
    return {"prompt": sample.prompt, "completion": sample.completion, **fields}


def _masked(reply: Reply) -> Masked:
    return Masked(reply.message, broken=reply.outcome == "Broken")


def _scored(result: Mapping[str, Any]) -> Scored:
    if "error" in result:
        return Masked(str(result["error"]))
    value = result["value"]
    if value is None:
        return Masked("the function returned None", meant=True)
    number = _number(value)
    return Masked(f"the function returned {_shown(value)}, which is not a number") if number is None else number


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the largest float
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    try:
        return repr(str(value)[:60])
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return f"an integer of {value.bit_length()} bits"
