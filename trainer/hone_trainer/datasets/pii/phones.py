"""Phone numbers: in international form those of every country, in national form those of some regions.

phonenumbers decides what is a number. Its own search through a text takes half of the time of all personal data and
finds columns of logs, so only what looks like a number is shown to it: groups of digits with one sign between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from hone_api.dataset.curation import PersonalData
from hone_trainer.datasets.pii.span import PersonalSpan, Places

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_WORD = r"0-9A-Za-z_\u00c0-\u04ff"
"""Signs of words; those of scripts without blanks may touch a number."""
_BEFORE = rf"(?<![{_WORD}.,/+\-@#])"
_AFTER = rf"(?![{_WORD}%€$£¥円元원万億年月日]|[.,:\-/+][{_WORD}]| ?[%€$£])"
_NUMBER = re.compile(
    rf"{_BEFORE}(?:(?<!\d )|(?=\+))"
    r"(?:\+ ?)?\(?\d(?:\d|(?:[ .\-]| ?/ ?|\) ?| ?\(|\) ?/ ?)(?=\d)){5,24}\d"
    rf"{_AFTER}(?! ?\d)"
)
_ONE_OF_SEVERAL = re.compile(rf"{_BEFORE}(?:\(\d{{2,5}}\) ?|\d{{2,5}}[/-])\d{{2,8}}(?:-\d{{2,8}}){{0,3}}{_AFTER}")
"""Of several numbers with one blank between them: they look like one that is too long."""
_NORTH_AMERICA = 1
_FEWEST, _MOST = 7, 15
"""Digits of a number with its area; E.164 allows 15."""
_DATE = re.compile(r"(?<!\d)(?:\d{1,2}[./-]\d{1,2}[./-](?:19|20)\d\d|(?:19|20)\d\d[./-]\d{1,2}[./-]\d{1,2})(?!\d)")
_NO_NUMBER = re.compile(
    r"\d{1,3}(?:\.\d{1,3}){3}|\d{3}-\d\d-\d{4}|\d{5}-\d{4}|\d{4}-\d\d-\d\d|(?:\d+\.)*\d\.\d.*|.*\.\d"
)
"""IP addresses, US social security numbers and ZIP codes, dates of any year, versions and decimals."""
_WORD_BEFORE = re.compile(
    r"\b(?:tel|tél|phone|telephone|téléphone|telefon\w*|teléfono|fax|mobil\w*|móvil\w*|cell|handy|portable|rufnummer"
    r"|whatsapp|sms|call|dial|(?:my|mi|meine|mon) n[uúo]\w+|ll[aá]m\w+|appel\w+|anruf\w*|ruf\w*)\b[^\d\n]{0,16}\Z",
    re.IGNORECASE,
)
_NAMED_BEFORE = re.compile(r"\b(?:isbn|issn|ean|order|id|invoice|ticket|nr|no|number)\b[^\d\n]{0,8}\Z", re.IGNORECASE)


def find(text: str, places: Places, regions: Sequence[str]) -> Iterator[PersonalSpan]:
    """Numbers in international form, and as people of the regions write them at home."""
    for match in _candidates(text, places):
        start, raw = match.start(), match[0]
        if raw[0] == "(" and ")" not in raw:
            if raw[1] != "0" and text[match.end() : match.end() + 1] != ")":
                continue
            start, raw = start + 1, raw[1:]  # as in: Anna (0171 2345678)
        if text[start - 1 : start] in (":", "=") and start and not _is_named(text, start, raw):
            continue
        digits = "".join(filter(str.isdigit, raw))
        if not _FEWEST <= len(digits) <= _MOST or _DATE.search(raw) or _NO_NUMBER.fullmatch(raw):
            continue
        if raw.startswith(("+", "00")):
            good = _is_international("+" + digits.removeprefix("00"))
        else:
            good = any(_is_national(text, start, raw, digits, region) for region in regions)
        if good:
            yield PersonalSpan(start, match.end(), PersonalData.PHONE)


def _is_named(text: str, start: int, raw: str) -> bool:
    """Whether what touches a colon or an equals sign is a number of a phone, and no part of a time or a port."""
    return raw[0] == "+" or _WORD_BEFORE.search(text[max(0, start - 32) : start]) is not None


def _candidates(text: str, places: Places) -> Iterator[re.Match[str]]:
    for start, end in places:
        # A little more at both ends: the context of a number matters.
        yield from _NUMBER.finditer(text, max(0, start - 3), end + 4)
        if end - start > _MOST:
            yield from _ONE_OF_SEVERAL.finditer(text, max(0, start - 1), end + 2)


def _is_international(number: str) -> bool:
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number)))
    except phonenumbers.NumberParseException:
        return False


def _is_national(text: str, start: int, raw: str, digits: str, region: str) -> bool:
    """Whether the region has the number, and raw is written as a number is."""
    import phonenumbers

    try:
        number = phonenumbers.parse(raw, region)
    except phonenumbers.NumberParseException:
        return False
    if (raw[0] == "0" and not raw[1].isdigit()) or raw.count("(") != raw.count(")"):
        return False
    if not digits.startswith(_trunk(region)) or not _is_of(number, region):
        return False
    before = text[max(0, start - 32) : start]
    if raw.isdigit():
        kind = phonenumbers.number_type(number)
        is_mobile = digits[0] == "0" and kind == phonenumbers.PhoneNumberType.MOBILE
        return bool(_WORD_BEFORE.search(before)) or (is_mobile and not _NAMED_BEFORE.search(before))
    if "." in raw and (raw.count(".") < 2 or len({sign for sign in raw if not sign.isdigit()}) > 1):
        return False  # decimals
    return raw[0] in "0(" or _is_grouped(raw, region)


def _is_of(number: PhoneNumber, region: str) -> bool:
    """Whether it is valid, and of the region or dialled as its numbers are, as those of Guernsey are in Britain."""
    import phonenumbers

    if number.country_code == _NORTH_AMERICA:
        return bool(phonenumbers.is_valid_number_for_region(number, region))
    return bool(phonenumbers.is_valid_number(number))


@cache
def _trunk(region: str) -> str:
    """What a national number begins with: 0 in most countries. The 1 of North America is mostly left out."""
    from phonenumbers import ndd_prefix_for_region

    prefix = ndd_prefix_for_region(region, True) or ""
    return "" if prefix == "1" else str(prefix)


def _is_grouped(raw: str, region: str) -> bool:
    """Whether the digits stand in the groups that the region has."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    return PhoneNumberMatcher(raw, region, leniency=Leniency.STRICT_GROUPING).has_next()
