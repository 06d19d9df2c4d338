"""What is found in a text."""

from __future__ import annotations

from typing import NamedTuple

from hone_api.dataset.curation import PersonalData

Places = list[tuple[int, int]]
"""Where digits stand, with blanks, points, dashes and brackets between them: text[start:end] each."""


class PersonalSpan(NamedTuple):
    """Personal data at text[start:end]."""

    start: int
    end: int
    kind: PersonalData
