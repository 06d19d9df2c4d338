"""Personal data in a text: where it is and of what kind.

Libraries decide wherever one is kept for it: phonenumbers knows the numbers of each country, schwifty checks IBANs,
Kingfisher has the keys of some 480 services. What they cost is spent on few texts: a cheap test for digits, an @ or a
long word comes first.

Bare runs of digits count only as cards, or next to a word such as "tel.": order numbers and times look like the rest.
Names and addresses of people are not found: that takes a language model, and misses many all the same.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Collection

from hone_api.dataset.curation import PHONE_REGIONS, PersonalData
from hone_trainer.datasets.pii import emails, ibans, keys, numbers, phones
from hone_trainer.datasets.pii.plain import plain
from hone_trainer.datasets.pii.span import PersonalSpan

__all__ = ["MARKS", "Finder", "PersonalSpan", "redact"]

MARKS = {
    PersonalData.EMAIL: "[EMAIL]",
    PersonalData.PHONE: "[PHONE]",
    PersonalData.CREDIT_CARD: "[CREDIT_CARD]",
    PersonalData.IBAN: "[IBAN]",
    PersonalData.IP_ADDRESS: "[IP_ADDRESS]",
    PersonalData.SSN: "[SSN]",
    PersonalData.SECRET: "[SECRET]",
}
_NUMBER = re.compile(r"\d[\d\s().\-/]{5,}\d")
"""The shortest of all numbers that are looked for, 8.8.8.8, and every longer one but IPv6."""


class Finder:
    """Finds personal data of the kinds, and phone numbers as the regions (ISO 3166 codes) write them at home."""

    def __init__(
        self, kinds: Collection[PersonalData] = tuple(PersonalData), regions: Collection[str] = PHONE_REGIONS
    ) -> None:
        self._kinds = frozenset(kinds)
        self._regions = tuple(regions)

    def find(self, text: str) -> list[PersonalSpan]:
        """What the text holds, in order and without overlap: a secret counts first, then the longer one."""
        text = plain(text)
        matches: list[PersonalSpan] = []
        if PersonalData.EMAIL in self._kinds and "@" in text:
            matches += emails.find(text)
        if PersonalData.EMAIL in self._kinds and any(sign in text for sign in "([{&"):
            matches += emails.find_spelled(text)
        if PersonalData.SECRET in self._kinds:
            matches += keys.find(text)
        matches += self._numbers(text)
        return _without_overlaps(matches) if matches else matches

    def _numbers(self, text: str) -> list[PersonalSpan]:
        places = [match.span() for match in _NUMBER.finditer(text)]
        matches = [*numbers.addresses(text, places)] if PersonalData.IP_ADDRESS in self._kinds else []
        if not places:
            return matches
        matches += numbers.cards_and_ssns(text, places, self._kinds)
        if PersonalData.IBAN in self._kinds:
            matches += ibans.find(text)
        if PersonalData.PHONE in self._kinds:
            matches += phones.find(text, places, self._regions)
        return matches


def redact(text: str, matches: list[PersonalSpan]) -> str:
    """The text with a placeholder for each."""
    parts, at = [], 0
    for start, end, kind in matches:
        parts += [text[at:start], MARKS[kind]]
        at = end
    return "".join([*parts, text[at:]])


def _without_overlaps(matches: list[PersonalSpan]) -> list[PersonalSpan]:
    apart: list[PersonalSpan] = []
    """In order, so that only two can overlap with one more: a text may hold a hundred thousand addresses."""
    for one in sorted(matches, key=lambda f: (f.kind != PersonalData.SECRET, f.start - f.end)):
        at = bisect(apart, one)
        if (at == 0 or apart[at - 1].end <= one.start) and (at == len(apart) or one.end <= apart[at].start):
            apart.insert(at, one)
    return apart
