"""A quick look at a whole row: most hold nothing that could be personal data, and are not read text by text.

It reads the row as canonical JSON, where a text has more signs than by itself: a quote, a line break or a backslash is
two. Its patterns are wider than those that find, so that what it lets pass for sure holds nothing; a test holds them
against each other.
"""

from __future__ import annotations

import re2

from hone_trainer.datasets.pii.keys import SEED_PHRASE

_BLANK = r"\s\p{Z}\\nrtbf"
"""Blanks, also as JSON writes them inside a text, or a text that is JSON itself."""
_DASH = r"\-‐‑‒–—―−－"
_DIGIT = r"0-9\p{Nd}"
_NUMBER = rf"[{_DIGIT}][{_DIGIT}{_BLANK}{_DASH}().（）/]{{5,}}[{_DIGIT}]"
_KEY = rf"[\w+＋={_DASH}{_DIGIT}]{{16}}"
_NAME = (
    r"(?i:authorization|secret|token|pass(?:word|wd|phrase)|passwor[dt]|pwd|kennwort|contraseña"
    rf"|mot[{_BLANK}]{{1,4}}de[{_BLANK}]{{1,4}}passe|wachtwoord|senha|hasło|пароль|密码|密碼|パスワード|비밀번호"
    r"|(?:api|access|secret|auth|private|account|encryption|client)(?:_|\W{1,2})?key)"
    rf"[{_BLANK}\"'`\]]{{0,24}}[:=：＝]"
)
_IPV6 = rf"[A-Fa-f{_DIGIT}]{{1,4}}:[A-Fa-f{_DIGIT}]{{0,4}}:"
_SPELLED_AT = rf"[(\[{{（][{_BLANK}]{{0,4}}(?i:at|arroba|ät)[{_BLANK}]{{0,4}}[)\]}}）]|(?i:&(?:#64|#x40|commat);)"
_ESCAPED = r"\\u"
"""A sign by its number: it may stand for any other."""
_MAY_HOLD = re2.compile("|".join(("[@＠]", _ESCAPED, _NUMBER, _KEY, _NAME, _IPV6, _SPELLED_AT, SEED_PHRASE)))


def may_hold(line: str) -> bool:
    """Whether a row, as canonical JSON, may hold personal data; if not, `Finder.find` finds none in any text of it."""
    return _MAY_HOLD.search(line) is not None
