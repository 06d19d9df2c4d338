"""Bounds that no function or file needs to reach. Below them a reviewer judges: a module that only one other imports,
cut off to stay short, is harder to find than a file of 600 lines."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("crds/hone_api", "operator/hone_operator", "trainer/hone_trainer", "cli/hone_cli", "dev/hone_dev")
LONGEST_FUNCTION, LONGEST_FILE = 80, 800
"""Lines; of a function without its docstring."""


def sources() -> dict[str, str]:
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}


def lines_of_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A command's is its help text, with examples."""
    first = function.body[0]
    return (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0


def long_functions(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1 - lines_of_docstring(node)
            if lines > LONGEST_FUNCTION:
                yield f"{node.name} has {lines} lines"


def test_no_function_is_beyond_the_bound() -> None:
    assert [f"{path}: {words}" for path, source in sources().items() for words in long_functions(source)] == []


def test_no_file_is_beyond_the_bound() -> None:
    assert [path for path, source in sources().items() if source.count("\n") > LONGEST_FILE] == []


def test_a_long_function_is_seen() -> None:
    body = "    pass\n" * LONGEST_FUNCTION
    assert list(long_functions(f"def short():\n{body[:-9]}\nasync def long():\n{body}")) == ["long has 81 lines"]
