"""Scores: rows whose score by some scorer is out of bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from hone_api.dataset.curation import ScoreFilter, Scorer
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import CuratedRow, Each, Global, Step
from hone_trainer.datasets.curation.quality import RULES, broken_rules
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.texts import toxicity
from hone_trainer.datasets.texts.texts import ValidRow
from hone_trainer.errors import ConfigError
from hone_trainer.workers.parallel import Workers


class RowScore(NamedTuple):
    """From 0 to 1, and what it comes from."""

    value: float
    why: str = ""


class Scoring(Protocol):
    """Scores rows, a batch at a time."""

    def __call__(self, rows: Sequence[ValidRow]) -> list[RowScore]:
        """One score a row."""
        ...


def _quality(rows: Sequence[ValidRow]) -> list[RowScore]:
    every = [broken_rules(row.text) for row in rows]
    return [RowScore(1 - len(broken) / len(RULES), ", ".join(broken)) for broken in every]


def _toxicity(rows: Sequence[ValidRow]) -> list[RowScore]:
    return [RowScore(max((toxicity.probability(text) for _, text in row.texts), default=0.0)) for row in rows]


_BY_ROW: dict[str, Scoring] = {Scorer.QUALITY: _quality, Scorer.TOXICITY: _toxicity}


def steps(plan: MaterializePlan) -> dict[str, Step]:
    """A step for each of curation.scores, by the scorer's name; numbered if one scorer occurs several times."""
    by_name: dict[str, Step] = {}
    for filter in plan.curation.scores or ():
        number = sum(name.partition("-")[0] == filter.scorer for name in by_name) + 1
        is_model = filter.scorer == Scorer.CLASSIFIER
        step = (
            ClassifierStep(filter, plan)
            if is_model
            else Each(judge_all=partial(_judged, filter, _BY_ROW[filter.scorer]))
        )
        by_name[filter.scorer if number == 1 else f"{filter.scorer}-{number}"] = step
    return by_name


def _judged(filter: ScoreFilter, score: Scoring, rows: Sequence[ValidRow]) -> Iterator[CuratedRow]:
    for row, row_score in zip(rows, score(rows), strict=True):
        yield CuratedRow(row, removed=out_of_bounds(filter, row_score))


class ClassifierStep(Global):
    """Keeps rows whose score by a model is within the filter's bounds. One process has the model, with all cores."""

    def __init__(self, filter: ScoreFilter, plan: MaterializePlan) -> None:
        self._filter, self._plan = filter, plan

    def run(self, rows: Relation, room: Path, workers: Workers) -> None:
        """As `Global.run`."""
        from hone_trainer.datasets.curation.classifier import Classifier

        filter, plan = self._filter, self._plan
        if filter.model_version not in plan.classifiers:
            raise ConfigError(f"curation.scores: the plan's classifiers have no {filter.model_version}")
        room.mkdir(parents=True)
        model = Classifier(plan.classifiers[filter.model_version], filter.label, room)

        def judged() -> Iterator[tuple[int, str]]:
            for batch in rows.records():
                for (number, _), value in zip(batch, model.scores([record for _, record in batch]), strict=True):
                    if reason := out_of_bounds(filter, RowScore(value)):
                        yield number, reason

        rows.remove_rows(judged())


def out_of_bounds(filter: ScoreFilter, score: RowScore) -> str | None:
    """Why a row with this score is removed; None: it is within the bounds."""
    least, most = filter.minimum, filter.maximum
    why = f": {score.why}" if score.why else ""
    # Scores like 0.7 are not exact: a row that has just the bound is kept.
    percent = round(100 * score.value, 6)
    if least is not None and percent < float(least.removesuffix("%")):
        return f"has the score {percent:.3g}%, minimum is {least}{why}"
    if most is not None and percent > float(most.removesuffix("%")):
        return f"has the score {percent:.3g}%, maximum is {most}{why}"
    return None
