"""Format: the whole answer has the required form."""

from __future__ import annotations

from collections.abc import Sequence

from hone_trainer.rewards.base import Context, Sample, Scored, WithoutGold
from hone_trainer.rewards.regex import compiled

_NO_TAG = r"(?:[^<]|<[^/t]|</[^t]|<t[^h]|</t[^h])*"
STYLES = {
    "Think": rf"(?s)\s*<think>{_NO_TAG}</think>\s*[^\s<].*",
    "ThinkAnswer": rf"(?s)\s*<think>{_NO_TAG}</think>\s*<answer>[^<]+</answer>\s*",
    "Boxed": r"(?s).*\\boxed\{[^\n]+\}[.$\s]*",
    "Marked": r"(?s)(?:.*\n)?#### [^\n]+\s*",
}
ONCE = {"Think": "<think>", "ThinkAnswer": "<think>", "Boxed": "\\boxed{", "Marked": "####"}


class FormatScorer(WithoutGold):
    """1 or 0."""

    def __init__(self, context: Context) -> None:
        assert context.spec.format is not None
        style = context.spec.format.style
        self._pattern, self._once = compiled(STYLES[style], context.spec.title), ONCE[style]

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        return [float(self._has_form(sample.completion)) for sample in samples]

    def _has_form(self, text: str) -> bool:
        return text.count(self._once) == 1 and self._pattern.fullmatch(text) is not None
