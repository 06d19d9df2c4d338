"""Regex: the answer matches a regular expression of RE2, which takes linear time for any pattern and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hone_trainer.errors import ConfigError
from hone_trainer.rewards.base import Context, Sample, Scored, WithoutGold


class RegexScorer(WithoutGold):
    """1 or 0."""

    def __init__(self, context: Context) -> None:
        options = context.spec.regex
        assert options is not None
        pattern = compiled(options.pattern, context.spec.title)
        self._matches = pattern.fullmatch if options.match == "Full" else pattern.search

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        return [float(self._matches(sample.completion) is not None) for sample in samples]


def compiled(pattern: str, name: str) -> Any:
    """The pattern, compiled for RE2.

    Raises:
        ConfigError: RE2 does not support the pattern.
    """
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        words = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ConfigError(f"reward {name}: regex.pattern: {words}") from None
