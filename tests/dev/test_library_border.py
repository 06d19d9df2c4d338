"""The sources use only those private names of libraries that are listed, and the pinned versions have them.

What the scan finds, by `ast`:

- An import of a private module or name, or from an internal module (`library.a.b`) of the libraries in DEEP.
- `x._name` and `getattr(x, "_name")`, if nothing in the same file defines `_name`; otherwise `x` is taken for ours.
- In a class that derives from a library's class, directly, through classes of ours or as a mixin: every private name
  that it defines, assigns or uses and that a library's class of its family has, in its class body or as `self._name` in
  its source. This also finds accidental overrides.

What it does not find: computed names, an attribute whose name the same file defines for another object, public names
that are replaced from outside (`module.function = ours`), and keyword arguments.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.models.class_sources import tree_of

from hone_dev.library_border import NAMES, LibraryName

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "crds/hone_api",
    "operator/hone_operator",
    "trainer/hone_trainer",
    "cli/hone_cli",
    "dev/hone_dev",
)
DEEP = {"transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "lm_eval", "vllm", "bitsandbytes"}
DEEP |= {"kubernetes"}
DOCUMENTED = {"_replace", "_asdict", "_fields", "_make", "_exit", "_func_lines", "_func_json", "_func_name"}
"""Named tuples, os._exit, and functions that jmespath finds by their prefix."""
BY_NAME = ("getattr", "setattr", "hasattr", "delattr")
Found = set[tuple[str, str]]
"""(file, name)"""


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in DOCUMENTED


def is_ours(module: str) -> bool:
    return module.split(".")[0].startswith("hone_")


@cache
def sources() -> dict[str, ast.Module]:
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text()) for file in files}


def imports(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(local name, module, name in the module or "")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            yield from ((alias.asname or alias.name, node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.split(".")[0], alias.name, "") for alias in node.names)


def is_internal(module: str, name: str) -> bool:
    parts = module.split(".")
    return any(map(private, (*parts, name))) or (parts[0] in DEEP and len(parts) > 2)


def internal_imports(tree: ast.AST) -> set[str]:
    found = (pair for pair in imports(tree) if not is_ours(pair[1]))
    return {name or module for _, module, name in found if is_internal(module, name)}


def attribute(node: ast.AST) -> tuple[str, str] | None:
    """(object, private name) of `object._name`, and of getattr and its like with a literal."""
    if isinstance(node, ast.Attribute):
        return (ast.unparse(node.value), node.attr) if private(node.attr) else None
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BY_NAME):
        return None
    owner, name = node.args[:2]
    if not (isinstance(name, ast.Constant) and private(str(name.value))):
        return None
    return ast.unparse(owner), str(name.value)


def is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def is_self(owner: str) -> bool:
    return owner in ("self", "cls") or owner.startswith("super(")


def defined(tree: ast.AST) -> set[str]:
    """Names that a piece of code defines or gives to `self`."""
    names = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        parts = [part for target in targets if target for part in ast.walk(target)]
        names |= {part.id for part in parts if isinstance(part, ast.Name)}
        names |= {part.attr for part in parts if isinstance(part, ast.Attribute) and is_name(part.value, "self")}
    return names


def without_protocols(tree: ast.Module) -> ast.Module:
    """The module without its protocols."""
    body = [n for n in tree.body if not (isinstance(n, ast.ClassDef) and "Protocol" in map(ast.unparse, n.bases))]
    return ast.Module(body, tree.type_ignores)


def foreign_attributes(tree: ast.Module) -> set[str]:
    """Private names of objects that are not of this file; a protocol of this file describes such objects."""
    ours = defined(without_protocols(tree))
    found = filter(None, map(attribute, ast.walk(tree)))
    return {name for owner, name in found if not is_self(owner) and name not in ours}


# Classes that derive from a library's


@cache
def classes() -> dict[tuple[str, str], ast.ClassDef]:
    found = {}
    for file, tree in sources().items():
        found.update({(file, node.name): node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)})
    return found


@cache
def imported(file: str) -> dict[str, tuple[str, str]]:
    return {name: (module, there) for name, module, there in imports(sources()[file])}


def bases(file: str, node: ast.ClassDef) -> tuple[set[tuple[str, str]], set[type]]:
    """Classes of ours, and of libraries. A base that is a variable may be any class that the file imports."""
    local = imported(file)
    ours: set[tuple[str, str]] = set()
    theirs: set[type] = set()
    for text in (ast.unparse(base).split("[")[0] for base in node.bases):
        root, *path = text.split(".")
        if root in local and is_ours(local[root][0]):
            ours |= {key for key in classes() if key[1] == text.split(".")[-1]}
        elif root in local:
            module, name = local[root]
            theirs |= load(module, name, *path) if name or root == module else load(module, *path[module.count(".") :])
        elif (file, root) in classes():
            ours.add((file, root))
        elif root.islower():
            theirs |= {kind for module, name in local.values() if not is_ours(module) for kind in load(module, name)}
    return ours, {kind for kind in theirs if kind.__module__.split(".")[0] not in sys.stdlib_module_names}


def load(module: str, *path: str) -> set[type]:
    found: object = importlib.import_module(module)
    for name in filter(None, path):
        found = getattr(found, name)
    return {found} if isinstance(found, type) else set()


@cache
def defined_by(kind: type) -> set[str]:
    """Of a class, see `defined`; nothing if it has no source."""
    source = tree_of(kind)
    return defined(source) if source else set()


@cache
def private_names(kind: type) -> frozenset[str]:
    """Of a class of a library and of its bases: in the class, and on `self` in the source."""
    names = set(dir(kind))
    for base in kind.__mro__[:-1]:
        names |= defined_by(base)
    return frozenset(filter(private, names))


def families() -> Iterator[tuple[set[tuple[str, str]], set[type]]]:
    """Classes of ours that share an object with each other, and the library's classes in it."""
    left = {key: bases(key[0], node) for key, node in classes().items()}
    while left:
        members, theirs = {next(iter(left))}, set()
        while more := {
            key
            for key, (ours, _) in left.items()
            if key not in members and (ours & members or any(key in left[member][0] for member in members))
        }:
            members |= more
        for member in members:
            theirs |= left.pop(member)[1]
        if theirs:
            yield members, theirs


def inherited() -> Found:
    found: Found = set()
    for members, theirs in families():
        names = set().union(*map(private_names, theirs))
        for file, name in members:
            node = classes()[file, name]
            used = {pair[1] for pair in map(attribute, ast.walk(node)) if pair and is_self(pair[0])}
            found |= {(file, name) for name in (used | defined(node)) & names if private(name)}
    return found


def exists(entry: LibraryName) -> bool:
    module, _, kind = entry.owner.partition(":")
    owner = importlib.import_module(module)
    if kind:
        return entry.name in private_names(getattr(owner, kind))
    if entry.name in (entry.owner, *vars(owner)) or hasattr(owner, entry.name):
        return True
    return f".{entry.name} = " in inspect.getsource(owner)  # which the module sets on others' objects


@pytest.mark.trainer
@pytest.mark.parametrize("entry", NAMES, ids=lambda e: f"{e.file.rsplit('/')[-1]}-{e.owner}.{e.name}")
def test_the_pinned_version_has_the_name(entry: LibraryName) -> None:
    library = entry.owner.split(".")[0]
    if library in ("vllm", "deepspeed"):
        pytest.importorskip(library, reason=f"{library} is not installed here")
    assert exists(entry), f"{entry.owner} has no {entry.name}: {entry.file} {entry.use} it. {entry.why}"


@pytest.mark.pure
def test_imports_and_attributes_of_libraries_are_listed() -> None:
    listed = {(entry.file, entry.name) for entry in NAMES}
    found = {
        (file, name) for file, tree in sources().items() for name in internal_imports(tree) | foreign_attributes(tree)
    }
    assert len(found) > 30
    assert sorted(found - listed) == [], "private names of a library: use a public one or list it in library_border.py"


@pytest.mark.trainer
def test_inherited_names_are_listed_and_every_entry_is_used() -> None:
    listed = {(entry.file, entry.name) for entry in NAMES}
    found = inherited()
    assert sorted(found - listed) == [], "a class overrides or uses a private name of its library's class"
    trees = sources().items()
    found |= {(file, name) for file, tree in trees for name in internal_imports(tree) | foreign_attributes(tree)}
    assert sorted(listed - found) == [], "no longer used: take it off the list"


@pytest.mark.pure
@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from trl.trainer._utils import pad", {"pad"}),
        ("from trl.trainer.utils import pad", {"pad"}),
        ("import peft._core.actions", {"peft._core.actions"}),
        ("from hone_trainer.run import _x", set()),
        ("model._parameters['a'] = 1", {"_parameters"}),
        ("getattr(model, '_hooks', None)", {"_hooks"}),
        ("class A:\n    def _mine(self): ...\nA()._mine()", set()),
        ("os._exit(1)", set()),
    ],
)
def test_the_scan_sees(code: str, names: set[str]) -> None:
    tree = ast.parse(code)
    assert internal_imports(tree) | foreign_attributes(tree) == names


@pytest.mark.trainer
def test_a_name_that_a_library_dropped_is_reported() -> None:
    entry = NAMES[0]
    assert exists(entry)
    assert not exists(entry._replace(name="_get_gradient_norm_of_old"))
