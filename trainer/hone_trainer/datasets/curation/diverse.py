"""Diverse: the rows that cover the whole best, by greedy k-centre over sentence embeddings.

The first is the row nearest to the mean; each next one is the row that is farthest from all chosen so far, which is at
most twice as far as the best choice leaves any row (Gonzalez 1985; Sener and Savarese 2018 for training sets).
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import Global
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.texts.embeddings import SIZE, embed
from hone_trainer.datasets.texts.texts import joined
from hone_trainer.workers.parallel import Workers

_STEPS = 127
"""Embeddings are compared as whole numbers of this many steps: sums of their products are exact in float32, so that
no order of adding changes which row is chosen."""


def step(plan: MaterializePlan) -> DiverseStep | None:
    """The step that curation.diverse asks for."""
    return DiverseStep(plan.curation.diverse.rows) if plan.curation.diverse else None


class DiverseStep(Global):
    """Keeps `rows` rows. Embeddings take 1.5 kB of memory a row; a CPU core embeds 10 to 100 rows a second."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def run(self, rows: Relation, room: Path, workers: Workers) -> None:
        """As `Global.run`."""
        vectors, numbers = array("f"), array("q")
        for batch in rows.records():
            numbers.extend(number for number, _ in batch)
            vectors.frombytes(numpy.rint(embed([joined(record) for _, record in batch]) * _STEPS).tobytes())
        chosen, nearest, cosine = k_centre(numpy.frombuffer(vectors, dtype=numpy.float32).reshape(-1, SIZE), self._rows)
        kept = frozenset(chosen)
        rows.remove_rows(
            (number, f"row {numbers[int(nearest[at])]} stands for it (cosine similarity {cosine[at]:.0%})")
            for at, number in enumerate(numbers)
            if at not in kept
        )


def k_centre(vectors: numpy.ndarray, count: int) -> tuple[list[int], numpy.ndarray, numpy.ndarray]:
    """Indices of the chosen rows; for each row the chosen one that is nearest, and their cosine similarity.

    Args:
        vectors: float32 [rows, size], whole numbers.
    """
    rows = len(vectors)
    length = numpy.linalg.norm(vectors, axis=1)
    nearest = numpy.zeros(rows, dtype=numpy.int64)
    similarity = numpy.full(rows, -numpy.inf, dtype=numpy.float32)
    chosen: list[int] = []
    mean = numpy.rint(vectors.sum(axis=0, dtype=numpy.float64) / max(rows, 1)).astype(numpy.float32)
    following = int(numpy.argmax(vectors @ mean / length)) if rows else 0
    for _ in range(min(count, rows)):
        chosen.append(following)
        cosine = (vectors @ vectors[following]) / (length * length[following])
        closer = cosine > similarity
        nearest[closer], similarity[closer] = following, cosine[closer]
        similarity[following] = numpy.inf  # it is chosen already
        following = int(numpy.argmin(similarity))
    return chosen, nearest, similarity
