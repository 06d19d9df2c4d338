"""Families of metrics from the bodies of objects, in one pass over the objects.

The body of a finished object is packed, and is to be unpacked once for a scrape, not once for each family. Label values
and numbers wait for their family in columns: as samples they would take ten times the memory.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from hone_operator.objects.cache import Body

Labels = tuple[str, ...]
Sample = tuple[Labels, float]
"""Label values, and the number."""


@dataclass(frozen=True)
class Series:
    """A family, and the samples that a body adds to it."""

    family: GaugeMetricFamily | CounterMetricFamily
    samples: Callable[[Body], Iterable[Sample]]


def filled(bodies: Iterable[Body], series: Sequence[Series]) -> Iterator[Metric]:
    """The families with the samples of each body; a body that lacks a required field affects only its own samples."""
    columns: list[tuple[list[Labels], array[float]]] = [([], array("d")) for _ in series]
    for body in bodies:
        same: dict[Labels, Labels] = {}
        for one, (labels, numbers) in zip(series, columns, strict=True):
            try:
                samples = [(same.setdefault(label, label), float(value)) for label, value in one.samples(body)]
            except (KeyError, TypeError, AttributeError, ValueError):
                continue
            labels += [label for label, _ in samples]
            numbers.extend(value for _, value in samples)
    for one, (labels, numbers) in zip(series, columns, strict=True):
        for label, number in zip(labels, numbers, strict=True):
            one.family.add_metric([str(each) for each in label], number)
        yield one.family
