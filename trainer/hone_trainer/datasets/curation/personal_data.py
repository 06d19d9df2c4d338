"""Personal data: redacted in the row, or the row is removed; messages about rows never contain it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hone_api.dataset.curation import PHONE_REGIONS, PersonalData
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import CuratedRow, Each
from hone_trainer.datasets.pii import Finder, redact
from hone_trainer.datasets.pii.first_look import may_hold
from hone_trainer.datasets.texts.texts import ValidRow
from hone_trainer.errors import ConfigError

_SHORTEST, _SHORTEST_IBAN = len("a@b.de"), 15
_SMALLEST_CARD = 10**13
_QUOTED = re.compile(r"'[^'\n]*'?")
_PART = re.compile(r"@|\d{5}")


def step(plan: MaterializePlan) -> Each | None:
    """The step that curation.personalData asks for.

    Raises:
        ConfigError: a region of curation.phoneRegions has no phone numbers.
    """
    finder = _finder(plan)
    refuse = plan.curation.personal_data == "Refuse"
    return Each(lambda row: _judge(row, finder, refuse)) if finder else None


def redacted(value: Any, plan: MaterializePlan) -> Any:
    """A raw value, such as that of a rejected row, without what curation.personalData leaves out."""
    finder = _finder(plan)
    return _Redaction(finder).of(value) if finder else value


def redact_message(message: str, plan: MaterializePlan) -> str:
    """A message about a row without personal data, even where it quotes the beginning of a value."""
    if plan.curation.personal_data == "Keep":
        return message
    clean: str = redacted(message, plan)
    return _QUOTED.sub(lambda quoted: "'…'" if _PART.search(quoted[0]) else quoted[0], clean)


def _finder(plan: MaterializePlan) -> Finder | None:
    settings = plan.curation
    if settings.personal_data == "Keep":
        return None
    regions = PHONE_REGIONS if settings.phone_regions is None else settings.phone_regions
    return _finder_of(tuple(settings.personal_data_types or PersonalData), tuple(regions))


@lru_cache(maxsize=1)
def _finder_of(kinds: Sequence[PersonalData], regions: Sequence[str]) -> Finder:
    from phonenumbers import SUPPORTED_REGIONS

    if unknown := [region for region in regions if region not in SUPPORTED_REGIONS]:
        raise ConfigError(f"curation.phoneRegions: {', '.join(unknown)} has no phone numbers: name countries, e.g. DE")
    return Finder(kinds, regions)


def _judge(row: ValidRow, finder: Finder, refuse: bool) -> CuratedRow:
    if not may_hold(row.line):
        return CuratedRow(row)
    redaction = _Redaction(finder)
    record = redaction.of(row.record)
    if not redaction.counts:
        return CuratedRow(row)
    holds = "holds " + ", ".join(f"{count} {kind}" for kind, count in sorted(redaction.counts.items()))
    # A removed row is kept for people to inspect, also without the data.
    clean = row.altered(record)
    return CuratedRow(clean, removed=holds) if refuse else CuratedRow(clean, changed=holds)


class _Redaction:
    """Values without personal data: every text in them, ids and the names of columns, tools and arguments included."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self.counts: Counter[PersonalData] = Counter()

    def of(self, value: Any) -> Any:
        """The value; the same object where it holds none."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list):
            items = [self.of(inner) for inner in value]
            return value if all(a is b for a, b in zip(items, value, strict=True)) else items
        if isinstance(value, int) and value >= _SMALLEST_CARD:
            text = str(value)
            return value if (clean := self._text(text)) is text else clean
        return value

    def _text(self, text: str) -> str:
        if len(text) < _SHORTEST or (len(text) < _SHORTEST_IBAN and text.isidentifier()):
            return text  # role, content, assistant: most strings of a row are words of its format
        matches = self._finder.find(text)
        if not matches:
            return text
        self.counts.update(one.kind for one in matches)
        return redact(text, matches)

    def _object(self, value: dict[Any, Any]) -> dict[Any, Any]:
        cleaned: dict[Any, Any] = {}
        for key, inner in value.items():
            name = self.of(key)
            if name is not key:
                name = _free(name, cleaned.keys() | value.keys())
            cleaned[name] = self.of(inner)
        return value if all(cleaned.get(key) is value[key] for key in value) else cleaned


def _free(name: str, taken: Any) -> str:
    """The name, with a number where another key has become the same."""
    if name not in taken:
        return name
    return next(new for number in range(2, len(taken) + 3) if (new := f"{name} {number}") not in taken)
