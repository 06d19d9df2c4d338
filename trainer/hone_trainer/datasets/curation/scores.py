"""Scores: rows whose score by some scorer is out of bounds. One entry of `SCORERS` a scorer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from hone_api.dataset.curation import ScoreFilter, Scorer
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import CuratedRow, Step
from hone_trainer.datasets.curation.quality import RULES, broken_rules
from hone_trainer.datasets.spool import ValidRow
from hone_trainer.datasets.texts import joined, texts
from hone_trainer.errors import ConfigError
from hone_trainer.workers.parallel import Workers

_BATCH = 256


class RowScore(NamedTuple):
    """From 0 to 1, and what it comes from."""

    value: float
    why: str = ""


class Scoring(Protocol):
    """Scores rows, a batch at a time."""

    def __call__(self, rows: Sequence[ValidRow]) -> list[RowScore]:
        """One score a row."""
        ...


def _quality(filter: ScoreFilter, plan: MaterializePlan, room: Path) -> Scoring:
    def score(row: ValidRow) -> RowScore:
        broken = broken_rules(joined(row.record))
        return RowScore(1 - len(broken) / len(RULES), ", ".join(broken))

    return lambda rows: [score(row) for row in rows]


def _toxicity(filter: ScoreFilter, plan: MaterializePlan, room: Path) -> Scoring:
    from profanity_check import predict_prob

    def scores(rows: Sequence[ValidRow]) -> list[RowScore]:
        texts_of_rows = [[text for _, text in texts(row.record)] for row in rows]
        every = iter(predict_prob([text for row in texts_of_rows for text in row] or [""]))
        return [RowScore(float(max(itertools.islice(every, len(row)), default=0.0))) for row in texts_of_rows]

    return scores


def _classifier(filter: ScoreFilter, plan: MaterializePlan, room: Path) -> Scoring:
    from hone_trainer.datasets.curation.classifier import Classifier

    if filter.model_version not in plan.classifiers:
        raise ConfigError(f"curation.scores: the plan's classifiers have no {filter.model_version}")
    model = Classifier(plan.classifiers[filter.model_version], filter.label, room)
    return lambda rows: [RowScore(value) for value in model.scores([row.record for row in rows])]


SCORERS: dict[Scorer, Callable[[ScoreFilter, MaterializePlan, Path], Scoring]] = {
    Scorer.QUALITY: _quality,
    Scorer.TOXICITY: _toxicity,
    Scorer.CLASSIFIER: _classifier,
}
"""Made when the step begins; the path is its room on disk."""


def steps(plan: MaterializePlan) -> dict[str, Step]:
    """A step for each of curation.scores, by the scorer's name; numbered if one scorer occurs several times."""
    by_name: dict[str, Step] = {}
    for filter in plan.curation.scores or ():
        number = sum(name.partition("-")[0] == filter.scorer for name in by_name) + 1
        by_name[filter.scorer if number == 1 else f"{filter.scorer}-{number}"] = ScoresStep(filter, plan)
    return by_name


class ScoresStep(Step):
    """Keeps rows whose score is within the filter's bounds."""

    def __init__(self, filter: ScoreFilter, plan: MaterializePlan) -> None:
        self._filter, self._plan = filter, plan

    def run(self, rows: Iterator[ValidRow], room: Path, workers: Workers) -> Iterator[CuratedRow]:
        """As `Step.run`."""
        score = SCORERS[Scorer(self._filter.scorer)](self._filter, self._plan, room)
        while batch := list(itertools.islice(rows, _BATCH)):
            for row, row_scores in zip(batch, score(batch), strict=True):
                yield CuratedRow(row, removed=self._out_of_bounds(row_scores))

    def _out_of_bounds(self, score: RowScore) -> str | None:
        least, most = self._filter.minimum, self._filter.maximum
        why = f": {score.why}" if score.why else ""
        # Scores like 0.7 are not exact: a row that has just the bound is kept.
        percent = round(100 * score.value, 6)
        if least is not None and percent < float(least.removesuffix("%")):
            return f"has the score {percent:.3g}%, minimum is {least}{why}"
        if most is not None and percent > float(most.removesuffix("%")):
            return f"has the score {percent:.3g}%, maximum is {most}{why}"
        return None
