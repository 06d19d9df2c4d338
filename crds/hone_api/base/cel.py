"""CEL rules of the API, evaluated in Python: for plans and objects that no API server has seen.

Rules use a part of CEL that has the grammar of Python except for `&&`, `||`, `!` and macros. A rule is compiled to
Python once; what is not of this part is refused then. `docs/decisions/rules-in-python.md` says why no library does it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from types import CodeType
from typing import Any

from hone_api.base.quantity import value as quantity

_TOKEN = re.compile(r"r'[^']*'|'[^'\\]*'|&&|\|\||!(?!=)")
_IN_PYTHON = {"&&": " and ", "||": " or ", "!": "~"}
"""Of operators. `~` binds as tightly as `!` does; `not` would not."""
_MACROS: dict[str, Callable[..., Any]] = {
    "all": lambda items, condition: all(map(condition, items)),
    "exists": lambda items, condition: any(map(condition, items)),
    "exists_one": lambda items, condition: len([*filter(condition, items)]) == 1,
    "filter": lambda items, condition: [*filter(condition, items)],
}


class NotSupportedError(Exception):
    """A rule uses what is not of our part of CEL."""


def is_match(pattern: str, text: str) -> bool:
    """Whether CEL's `text.matches(pattern)` is true. As in RE2, `$` is the very end, and \\w and \\d are ASCII."""
    return _pattern(pattern).search(text) is not None


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"(?<!\\)\$", r"\\Z", pattern), re.ASCII)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "compareTo": lambda one, other: (one > other) - (one < other),
    "contains": lambda text, part: part in text,
    "double": float,
    "hasValue": lambda optional: optional is not None,
    "int": int,
    "lastIndexOf": str.rfind,
    "matches": lambda text, pattern: is_match(pattern, text),
    "quantity": quantity,
    "replace": str.replace,
    "size": len,
    "split": str.split,
    "startsWith": str.startswith,
    "string": str,
    "substring": lambda text, start: text[start:],
    "type": type,
}
_CONSTANTS = {"true": True, "false": False}
_NODES = (
    *(ast.BoolOp, ast.boolop, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Mod),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In),
    *(ast.Constant, ast.List, ast.expr_context, ast.Expression),
)
"""Of a tree, what CEL and Python write alike and mean alike: `/` of integers is another number in Python."""


class _ToPython(ast.NodeTransformer):
    """From the tree of a rule to that of the same in Python, where an object is a dict."""

    def __init__(self) -> None:
        self._variables = ["self", "oldSelf", *_FUNCTIONS]

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, _NODES) or (isinstance(node, ast.Compare) and len(node.ops) > 1):
            raise NotSupportedError(ast.unparse(node))
        return super().generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """`self`, the variable of a macro, a type, `true` and `false`."""
        if node.id in self._variables:
            return node
        if node.id in _CONSTANTS:
            return ast.Constant(_CONSTANTS[node.id])
        raise NotSupportedError(node.id)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """A number or a text."""
        if type(node.value) not in (int, float, str):
            raise NotSupportedError(ast.unparse(node))
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        """`!a`, and the sign of a number."""
        operation = ast.Not() if isinstance(node.op, ast.Invert) else node.op
        return ast.UnaryOp(operation, self.visit(node.operand))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """`a.b`."""
        return ast.Subscript(self.visit(node.value), ast.Constant(node.attr), ast.Load())

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """`a[0]`."""
        return ast.Subscript(self.visit(node.value), self.visit(node.slice), ast.Load())

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`has(a.b)`, `a.all(x, …)`, `a.f(b)` and `f(a)`."""
        match node.func, node.args:
            case ast.Name("has"), [ast.Attribute(value, field)]:
                return ast.Compare(ast.Constant(field), [ast.In()], [self.visit(value)])
            case ast.Attribute(items, name), [ast.Name(variable), body] if name in _MACROS:
                only = ast.arguments([], [ast.arg(variable)], None, [], [], None, [])
                of = self.visit(items)
                self._variables.append(variable)
                arguments = [of, ast.Lambda(only, self.visit(body))]
                self._variables.pop()
            case ast.Attribute(value, name), others if name in _FUNCTIONS:
                arguments = [self.visit(each) for each in (value, *others)]
            case ast.Name(name), others if name in _FUNCTIONS:
                arguments = [self.visit(each) for each in others]
            case _:
                raise NotSupportedError(ast.unparse(node))
        return ast.Call(ast.Name(name, ast.Load()), arguments, [])


@cache
def _compiled(rule: str) -> CodeType:
    python = _TOKEN.sub(lambda token: _IN_PYTHON.get(token[0], token[0]), rule)
    try:
        tree = _ToPython().visit(ast.parse(python, mode="eval"))
    except SyntaxError as error:
        raise NotSupportedError(rule) from error
    return compile(ast.fix_missing_locations(tree), "<rule>", "eval")


def evaluate(rule: str, value: Any) -> bool:
    """The value of a rule of a new object.

    Args:
        value: `self`, as JSON.

    Raises:
        NotSupportedError: the rule is not of our part of CEL.
    """
    names = {**_FUNCTIONS, **_MACROS, "__builtins__": {}, "self": value, "oldSelf": None}
    return bool(eval(_compiled(rule), names))  # noqa: S307 the rules are constants of this package
