"""MinHash with locality-sensitive hashing: pairs of sets that may be similar, without comparing each with each.

Sources: Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3. The signatures are rensa's
R-MinHash. Bands are joined one by one, since an index of all of them takes about 2 kB a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy
from rensa import RMinHash

from hone_trainer.datasets.engine.relation import Relation

SIGNATURE = 128
_SEED = 42
_RECALL = 0.99
_ANSWER_SIGNATURE = 8
"""Numbers of the MinHash of an answer: number k, modulo this, is added to band k."""


def rows_per_band(similarity: float) -> int:
    """The most for which a pair of just this similarity still meets in a band with a probability of 99%."""
    fits = [r for r in range(1, SIGNATURE + 1) if 1 - (1 - similarity**r) ** (SIGNATURE // r) >= _RECALL]
    return max(fits, default=1)


class Compared(NamedTuple):
    """The n-grams of a row, its question, and the n-grams that its answer is known by."""

    items: list[str]
    question: str = ""
    answer: list[str] | None = None


SIDES = 1 + _ANSWER_SIGNATURE
"""Hashes of a row besides its bands: the question's, and the answer's signature."""


def bands(similarity: float) -> int:
    """Bands of a row."""
    return SIGNATURE // rows_per_band(similarity)


def sketch(rows: Iterable[Compared], similarity: float) -> numpy.ndarray:
    """[bands + sides, rows]: a column of 64-bit hashes for each row."""
    signatures, sides = [], []
    for row in rows:
        signatures.append(_signature(SIGNATURE, row.items))
        question_hash = int.from_bytes(hashlib.blake2b(row.question.encode(), digest_size=8).digest())
        sides.append([question_hash, *_signature(_ANSWER_SIGNATURE, row.answer)])
    length, mix = _mix(similarity)
    used = numpy.array(signatures, dtype=numpy.uint64)[:, : SIGNATURE // length * length]
    hashes = (used.reshape(len(used), -1, length) * mix).sum(axis=2, dtype=numpy.uint64)
    return numpy.concatenate((hashes, numpy.array(sides, dtype=numpy.uint64)), axis=1).T


@cache
def _mix(similarity: float) -> tuple[int, numpy.ndarray]:
    """Rows of a band, and the odd number that each is multiplied by."""
    length = rows_per_band(similarity)
    mix = numpy.random.default_rng(_SEED).integers(1, 2**63, length, dtype=numpy.uint64)
    return length, mix * numpy.uint64(2) + numpy.uint64(1)


def find_pairs(rows: Relation, similarity: float) -> None:
    """A table `pairs` (low, high) of rows that are left and share a band, each pair once.

    Of those that share a band, each is paired with the first and with the one before it: enough to connect them, and at
    most two pairs a row and band, however many are alike. Rows about one document share nearly all of their text, so
    many that are not duplicates meet in a band: the same again of those that also share the question, and of those that
    also share the answer.
    """
    rows.execute("CREATE TABLE met_pairs (low BIGINT, high BIGINT)")
    left, count = rows.left, bands(similarity)
    for band in range(count):
        answer = count + 1 + band % _ANSWER_SIGNATURE
        rows.execute(
            f"""INSERT INTO met_pairs WITH
            hashed AS (SELECT row, sketch{band} AS hash, sketch{count} AS question, sketch{answer} AS answer
                FROM {left}),
            met AS (SELECT * FROM hashed SEMI JOIN (
                SELECT hash FROM hashed GROUP BY hash HAVING count(*) > 1) USING (hash)),
            paired AS (SELECT row, unnest([
                first_value(row) OVER every, lag(row) OVER every,
                first_value(row) OVER asked, lag(row) OVER asked,
                first_value(row) OVER told, lag(row) OVER told
            ]) AS low FROM met WINDOW every AS (PARTITION BY hash ORDER BY row),
                asked AS (PARTITION BY hash, question ORDER BY row), told AS (PARTITION BY hash, answer ORDER BY row))
            SELECT DISTINCT low, row FROM paired WHERE low < row"""
        )
    rows.execute("CREATE TABLE pairs AS SELECT DISTINCT low, high FROM met_pairs")
    rows.execute("DROP TABLE met_pairs")


def find_shared(rows: Relation, others: str, similarity: float) -> None:
    """A table `shared_pairs` (low, high) of rows that are left with rows of another relation that share a band.

    Of those, each is paired with the first, the first that has its question, and the first that has its answer.
    """
    rows.execute("CREATE TABLE met_others (low BIGINT, high BIGINT)")
    left, count = rows.left, bands(similarity)
    for band in range(count):
        answer = count + 1 + band % _ANSWER_SIGNATURE
        hashed = f"SELECT row, sketch{band} AS hash, sketch{count} AS question, sketch{answer} AS answer FROM"
        rows.execute(
            f"""INSERT INTO met_others WITH mine AS ({hashed} {left}),
            others AS (SELECT * FROM ({hashed} {others}) SEMI JOIN mine USING (hash)),
            paired AS (
                SELECT mine.row, first FROM mine JOIN (
                    SELECT hash, min(row) AS first FROM others GROUP BY hash) USING (hash)
                UNION ALL SELECT mine.row, first FROM mine JOIN (
                    SELECT hash, question, min(row) AS first FROM others GROUP BY ALL) USING (hash, question)
                UNION ALL SELECT mine.row, first FROM mine JOIN (
                    SELECT hash, answer, min(row) AS first FROM others GROUP BY ALL) USING (hash, answer))
            SELECT DISTINCT row, first FROM paired"""
        )
    rows.execute("CREATE TABLE shared_pairs AS SELECT DISTINCT low, high FROM met_others")
    rows.execute("DROP TABLE met_others")


def _signature(length: int, items: list[str] | None) -> list[int]:
    signature = RMinHash(length, _SEED)
    if items:
        signature.update(items)
    digest: list[int] = signature.digest()
    return digest
