"""The text of `blocks.py`, in which a type checker sees the block of each method: a class with computed bases would
hide them. `make crds` writes it from the names in `info.Method`."""

from __future__ import annotations

from collections.abc import Iterable

from hone_api.methods.info import Method

_HEADER = '''"""The methods' modules and their blocks. Generated from `info.Method` by `make crds`; do not edit."""

from hone_api.methods import (
{imports}
)

MODULES = (
{modules}
)
'''
_CLASS = '''

class {name}(  # pydantic takes the fields of the last base first
{bases}
):
    """{doc}"""
'''
_CLASSES = (
    ("SpecBlocks", "InSpec", "The options of each method in the spec of a FineTuneJob."),
    ("PlanBlocks", "InPlan", "The options of each method in a plan."),
)


def blocks() -> str:
    """Each method has a module of its name, in lower case, with `INFO`, `InSpec` and `InPlan`."""
    names = [name.lower() for name in Method]
    text = _HEADER.format(imports=_lines(sorted(names)), modules=_lines(names))
    for name, block, doc in _CLASSES:
        text += _CLASS.format(name=name, bases=_lines(f"{module}.{block}" for module in reversed(names)), doc=doc)
    return text


def _lines(items: Iterable[str]) -> str:
    return "\n".join(f"    {item}," for item in items)
