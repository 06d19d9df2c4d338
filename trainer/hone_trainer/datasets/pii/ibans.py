"""IBANs, checked by schwifty."""

from __future__ import annotations

import re
from collections.abc import Iterator

import re2

from hone_api.dataset.curation import PersonalData
from hone_trainer.datasets.pii.span import PersonalSpan

_IBAN = re.compile(r"(?<![^\W_])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_MAY_BE_IBAN = re2.compile(r"\b[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11}")
_SHORTEST = 15


def find(text: str) -> Iterator[PersonalSpan]:
    """IBANs in capitals or not, compact or in groups by blanks or dashes."""
    if not _MAY_BE_IBAN.search(text):
        return
    at = 0
    while match := _IBAN.search(text, at):
        at = match.start() + 2  # what looks like more of a number may be the next one
        # A word after the number looks like more of it.
        for end in range(match.end(), match.start() + _SHORTEST - 1, -1):
            ends = end == len(text) or not text[end].isalnum()
            if ends and text[end - 1].isalnum() and _is_iban(text[match.start() : end]):
                yield PersonalSpan(match.start(), end, PersonalData.IBAN)
                at = end
                break


def _is_iban(text: str) -> bool:
    from schwifty import IBAN
    from schwifty.exceptions import SchwiftyException

    try:
        IBAN(text.replace("-", "").upper())
    except SchwiftyException:
        return False
    return True
