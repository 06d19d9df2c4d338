"""Number: the final number equals that of the row's answer, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hone_trainer.rewards import answers
from hone_trainer.rewards.base import FinalAnswer, Sample, Scored


class NumberScorer(FinalAnswer):
    """1 or 0."""

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> float:
        expected = number_in(str(sample.record.get("answer", "")), marked=False)
        number = number_in(sample.completion, marked=self._options.marked)
        return float(expected is not None and number == expected)


def number_in(text: str, *, marked: bool) -> Fraction | None:
    """The final number of a text: the marked one, else the last one unless the marker is required."""
    final = answers.marked(text)
    if final is not None:
        return answers.last_number(final)
    return None if marked else answers.last_number(text)
