"""E-mail addresses, in any alphabet (RFC 6531), by the @ in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hone_api.dataset.curation import PersonalData
from hone_trainer.datasets.pii.span import PersonalSpan

_LONGEST_LOCAL, _LONGEST_DOMAIN = 64, 253
"""RFC 5321; they also bound the time that a text takes."""
_LOCAL = re.compile(r"[\w!#$%&'*+/=?^`|~-](?:[\w.!#$%&'*+/=?^`|~-]*[\w!#$%&'*+/=?^`|~-])?\Z")
_WORD = re.compile(r"\w")
_DOMAIN = re.compile(
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+"
    r"(?:[a-z]{2,63}(?![a-z0-9_\u00c0-\u04ff-])|(?:xn--[a-z0-9-]+|[^\W\d_]{2,63})(?![\w-]))",
    re.IGNORECASE,
)
"""After .com may follow a word of a script without blanks."""
_QUOTED = re.compile(r"\"[\w .+-]{1,62}\"\Z")
_AT_ADDRESS = re.compile(r"\[\d{1,3}(?:\.\d{1,3}){3}\]")
_SPELLED = re.compile(r"[(\[{] ?(?:at|arroba|ät) ?[)\]}] ?|&(?:#64|#x40|commat);", re.IGNORECASE)
"""The sign in words, as in name (at) example.org, or as HTML. Without brackets it is prose."""
_SPELLED_DOMAIN = re.compile(
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?(?:\.| ?[(\[{] ?(?:dot|punkt|punto|point|\.) ?[)\]}] ?)){1,8}"
    r"(?:xn--[a-z0-9-]+|[^\W\d_]{2,63})(?![\w(-])",
    re.IGNORECASE,
)
_PATH = re.compile(r":[^\s:]*/")
_OPENING = "'`*|/=#"
"""Signs that an address may have, but more likely has before it: quotes, Markdown, a URL, an assignment."""


def find(text: str) -> Iterator[PersonalSpan]:
    """Addresses of people: neither git@host:path nor the user of a URL, as in https://user@host, is one."""
    at = text.find("@")
    while at >= 0:
        if match := _around(text, at):
            yield match
        at = text.find("@", at + 1)


def find_spelled(text: str) -> Iterator[PersonalSpan]:
    """Addresses that are written to be read by people alone: name (at) example (dot) org."""
    for sign in _SPELLED.finditer(text):
        start, end = sign.span()
        start -= text.endswith(" ", 0, start)
        local = _LOCAL.search(text, max(0, start - _LONGEST_LOCAL), start)
        domain = _SPELLED_DOMAIN.match(text, end, end + _LONGEST_DOMAIN)
        if local and domain and _WORD.search(local[0]):
            yield PersonalSpan(local.start(), domain.end(), PersonalData.EMAIL)


def _around(text: str, at: int) -> PersonalSpan | None:
    start = max(0, at - _LONGEST_LOCAL)
    local = _LOCAL.search(text, start, at)
    domain = _DOMAIN.match(text, at + 1, at + 1 + _LONGEST_DOMAIN) or _AT_ADDRESS.match(text, at + 1)
    if domain and (quoted := _QUOTED.search(text, start, at)):
        return PersonalSpan(quoted.start(), domain.end(), PersonalData.EMAIL)
    if not local or not domain:
        return None
    written = local[0]
    start = at - len(written) + max(written.rfind(sign) + 1 for sign in _OPENING)
    if not _WORD.search(text, start, at) or (text[start - 1 : start] in ("}", "$") and start):
        return None
    if text[max(0, start - 3) : start] == "://" or (text[start - 1 : start] == ":" and _is_url_user(text, start)):
        return None
    if _PATH.match(text, domain.end()):
        return None
    return PersonalSpan(start, domain.end(), PersonalData.EMAIL)


def _is_url_user(text: str, start: int) -> bool:
    """Whether text[start:] is the password of a URL: user:password@host."""
    return re.search(r"://[^\s/@]*:\Z", text[max(0, start - 2 * _LONGEST_LOCAL) : start]) is not None
