"""ExactMatch: the final answer equals the row's, ignoring case and white space."""

from __future__ import annotations

from collections.abc import Sequence

from hone_trainer.rewards import answers
from hone_trainer.rewards.base import FinalAnswer, Sample, Scored


class ExactMatchScorer(FinalAnswer):
    """1 or 0."""

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        return [float(self._is_right(sample)) for sample in samples]

    def _is_right(self, sample: Sample) -> bool:
        answer = str(sample.record.get("answer", ""))
        expected = _plain(answers.marked(answer) or answer)
        final = answers.marked(sample.completion)
        if final is not None:
            return bool(expected) and _plain(final) == expected
        if self._options.marked or not expected:
            return False
        return expected in (_plain(sample.completion), _plain(answers.last_formula(sample.completion)))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
