from collections.abc import Callable
from typing import Any, TypeVar

from torch import autograd as autograd
from torch import nn as nn

_F = TypeVar("_F", bound=Callable[..., Any])

class no_grad:
    def __call__(self, orig_func: _F) -> _F: ...
    def __enter__(self) -> None: ...
    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None: ...

def __getattr__(name: str) -> Any: ...
