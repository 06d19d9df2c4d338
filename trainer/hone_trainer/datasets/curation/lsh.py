"""MinHash with locality-sensitive hashing: pairs of sets that may be similar, without comparing each with each.

Sources: Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3. The signatures are rensa's
R-MinHash. Bands lie on disk and are looked at one by one, as an index of all of them takes some 2 kB a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy
from rensa import RMinHash

SIGNATURE = 128
_SEED = 42
_BATCH = 1024
_RECALL = 0.99


def rows_per_band(similarity: float) -> int:
    """The most for which a pair of just this similarity still meets in a band with a probability of 99%."""
    fits = [r for r in range(1, SIGNATURE + 1) if 1 - (1 - similarity**r) ** (SIGNATURE // r) >= _RECALL]
    return max(fits, default=1)


class Bands:
    """Add sets in order, then ask for the pairs. Sets are known by their index, from 0."""

    def __init__(self, folder: Path, similarity: float) -> None:
        self._rows = rows_per_band(similarity)
        self._files = [open(folder / f"band-{k}", "w+b") for k in range(SIGNATURE // self._rows)]  # noqa: SIM115
        mix = numpy.random.default_rng(_SEED).integers(1, 2**63, self._rows, dtype=numpy.uint64)
        self._mix = mix * numpy.uint64(2) + numpy.uint64(1)
        self._pending: list[list[int]] = []
        self._count = 0

    def add(self, items: list[str]) -> None:
        """Add a set."""
        signature = RMinHash(SIGNATURE, _SEED)
        signature.update(items)
        self._pending.append(signature.digest())
        self._count += 1
        if len(self._pending) == _BATCH:
            self._flush()

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Pairs (lower, higher) that share a band, each once, in order.

        Of those that share a band, each is paired with the first and with the one before it: enough to connect them,
        and at most two pairs a set and band, however many are alike.
        """
        self._flush()
        codes = numpy.empty(0, dtype=numpy.int64)
        for file in self._files:
            file.flush()
            file.seek(0)
            found = _pairs_of_band(numpy.fromfile(file, dtype=numpy.uint64), self._count)
            codes = numpy.union1d(codes, found)
            file.close()
        for code in codes:
            yield divmod(int(code), self._count)

    def _flush(self) -> None:
        if not self._pending:
            return
        signatures = numpy.array(self._pending, dtype=numpy.uint64)
        used = signatures[:, : len(self._files) * self._rows]
        hashes = (used.reshape(len(used), -1, self._rows) * self._mix).sum(axis=2, dtype=numpy.uint64)
        for file, band in zip(self._files, hashes.T, strict=True):
            file.write(band.tobytes())
        self._pending = []


def _pairs_of_band(hashes: numpy.ndarray, count: int) -> numpy.ndarray:
    """lower * count + higher of each pair."""
    order = numpy.argsort(hashes, kind="stable")
    ordered = hashes[order]
    same = numpy.flatnonzero(ordered[1:] == ordered[:-1])
    starts = numpy.flatnonzero(numpy.concatenate(([True], ordered[1:] != ordered[:-1])))
    first = order[starts[numpy.searchsorted(starts, same, side="right") - 1]]
    before, after = order[same], order[same + 1]
    return numpy.unique(numpy.concatenate((first * count + after, before * count + after)))
