"""Texts of a row as words: what two rows have in common, whatever their spacing, case and Unicode form."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: there each character counts as a word."""
_MARKS = "".join(chr(code) for code in range(0x300, 0xE00) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
"""Vowels and other marks of Hebrew, Arabic, Devanagari, Tamil …: parts of a word, although \\w excludes them."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:[{_MARKS}]+[^\W{_UNSPACED}]*)*")
_ACCENTS = re.compile("[\u0300-\u036f]")
"""Marks of the Latin, Greek and Cyrillic scripts only: in other scripts a mark can be a vowel."""
_ASCII_BLANKS = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")}
"""Faster than the pattern, for the text that most rows are: three times."""
_FOLDED = bytes(32 if code and chr(code).isspace() else ord(chr(code).lower()) for code in range(128)) + bytes(128)
"""Letters of ASCII without case, and each white space as a blank."""


def normalised(text: str) -> str:
    """The text in one Unicode form (NFKC), without case, each white space one blank."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split())


def all_normalised(texts: Sequence[str]) -> list[bytes]:
    """`normalised` of each, in UTF-8; faster, for texts without NUL."""
    others = [at for at, text in enumerate(texts) if not text.isascii()]
    apart = dict.fromkeys(others, "")
    whole = "\0".join([apart.get(at, text) for at, text in enumerate(texts)] if others else texts)
    parts = _without_blanks(b"\0%b\0" % whole.encode().translate(_FOLDED))[1:-1].split(b"\0")
    for at in others:
        parts[at] = normalised(texts[at]).encode()
    return parts


def _without_blanks(texts: bytes) -> bytes:
    """Texts between NULs without blanks at their ends and after blanks."""
    if b"  " not in texts and b" \0" not in texts and b"\0 " not in texts:
        return texts
    import numpy

    letters = numpy.frombuffer(texts, numpy.uint8)
    is_blank = letters == ord(" ")
    is_blank[1:] &= (is_blank | (letters == 0))[:-1]
    kept: bytes = letters[~is_blank].tobytes()
    return kept.replace(b" \0", b"\0")


def split_words(text: str) -> list[str]:
    """Words of the text in small letters, without punctuation."""
    if text.isascii():
        return text.lower().translate(_ASCII_BLANKS).split()
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def unaccented(text: str) -> str:
    """The text without accents: many write `que es` for `qué es`."""
    return text if text.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFD", text))


def ngrams(words: list[str], length: int) -> list[str]:
    """Each run of so many words, joined by blanks; a shorter text is one n-gram."""
    if len(words) <= length:
        return [" ".join(words)]
    return list(map(" ".join, zip(*(words[at:] for at in range(length)), strict=False)))


def jaccard(left: set[str], right: set[str]) -> float:
    """Share of what either has that both have."""
    both = len(left & right)
    return both / (len(left) + len(right) - both)
