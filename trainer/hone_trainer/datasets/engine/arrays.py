"""Lists and numpy arrays as Arrow arrays, and back.

What pyarrow itself has for this loads pandas first, if it is installed: half a second of a core.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

_CODES = {"uint64": "Q", "int64": "q", "uint32": "I", "int32": "i", "uint8": "B"}


def column(values: Sequence[Any], kind: Any) -> Any:
    """The values as an array of an Arrow type: texts, whole numbers or booleans; None is null."""
    import pyarrow

    if values.count(None) == len(values):
        return pyarrow.nulls(len(values), kind)
    if pyarrow.types.is_string(kind):
        builder = pyarrow.lib.StringBuilder()
        builder.append_values(values)
        return builder.finish()
    valid = None
    if None in values:
        valid = _bits([value is not None for value in values])
        values = [value or 0 for value in values]
    is_bits = pyarrow.types.is_boolean(kind)
    data = _bits(values) if is_bits else pyarrow.py_buffer(array(_CODES[str(kind)], values))
    return pyarrow.Array.from_buffers(kind, len(values), [valid, data])


def _bits(values: Sequence[bool]) -> Any:
    import numpy
    import pyarrow

    return pyarrow.py_buffer(numpy.packbits(values, bitorder="little"))


def scalar(value: Any, kind: Any) -> Any:
    """The value as a scalar of an Arrow type, for `pyarrow.compute`."""
    return column([value], kind)[0]


def table(columns: dict[str, Any]) -> Any:
    """A table of columns, by the type of their first value."""
    import pyarrow

    kinds = {str: pyarrow.string(), int: pyarrow.int64()}
    arrays = [
        values
        if isinstance(values, pyarrow.Array)
        else column(list(values), kinds.get(type(next(iter(values), None)), pyarrow.bool_()))
        for values in columns.values()
    ]
    return pyarrow.table(arrays, names=list(columns))


def of_numbers(values: Any) -> Any:
    """A numpy array of whole numbers as an Arrow array, which shares its memory."""
    import pyarrow

    kind = getattr(pyarrow, str(values.dtype))()
    return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(values)])


def of_texts(texts: Sequence[bytes]) -> Any:
    """Texts in UTF-8 as an Arrow array; together less than 2 GiB."""
    import numpy
    import pyarrow

    ends = numpy.cumsum([0, *map(len, texts)], dtype=numpy.int32)
    buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(texts))]
    return pyarrow.Array.from_buffers(pyarrow.string(), len(texts), buffers)


def numbers(values: Any) -> Any:
    """An Arrow array of whole numbers without nulls as a numpy array, which shares its memory."""
    import numpy

    whole = numpy.frombuffer(values.buffers()[1], dtype=str(values.type))
    return whole[values.offset : values.offset + len(values)]


def indices(values: Any) -> Any:
    """A numpy array of whole numbers as an Arrow array, for `take`."""
    import numpy

    return of_numbers(numpy.ascontiguousarray(values, dtype=numpy.int64))


def merged(arrays: Sequence[Any], others: Sequence[Any], places: Sequence[int]) -> list[Any]:
    """Arrays with the values of others at some places, in ascending order, and their own in all the rest."""
    import numpy
    import pyarrow

    order = numpy.zeros(len(arrays[0]) + len(places), dtype=numpy.int64)
    is_other = numpy.zeros(len(order), dtype=bool)
    is_other[places] = True
    order[~is_other] = numpy.arange(len(arrays[0]))
    order[is_other] = len(arrays[0]) + numpy.arange(len(places))
    return [pyarrow.concat_arrays(both).take(indices(order)) for both in zip(arrays, others, strict=True)]
