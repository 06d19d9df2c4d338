"""Elements of a page, as text in which everything that is not an element is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


class Markup(str):
    """Text that is HTML: made by `element` alone, or drawn by this package."""

    __slots__ = ()


_EMPTY = frozenset({"input"})


def element(tag: str, *parts: Markup | str | int | None, **attributes: str | int | bool | None) -> Markup:
    """An element; names of attributes may end in `_`, and `_` in them is `-`."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    words = "".join(
        f" {name}" if value is True else f' {name}="{escape(str(value))}"'
        for name, value in named.items()
        if value is not None and value is not False
    )
    return Markup(f"<{tag}{words}>" if tag in _EMPTY else f"<{tag}{words}>{join(parts)}</{tag}>")


def join(parts: Iterable[Markup | str | int | None]) -> Markup:
    """Parts next to each other; None is left out."""
    shown = (part if isinstance(part, Markup) else escape(str(part)) for part in parts if part is not None)
    return Markup("".join(shown))


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Markup | str | int | None]]) -> Markup:
    """A table that scrolls within its own frame, also by keyboard."""
    head = element("tr", *(element("th", each, scope="col") for each in heads))
    body = [element("tr", *(element("td", "" if cell is None else cell) for cell in row)) for row in rows]
    inner = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", inner, class_="wide", tabindex=0, role="region", aria_label=caption)


def facts(pairs: Mapping[str, Markup | str | int | None]) -> Markup:
    """Names and what they are; those without are left out."""
    shown = [join([element("dt", name), element("dd", what)]) for name, what in pairs.items() if what not in (None, "")]
    return element("dl", *shown)


def link(words: str, *path: str) -> Markup:
    """To another view of the page."""
    from urllib.parse import quote

    return element("a", words, href="#/" + "/".join(quote(each, safe="") for each in path))


def field(label: str, name: str, value: str = "", hint: str | None = None, kind: str = "text") -> Markup:
    """An input with its label."""
    box = element("input", name=name, value=value, type=kind, id=f"field-{name}", placeholder=hint)
    return element("label", label, " ", box, for_=f"field-{name}")


def form(act: str, button: str, *parts: Markup | str | None, again: bool = False, **hidden: str) -> Markup:
    """A form that asks for an action, and the place below it for the answer.

    Args:
        again: whether the view is shown again afterwards; the answer is then above it.
    """
    values = [element("input", type="hidden", name=name, value=value) for name, value in hidden.items()]
    asked = element("form", *values, *parts, element("button", button), data_act=act, data_again=again)
    return join([asked, element("div", class_="answer", role="status")])
