"""The stubs of libraries in `dev/typings` say what the pinned versions have, and nothing that nobody uses.

What it holds: each class with its bases, each method and function with the names and the order of its parameters, each
attribute in a class body, as `self.name =` in the class's source, or as a field of a dataclass. What it does not hold:
the types of parameters, results and attributes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.models.class_sources import tree_of

ROOT = Path(__file__).resolve().parents[2]
TYPINGS = ROOT / "dev/typings"
STUBS = sorted(TYPINGS.rglob("*.pyi"))
SOURCES = ("operator/hone_operator", "trainer/hone_trainer", "dev/hone_dev")


def module_of(stub: Path) -> str:
    parts = stub.relative_to(TYPINGS).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def problems(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """What a stub says and the library does not have."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            kind = getattr(module, node.name, None)
            if not isinstance(kind, type):
                yield f"no class {node.name}"
            else:
                yield from (f"{node.name}: {problem}" for problem in problems_of_class(node, kind))
        elif isinstance(node, ast.FunctionDef) and node.name != "__getattr__":
            function = getattr(module, node.name, None)
            yield from problems_of_function(node, function)


def problems_of_class(node: ast.ClassDef, kind: type) -> Iterator[str]:
    for base in node.bases:
        expected = ast.unparse(base)
        if expected not in {each.__name__ for each in kind.__mro__}:
            yield f"does not derive from {expected}"
    for member in node.body:
        if isinstance(member, ast.FunctionDef):
            yield from problems_of_function(member, getattr(kind, member.name, None))
        elif isinstance(member, ast.AnnAssign):
            name = ast.unparse(member.target)
            if name not in attributes(kind):
                yield f"no attribute {name}"


def problems_of_function(node: ast.FunctionDef, function: Any) -> Iterator[str]:
    if not callable(function):
        yield f"no function {node.name}"
        return
    try:
        real = list(inspect.signature(function).parameters.values())
    except ValueError:
        return  # a function in C has no signature
    by_name = {p.name for p in real if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in real)
    positional = [p.name for p in real if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    ours = [a.arg for a in node.args.args if a.arg not in ("self", "cls")]
    theirs = [name for name in positional if name not in ("self", "cls")]
    if not any(p.kind is p.VAR_POSITIONAL for p in real) and ours != theirs[: len(ours)]:
        yield f"{node.name} takes ({', '.join(theirs)}), not ({', '.join(ours)})"
    yield from (f"{node.name} has no {a.arg}" for a in node.args.kwonlyargs if a.arg not in by_name and not takes_any)


@cache
def attributes(kind: type) -> frozenset[str]:
    names: set[str] = set()
    for each in kind.__mro__[:-1]:
        names |= set(vars(each)) | set(vars(each).get("__annotations__", {}))
        names |= of_self(each)
    return frozenset(names)


@cache
def of_self(kind: type) -> frozenset[str]:
    """What the source of a class names as `self.name`; nothing of a class that is not written in Python."""
    source = tree_of(kind)
    attributes = [node for node in ast.walk(source) if isinstance(node, ast.Attribute)] if source else []
    return frozenset(n.attr for n in attributes if isinstance(n.value, ast.Name) and n.value.id == "self")


def declared(tree: ast.Module) -> Iterator[str]:
    """Names of classes' members in a stub."""
    for node in tree.body:
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("__"):
                yield member.name
            elif isinstance(member, ast.AnnAssign):
                yield ast.unparse(member.target)


@pytest.mark.trainer
@pytest.mark.parametrize("stub", STUBS, ids=module_of)
def test_the_pinned_version_has_what_the_stub_says(stub: Path) -> None:
    module = importlib.import_module(module_of(stub))
    assert list(problems(ast.parse(stub.read_text()), module)) == []


@pytest.mark.pure
@pytest.mark.parametrize("stub", STUBS, ids=module_of)
def test_a_stub_has_no_member_that_nobody_uses(stub: Path) -> None:
    words = set(re.findall(r"\w+", "".join(f.read_text() for folder in SOURCES for f in (ROOT / folder).rglob("*.py"))))
    assert [name for name in declared(ast.parse(stub.read_text())) if name not in words] == []


class Library:
    """As a library would have it."""

    def __init__(self) -> None:
        self.state = 0

    def step(self, model: Any, inputs: Any, count: int = 0) -> None: ...


@pytest.mark.pure
@pytest.mark.parametrize(
    ("stub", "problem"),
    [
        ("class Library:\n    state: int\n    def step(self, model: Any, inputs: Any) -> None: ...", None),
        ("class Libary: ...", "no class Libary"),
        ("class Library(Exception): ...", "Library: does not derive from Exception"),
        ("class Library:\n    stat: int", "Library: no attribute stat"),
        ("class Library:\n    def stp(self) -> None: ...", "Library: no function stp"),
        (
            "class Library:\n    def step(self, inputs: Any) -> None: ...",
            "Library: step takes (model, inputs, count), not (inputs)",
        ),
        ("class Library:\n    def step(self, *, counts: int) -> None: ...", "Library: step has no counts"),
    ],
)
def test_what_a_library_does_not_have_is_seen(stub: str, problem: str | None) -> None:
    library = ModuleType("library")
    vars(library)["Library"] = Library
    assert list(problems(ast.parse(stub), library)) == ([problem] if problem else [])


UNTYPED = re.compile(r"\b(model|trainer|tokenizer)$")


def untyped(source: str) -> Iterator[str]:
    """Function and parameter of each model, trainer and tokenizer that is taken as `Any`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                if UNTYPED.search(argument.arg.replace("_", " ")) and ast.unparse(argument.annotation or node) == "Any":
                    yield f"{node.name}({argument.arg})"


@pytest.mark.pure
def test_models_trainers_and_tokenizers_are_not_any() -> None:
    files = sorted((ROOT / "trainer/hone_trainer").rglob("*.py"))
    assert len(files) > 300
    assert [f"{file.relative_to(ROOT)}: {place}" for file in files for place in untyped(file.read_text())] == []


@pytest.mark.pure
def test_a_model_that_is_any_is_seen() -> None:
    source = "def a(model: Any, rows: Any): ...\nasync def b(*, base_model: Any): ...\ndef c(trainer: Loop): ..."
    assert list(untyped(source)) == ["a(model)", "b(base_model)"]
