"""Docstrings: what is described under `Args:` is a parameter, under the name that it has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("crds", "operator", "trainer", "cli", "dev/hone_dev", "tests", "bench")
MAKERS = ("__init__", "__new__", "__call__")


def documented(text: str) -> Iterator[str]:
    """The names under `Args:` of a docstring; one line may have several, with commas."""
    for line in text.partition("Args:\n")[2].split("\n"):
        if line.strip() and not line.startswith("    "):
            return
        if match := re.match(r"    (\*{0,2}\w+(?:, \*{0,2}\w+)*):", line):
            yield from re.findall(r"\w+", match[1])


def parameters(node: ast.AST) -> set[str]:
    """Of a function; of a class, those that make or call it, and its fields."""
    if isinstance(node, ast.ClassDef):
        fields = {
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
        makers = (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name in MAKERS)
        return fields.union(*map(parameters, makers))
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}


def test_each_argument_that_a_docstring_describes_exists() -> None:
    gone, count = [], 0
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names = list(documented(ast.get_docstring(node) or ""))
                count += len(names)
                gone += [f"{path}:{node.lineno} {name}" for name in names if name not in parameters(node)]
    assert gone == []
    assert count > 500


def test_the_check_finds_what_is_gone() -> None:
    text = 'def f(a: int) -> None:\n    """Do.\n\n    Args:\n        a, *b: numbers.\n        c: gone.\n    """\n'
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    assert [name for name in documented(ast.get_docstring(node) or "") if name not in parameters(node)] == ["b", "c"]
