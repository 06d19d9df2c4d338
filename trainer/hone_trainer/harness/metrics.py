"""A task's metrics, row by row, as means with intervals. Pure.

A metric is kept if its value over all rows is a mean of values for each row, or a function of such a mean: then the
bootstrap over rows gives its interval. BLEU, F1 over all rows, correlations and the like are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone_trainer.scoring.scores import DERIVED, Best, Mean

Row = tuple[float, float]
"""A row's total and its weight."""


@dataclass(frozen=True)
class HarnessMetric:
    """A metric of a task, after one of the task's filters."""

    metric: str
    filter: str
    name: str
    """Identifier in reports, e.g. acc_norm, exact_match_strict_match."""
    best: Best
    row: Callable[[Any], Row]

    @property
    def measured(self) -> str:
        """Name of the mean that the metric is a function of; usually its own."""
        return DERIVED[self.name][0] if self.name in DERIVED else self.name

    def mean(self, rows: Sequence[Mapping[str, Any]]) -> Mean:
        """The mean over these rows, as lm-eval logs them; a row without the metric has no weight."""
        totals = [self.row(row[self.metric]) if row.get(self.metric) is not None else (0.0, 0.0) for row in rows]
        return Mean([total for total, _ in totals], [weight for _, weight in totals])


def of_task(task: Any) -> tuple[list[HarnessMetric], list[str]]:
    """(metrics of one of lm-eval's tasks, names of metrics that are not a mean over rows)."""
    kept_metrics, left_out = [], []
    better = task.higher_is_better()
    filters = [entry["name"] for entry in task.config.filter_list or ({"name": "none"},)]
    for metric, aggregation in task.aggregation().items():
        if metric == "bypass":
            continue
        for filter_ in filters:
            name = identifier(metric, filter_)
            row = _row(name, aggregation)
            if row is None:
                left_out.append(name)
            else:
                best: Best = "Lowest" if better.get(metric) is False else "Highest"
                kept_metrics.append(HarnessMetric(metric, filter_, name, best, row))
    return kept_metrics, left_out


def identifier(metric: str, filter_: str) -> str:
    """E.g. exact_match and strict-match -> exact_match_strict_match; the filter `none` adds nothing."""
    text = metric if filter_ == "none" else f"{metric}_{filter_}"
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _row(name: str, aggregation: Any) -> Callable[[Any], Row] | None:
    """A function from a row's value to total and weight; None if the aggregation is not a function of their mean."""
    from lm_eval.api import metrics

    if aggregation in (metrics.mean, metrics.nanmean):
        return _plain
    if aggregation is metrics.bits_per_byte:
        return _bits
    if aggregation is metrics.perplexity and name in DERIVED:
        return _nats
    if aggregation is metrics.weighted_perplexity and name in DERIVED:
        return _nats_by_unit
    return None


def _plain(value: Any) -> Row:
    """A number, or a list of numbers if the metric gives one."""
    number = float(value[0] if isinstance(value, list | tuple) and len(value) == 1 else value)
    return (0.0, 0.0) if math.isnan(number) else (number, 1.0)


def _nats(value: Any) -> Row:
    """A log-likelihood."""
    return -float(value), 1.0


def _nats_by_unit(value: Any) -> Row:
    """(log-likelihood of a text, its words or bytes)."""
    log_likelihood, units = value
    return -float(log_likelihood), float(units)


def _bits(value: Any) -> Row:
    """(log-likelihood of a text, its bytes)."""
    log_likelihood, size = value
    return -float(log_likelihood) / math.log(2), float(size)
