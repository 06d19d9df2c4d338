"""HTML in Markdown to what it shows: a table of tags is mostly tags, for the model and for the reviewer."""

from __future__ import annotations

import html
import re

_ATTRIBUTES = r"""(?:\s(?:[^<>"']|"[^"<>]*"|'[^'<>]*')*)?/?>"""
_BLOCKS = (
    *("p", "div", "section", "article", "header", "footer", "center", "blockquote", "pre", "figure", "figcaption"),
    *("ul", "ol", "dl", "table", "details", "summary", *(f"h{level}" for level in range(1, 7))),
)
_LINES = ("tr", "li", "dt", "dd", "br", "hr", "caption")
_INLINE = (
    *("a", "abbr", "b", "code", "del", "em", "font", "i", "img", "ins", "kbd", "mark", "nobr", "s", "samp", "small"),
    *("span", "strike", "strong", "sub", "sup", "thead", "tbody", "tfoot", "td", "th", "tt", "u", "var", "picture"),
)
_TAG = re.compile(rf"<(/?)({'|'.join((*_BLOCKS, *_LINES, *_INLINE))})\b{_ATTRIBUTES}", re.IGNORECASE)
"""Only these names: <T> in a text about generics is not a tag."""
_UNSEEN = re.compile(
    r"<!--(?:(?!<!--).)*?-->|<(script|style)\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>", re.IGNORECASE | re.DOTALL
)
"""What is inside does not begin again: so the time grows with the text alone. `_TABLE` likewise."""
_TABLE = re.compile(rf"<table\b{_ATTRIBUTES}((?:(?!<table\b).)*?)</table\s*>", re.IGNORECASE | re.DOTALL)
_ROW = re.compile(rf"<tr\b{_ATTRIBUTES}", re.IGNORECASE)
_CELL = re.compile(rf"<t[dh]\b{_ATTRIBUTES}", re.IGNORECASE)
_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_DEEPEST = 4
"""Tables inside tables; deeper ones lose their tags alone."""
_KEPT = re.compile("\ue000(\\d+)\ue001")


def shown(text: str) -> str:
    """The text without the tags of HTML, a row of a table as cells between bars; code stays as it is."""
    if not _TAG.search(text) or "\ue000" in text:
        return text
    code: list[str] = []

    def kept(match: re.Match[str]) -> str:
        code.append(match[0])
        return f"\ue000{len(code) - 1}\ue001"

    text = _UNSEEN.sub("", _CODE.sub(kept, text))
    for _ in range(_DEEPEST):  # the inner ones first
        text = _TABLE.sub(lambda match: f"\n\n{_rows(match[1])}\n\n", text)
    text = html.unescape(_TAG.sub(_space, text))
    text = re.sub(r"\n[ \t]*(?:\n[ \t]*)+", "\n\n", text).strip("\n")
    return _KEPT.sub(lambda match: code[int(match[1])], text)


def _rows(table: str) -> str:
    rows = ([" ".join(_TAG.sub(" ", cell).split()) for cell in _CELL.split(row)] for row in _ROW.split(table))
    lines = ([*([row[0]] if row[0] else ()), " | ".join(row[1:])] for row in rows)  # a caption comes before the cells
    return "\n".join(line for both in lines for line in both if line)


def _space(match: re.Match[str]) -> str:
    name = match[2].lower()
    if name in _BLOCKS:
        return "\n\n"
    return "" if match[1] else "\n" if name in _LINES else " | " if name in ("td", "th") else ""
