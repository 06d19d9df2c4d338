"""The source of a class as a tree. `inspect.getsource` reads and parses the whole file again for each class."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def tree_of(kind: type) -> ast.ClassDef | None:
    """None if the class has no source: it is written in C, or was created at run time."""
    try:
        file = inspect.getsourcefile(kind)
    except (OSError, TypeError):
        return None
    return _classes(file).get(kind.__qualname__) if file else None


@cache
def _classes(file: str) -> dict[str, ast.ClassDef]:
    """By qualified name; of two with one name the first, as `inspect` has it."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except FileNotFoundError:
        return {}
    classes: dict[str, ast.ClassDef] = {}
    for name, node in _within(tree, ""):
        classes.setdefault(name, node)
    return classes


def _within(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
            yield from _within(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _within(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _within(child, prefix)
