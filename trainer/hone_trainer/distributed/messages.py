"""Messages between ranks, in addition to tensors: JSON, because a pickle would run the sender's code.

torch's object collectives (`all_gather_object`, `broadcast_object_list`, ...) pickle through two names of one module.
These are replaced by JSON, so that what TRL, transformers and accelerate gather (texts of samples, names of metrics)
also travels as JSON. Our own code does not call them.
"""

from __future__ import annotations

import json
from typing import IO, Any

import numpy

REPLACED = ("_pickler", "_unpickler")
"""Names in torch.distributed.distributed_c10d."""


class Writer:
    """Replaces pickle.Pickler."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def dump(self, value: Any) -> None:
        """Write `value`, which must fit JSON. A tuple arrives as a list, a NumPy number as a Python number.

        Raises:
            TypeError: JSON cannot represent it, or would read it as something else.
        """
        self._file.write(json.dumps(_plain(value), default=_refuse).encode())


class Reader:
    """Replaces pickle.Unpickler."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def load(self) -> Any:
        """Read the value that was written.

        Raises:
            ValueError: the bytes are not JSON.
        """
        return json.loads(self._file.read())


def speak_json() -> None:
    """Make the object collectives of this process send and read JSON."""
    from torch.distributed import distributed_c10d

    for name, replacement in zip(REPLACED, (Writer, Reader), strict=True):
        if not hasattr(distributed_c10d, name):
            raise RuntimeError(f"torch.distributed has no {name} any more: its objects cannot be kept from pickle")
        setattr(distributed_c10d, name, replacement)


def _plain(value: Any) -> Any:
    """`value` in a form that json.dumps accepts; raises where JSON would not restore it."""
    if isinstance(value, dict):
        strange = [key for key in value if not isinstance(key, str)]
        if strange:
            raise TypeError(f"ranks send each other JSON, whose keys are text, and this one is {strange[0]!r}")
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, numpy.generic) else value


def _refuse(value: Any) -> Any:
    raise TypeError(f"ranks send each other JSON and tensors, and this is a {type(value).__name__}")
