"""Names in the packages that users install: a class name is one thing, and a local hides no function of its own file.
Functions, also of tests and development, have the words of the style guide."""

import ast
import re
import symtable
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("crds/hone_api", "operator/hone_operator", "trainer/hone_trainer", "cli/hone_cli")
ONE_PER_MODULE = {
    "InSpec": "each method's module has its field of a FineTuneJob's spec; `methods/blocks.py` joins them",
    "InPlan": "each method's module has its field of a plan; `methods/blocks.py` joins them",
}


@cache
def modules() -> dict[str, symtable.SymbolTable]:
    """The symbols of each module, by its path."""
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    names = [path.relative_to(ROOT).as_posix() for path in files]
    return {name: symtable.symtable((ROOT / name).read_text(), name, "exec") for name in names}


def scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """All scopes within another."""
    for child in table.get_children():
        yield child
        yield from scopes(child)


def hidden(module: symtable.SymbolTable) -> Iterator[tuple[int, str]]:
    """Line of the scope, and name, of each parameter or local with the name of a function of the module."""
    functions = {child.get_name() for child in module.get_children() if child.get_type() == "function"}
    for scope in scopes(module):
        if scope.get_type() == "function":
            for symbol in scope.get_symbols():
                if symbol.is_local() and symbol.get_name() in functions:
                    yield scope.get_lineno(), symbol.get_name()


def test_a_class_name_is_one_thing() -> None:
    places = defaultdict(list)
    for path, module in modules().items():
        for scope in scopes(module):
            if scope.get_type() == "class":
                places[scope.get_name()].append(f"{path}:{scope.get_lineno()}")
    assert len(places) > 400
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in ONE_PER_MODULE} == {}
    assert twice.keys() == ONE_PER_MODULE.keys(), "an exception that is not needed"


def test_no_local_hides_a_function_of_its_own_file() -> None:
    hiding = [f"{path}:{line} {name}" for path, module in modules().items() for line, name in hidden(module)]
    assert hiding == []


def test_a_hidden_function_is_seen() -> None:
    source = "def rows(): ...\ndef show(rows): return [rows for rows in rows]\nclass Shown:\n    rows = 1\n"
    assert [name for _, name in hidden(symtable.symtable(source, "shown.py", "exec"))] == ["rows", "rows"]


DIALECT = re.compile(r"(^|_)(told|tells?|tell|heal(s|ed|ing)?|mend(s|ed)?|anew|beside|end_marks?)(_|$)")
"""Words for which the style guide names better ones."""
WORDED = (*PACKAGES, "dev/hone_dev", "bench", "tests")
AS_IN_A_LIBRARY = {"tell": "of a fake file or cluster, as io.IOBase has it"}


def dialect(source: str) -> Iterator[str]:
    """Names of functions and classes with a word that the style guide replaces."""
    for node in ast.walk(ast.parse(source)):
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if named and DIALECT.search(node.name) and node.name not in AS_IN_A_LIBRARY:
            yield node.name


def test_functions_have_the_words_of_the_style_guide() -> None:
    files = sorted(path for folder in WORDED for path in (ROOT / folder).rglob("*.py"))
    assert len(files) > 1000
    assert [f"{path.relative_to(ROOT)}: {name}" for path in files for name in dialect(path.read_text())] == []


def test_a_word_of_dialect_is_seen() -> None:
    assert list(dialect("def test_it_is_told(): ...\nclass Healed: ...\ndef _mend(): ...\ndef retold(): ...")) == [
        "test_it_is_told",
        "_mend",
    ]
