"""Column expressions: what a role is read from, where it is not one whole column.

An expression is JMESPath (https://jmespath.org), which is specified, has no loops and reads nothing but the row:
`input.messages`, `instances[0].output`, `'a constant'`. Four functions are added:

- `lines(a, b, …)`: the texts, or lists of texts, that are not empty, joined by blank lines.
- `json(text)`: the value of a JSON text; other values as they are.
- `name(number, list)`: the number's name in a list of names, from 0.
- `pick(label, {"1": a, "2": b})`: what the label stands for. A row with any other label is refused: `label == '1' && a
  || b` would take b for a tie, for null, and for every label of another coding.

The exact name of a column of the row is that column, whatever characters it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError

from hone_trainer.datasets.readers.rows import RowError, label_text, strict_json, type_name

_PLAIN = re.compile(r"[\w -]+")


class _Functions(functions.Functions):
    @functions.signature({"types": [], "variadic": True})  # of several types with array-string, null cannot be checked
    def _func_lines(self, *values: Any) -> str | None:
        texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        if wrong := next((text for text in texts if not isinstance(text, str | None)), None):
            raise RowError("WrongType", f"lines(…) takes texts and lists of texts, not {type_name(wrong)}")
        return "\n\n".join(text for text in texts if text and text.strip()) or None

    @functions.signature({"types": []})
    def _func_json(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return strict_json(value) if value.strip() else None
        except ValueError as error:
            how = "; it looks like Python's own form: write it by json.dumps" if "'" in value[:20] else ""
            raise RowError("BrokenJson", f"json(…) got a text that is not JSON: {error}{how}"[:300]) from None

    @functions.signature({"types": ["number", "null"]}, {"types": ["array"]})
    def _func_name(self, number: float | None, names: list[Any]) -> Any:
        is_index = number is not None and 0 <= number < len(names) and number == int(number)
        return names[int(number)] if number is not None and is_index else None

    @functions.signature({"types": []}, {"types": ["object"]})
    def _func_pick(self, label: Any, meanings: dict[str, Any]) -> Any:
        by_label = {label_text(name): value for name, value in meanings.items()}
        if label is None or label_text(label) not in by_label:
            shown = "null" if label is None else repr(label)[:40]
            raise RowError("WrongLabel", f"the label is {shown}, and pick(…) knows {', '.join(meanings)}"[:300])
        return by_label[label_text(label)]


_OPTIONS = jmespath.Options(custom_functions=_Functions())


@lru_cache(maxsize=256)
def compiled(text: str) -> Any:
    """The expression of a text; None for a plain name of a column.

    Raises:
        ValueError: neither a plain name nor an expression.
    """
    if _PLAIN.fullmatch(text):
        return None
    try:
        return jmespath.compile(text)
    except JMESPathError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None
    except RecursionError:
        raise ValueError("it nests too deep") from None


def is_valid(text: str) -> bool:
    """Whether the text is an expression, or a plain name."""
    try:
        compiled(text)
    except ValueError:
        return False
    return True


def columns_read(text: str) -> set[str]:
    """The names that an expression reads: of columns, and of fields inside them."""
    try:
        expression = compiled(text)
    except ValueError:
        return {text}
    return {text} if expression is None else set(_fields(expression.parsed))


def evaluate(text: str, row: Mapping[str, Any]) -> Any:
    """The value of a column or expression in a row; None if it has none.

    Raises:
        RowError: WrongType or BrokenJson, where a value of the row is none that the expression can take.
    """
    if text in row:
        return row[text]
    expression = compiled(text) if is_valid(text) else None
    if expression is None:
        return None
    try:
        return expression.search(row, _OPTIONS)
    except RowError:
        raise
    except (JMESPathError, RecursionError, TypeError, ValueError) as error:
        raise RowError("WrongType", f"{text[:100]}: {' '.join(str(error).split())}"[:300]) from None


def _fields(node: Any) -> Iterator[str]:
    if not isinstance(node, dict):
        return
    if node.get("type") == "field":
        yield node["value"]
    for child in node.get("children", ()):
        yield from _fields(child)
