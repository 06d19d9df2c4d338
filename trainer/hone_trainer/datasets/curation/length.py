"""Length: rows that are too short or too long, in estimated tokens as status.tokens counts them."""

from __future__ import annotations

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import CuratedRow, Each
from hone_trainer.datasets.texts.statistics import length_of_texts
from hone_trainer.datasets.texts.texts import ValidRow
from hone_trainer.errors import ConfigError


def step(plan: MaterializePlan) -> Each | None:
    """The step that curation.minTokens and maxTokens ask for.

    Raises:
        ConfigError: no row could be left.
    """
    least, most = plan.curation.min_tokens, plan.curation.max_tokens
    if least is None and most is None:
        return None
    if least is not None and most is not None and least > most:
        raise ConfigError(f"curation.minTokens {least} is over curation.maxTokens {most}: no row could be left")
    return Each(lambda row: _judge(row, least, most))


def _judge(row: ValidRow, least: int | None, most: int | None) -> CuratedRow:
    length = length_of_texts(row.texts)
    if least is not None and length < least:
        return CuratedRow(row, removed=f"has about {length} tokens, minTokens is {least}")
    if most is not None and length > most:
        return CuratedRow(row, removed=f"has about {length} tokens, maxTokens is {most}")
    return CuratedRow(row)
