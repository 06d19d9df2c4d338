"""A text as the patterns read it: with ASCII digits and signs, and without the escapes of JSON.

It is as long as the text, so that what is found in it is at the same place in both.
"""

from __future__ import annotations

import re
import unicodedata

_ZEROS = (0x660, 0x6F0, 0x966, 0x9E6, 0xE50, 0xFF10)
"""Arabic, Persian, Devanagari, Bengali, Thai and full-width digits begin here."""
_ASCII = {
    **dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000", " "),
    **dict.fromkeys("‐‑‒–—―−－", "-"),
    **{chr(zero + digit): str(digit) for zero in _ZEROS for digit in range(10)},
    **{"＠": "@", "＋": "+", "（": "(", "）": ")"},
    # Of a byte that is not UTF-8, or half of a pair: the row is refused for it, and its message must quote no value.
    **{chr(code): "\ufffd" for code in range(0xD800, 0xE000)},
}
_UNUSUAL = re.compile(f"[{''.join(char for char in _ASCII if char < chr(0xD800) or char > chr(0xDFFF))}\ud800-\udfff]")
_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|[nrtbf])?")
"""Of a JSON text, also of one inside another: the result of a tool is mostly one."""


def plain(text: str) -> str:
    """The text with what is meant in place of what is written."""
    if not text.isascii():
        text = _UNUSUAL.sub(lambda match: _ASCII[match[0]], text)
    return _ESCAPE.sub(_unescaped, text) if "\\" in text else text


def _unescaped(match: re.Match[str]) -> str:
    """A letter as often as its escape is long, so that a name with it stays one word; blanks for other characters."""
    char = chr(int(match[1], 16)) if match[1] else " "
    return (char if unicodedata.category(char) in ("Ll", "Lu", "Lo") else " ") * len(match[0])
