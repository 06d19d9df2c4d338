"""Durations: what is read, and what the API server's rule about them says of the same text."""

import re
from itertools import product

import pytest

from hone_api.blocks.placement import A_MINUTE
from hone_operator.times import LONGEST_SECONDS, duration_seconds

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("1m30s", 90),
        ("007m", 420),
        ("2d", 172800),
        ("30s30s", 60),
        ("0h", 0),
        ("9999999d", LONGEST_SECONDS),
    ],
)
def test_a_duration_is_read_in_all_its_units(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds


def test_the_rule_knows_a_minute_in_any_unit() -> None:
    numbers = ("0", "1", "9", "00", "05", "59", "60", "059", "060", "99", "100", "0100", "1000")
    parts = [number + unit for number in numbers for unit in "smhd"]
    for texts in [*product(parts), *product(parts, [p for p in parts if not p.endswith("s")])]:
        text = "".join(texts)
        assert bool(re.search(A_MINUTE, text)) == (duration_seconds(text) >= 60), text
