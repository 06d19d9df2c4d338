from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])

class Function:
    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any: ...

def once_differentiable(fn: _F) -> _F: ...
