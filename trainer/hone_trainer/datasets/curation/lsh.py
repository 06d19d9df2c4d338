"""MinHash with locality-sensitive hashing: pairs of sets that may be similar, without comparing each with each.

Sources: Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3. The signatures are rensa's
R-MinHash. Bands are on disk and processed one by one, since an index of all of them takes about 2 kB a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy
from rensa import RMinHash

SIGNATURE = 128
_SEED = 42
_ODD = numpy.uint64(0x9E3779B97F4A7C15)
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


class Sketches(NamedTuple):
    """Of rows: a column for each, of 64-bit hashes."""

    bands: numpy.ndarray
    """[bands, rows]"""
    sides: numpy.ndarray
    """[1 + numbers of an answer, rows]: the question's hash, and the answer's signature."""


def sketch(rows: Iterable[Compared], similarity: float) -> Sketches:
    """What the bands of this similarity need of rows."""
    signatures, sides = [], []
    for row in rows:
        signatures.append(_signature(SIGNATURE, row.items))
        question_hash = int.from_bytes(hashlib.blake2b(row.question.encode(), digest_size=8).digest())
        sides.append([question_hash, *_signature(_ANSWER_SIGNATURE, row.answer)])
    length, mix = _mix(similarity)
    used = numpy.array(signatures, dtype=numpy.uint64)[:, : SIGNATURE // length * length]
    hashes = (used.reshape(len(used), -1, length) * mix).sum(axis=2, dtype=numpy.uint64)
    return Sketches(hashes.T, numpy.array(sides, dtype=numpy.uint64).T)


@cache
def _mix(similarity: float) -> tuple[int, numpy.ndarray]:
    """Rows of a band, and the odd number that each is multiplied by."""
    length = rows_per_band(similarity)
    mix = numpy.random.default_rng(_SEED).integers(1, 2**63, length, dtype=numpy.uint64)
    return length, mix * numpy.uint64(2) + numpy.uint64(1)


class Bands:
    """Add sets in order, then ask for the pairs. Sets are known by their index, from 0.

    Rows about one document share nearly all of their text, so many that are not duplicates meet in a band. So
    those that also share the answer, or the question, are paired among themselves as well.
    """

    def __init__(self, folder: Path, similarity: float) -> None:
        bands = SIGNATURE // rows_per_band(similarity)
        self._files = [open(folder / f"band-{k}", "w+b") for k in range(bands)]  # noqa: SIM115
        names = ("question", *(f"answer-{k}" for k in range(_ANSWER_SIGNATURE)))
        self._sides = [open(folder / name, "w+b") for name in names]  # noqa: SIM115
        self._count = 0

    def add(self, sketches: Sketches) -> None:
        """Add sets, with what their rows ask and answer."""
        self._count += sketches.bands.shape[1]
        for file, band in zip((*self._files, *self._sides), (*sketches.bands, *sketches.sides), strict=True):
            file.write(band.tobytes())

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Pairs (lower, higher) that share a band, each once, in order.

        Of those that share a band, each is paired with the first and with the one before it: enough to connect them,
        and at most two pairs a set and band, however many are alike. The same again of those that also share the
        question, and of those that also share the answer.
        """
        codes = numpy.empty(0, dtype=numpy.int64)
        question = _numbers(self._sides[0])
        for number, file in enumerate(self._files):
            hashes = _numbers(file)
            answer = _numbers(self._sides[1 + number % _ANSWER_SIGNATURE])  # all at once are 64 bytes a row
            for keys in (hashes, hashes * _ODD + question, hashes * _ODD + answer * _ODD):
                codes = numpy.union1d(codes, _pairs_of_band(keys, self._count))
        for file in (*self._files, *self._sides):
            file.close()
        for code in codes:
            yield divmod(int(code), self._count)


def _signature(length: int, items: list[str] | None) -> list[int]:
    signature = RMinHash(length, _SEED)
    if items:
        signature.update(items)
    digest: list[int] = signature.digest()
    return digest


def _numbers(file: IO[bytes]) -> numpy.ndarray:
    file.flush()
    file.seek(0)
    return numpy.fromfile(file, dtype=numpy.uint64)


def _pairs_of_band(hashes: numpy.ndarray, count: int) -> numpy.ndarray:
    """lower * count + higher of each pair."""
    order = numpy.argsort(hashes, kind="stable")
    ordered = hashes[order]
    same = numpy.flatnonzero(ordered[1:] == ordered[:-1])
    starts = numpy.flatnonzero(numpy.concatenate(([True], ordered[1:] != ordered[:-1])))
    first = order[starts[numpy.searchsorted(starts, same, side="right") - 1]]
    before, after = order[same], order[same + 1]
    return numpy.unique(numpy.concatenate((first * count + after, before * count + after)))
