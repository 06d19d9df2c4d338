"""What the card of a repository says."""

from __future__ import annotations

from typing import Any

import pytest

from hone_trainer.store import hub_card

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ({"license": "apache-2.0"}, "apache-2.0"),
        ({"license": "other", "license_name": "qwen-research"}, "qwen-research"),
        ({"license_name": "own"}, "own"),
        ({"license": "other"}, "other"),
        ({"license": ["mit", "cc-by-4.0"]}, "mit, cc-by-4.0"),
        ({"license": "x\n" * 200}, ("x " * 200)[:253]),
        ({"license": {"a": 1}}, None),
        ({"license": True}, None),
        ({}, None),
    ],
)
def test_the_licence_is_one_line(card: dict[str, Any], licence: str | None) -> None:
    assert hub_card.licence(card) == licence
