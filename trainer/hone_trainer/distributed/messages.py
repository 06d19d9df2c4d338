"""What ranks send each other beside tensors: JSON, never pickled objects, which would run code of whoever sends them.

torch's object collectives (`all_gather_object`, `broadcast_object_list`, ...) pickle by two names of one module. Here
they get JSON instead, so that what TRL, transformers and accelerate gather (texts of samples, names of metrics) travels
as JSON as well. Our own code calls none of them.
"""

from __future__ import annotations

import json
from typing import IO, Any

import numpy

REPLACED = ("_pickler", "_unpickler")
"""Names of torch.distributed.distributed_c10d."""


class Writer:
    """As pickle.Pickler."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def dump(self, value: Any) -> None:
        """Write `value`, which JSON can hold. A tuple arrives as a list, a number of NumPy as one of Python.

        Raises:
            TypeError: JSON cannot hold it, or would read it as something else.
        """
        self._file.write(json.dumps(_plain(value), default=_refuse).encode())


class Reader:
    """As pickle.Unpickler."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def load(self) -> Any:
        """What was written.

        Raises:
            ValueError: the bytes are not JSON.
        """
        return json.loads(self._file.read())


def speak_json() -> None:
    """Let the object collectives of this process send and read JSON."""
    from torch.distributed import distributed_c10d

    for name, made in zip(REPLACED, (Writer, Reader), strict=True):
        if not hasattr(distributed_c10d, name):
            raise RuntimeError(f"torch.distributed has no {name} any more: its objects cannot be kept from pickle")
        setattr(distributed_c10d, name, made)


def _plain(value: Any) -> Any:
    """`value` without what json.dumps refuses although JSON can hold it, or writes although it cannot."""
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
