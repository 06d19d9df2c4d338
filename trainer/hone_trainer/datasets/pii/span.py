"""What is found in a text."""

from __future__ import annotations

from typing import NamedTuple

from hone_api.curation import PersonalData


class Found(NamedTuple):
    """Personal data at text[start:end]."""

    start: int
    end: int
    kind: PersonalData
