"""A `datasets.Dataset`, as TRL wants one, whose rows are made when they are asked for: it holds an index alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """What the columns of a dataset hold, by the index of the row."""

    names: tuple[str, ...]
    make: Callable[[int], Row]
    """The values of a row, by name."""
    lengths: Any
    """Tokens of each row's sequence, as numpy array; None where nobody asks."""

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """A batch of the dataset's own columns, with the values in place of the index, which is the first column."""
        rows = [self.make(index) for index in batch[self.names[0]]]
        added = {name: list(values) for name, values in batch.items() if name not in self.names}
        return {**{name: [row[name] for row in rows] for name in self.names}, **added}

    def __deepcopy__(self, memo: Any) -> Columns:
        return self

    def __reduce__(self) -> Any:
        # The library pickles a transform to name what it makes of the data, and that alone.
        return str, (f"{id(self)}",)


def dataset(rows: int, make: Callable[[int], Row], lengths: Any = None) -> Any:
    """A dataset of so many rows.

    Args:
        make: the index of a row -> its columns, the same ones for each.
        lengths: tokens of each row's sequence, see `sequence_lengths`.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.fingerprint import generate_random_fingerprint

    names = tuple(make(0))
    index, *others = names
    # Columns without a value take no memory, and TRL looks at the names.
    table = {index: pa.array(np.arange(rows, dtype=np.int32)), **{name: pa.nulls(rows) for name in others}}
    # Its own fingerprint would be a hash over a copy of the index.
    return Dataset(pa.table(table), fingerprint=generate_random_fingerprint()).with_transform(
        Columns(names, make, lengths)
    )


def sequence_lengths(data: Any) -> Any:
    """Tokens of each row's sequence, of a dataset that was made with them."""
    return _columns(data).lengths


def row_maker(data: Any) -> Callable[[int], Row]:
    """How the rows of a dataset are made."""
    return _columns(data).make


def _columns(data: Any) -> Columns:
    columns: Columns = data.format["format_kwargs"]["transform"]
    return columns
