"""ExactMatch: the final answer equals the row's, ignoring case and white space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hone_api.blocks.rewards import AnswerReward
from hone_trainer.rewards import answers
from hone_trainer.rewards.base import Context, Sample, Scored


class ExactMatchScorer:
    """1 or 0."""

    def __init__(self, context: Context) -> None:
        self._options = context.spec.final or AnswerReward()

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        return [float(self._is_right(sample)) for sample in samples]

    def gold(self, record: Mapping[str, Any]) -> str | None:
        """The row's answer, with the marker if the options require it."""
        answer = str(record.get("answer", ""))
        return answer if not self._options.marked or answers.marked(answer) else f"#### {answer}"

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
