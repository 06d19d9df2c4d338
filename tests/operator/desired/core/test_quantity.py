"""Quantities: whatever the definitions' own pattern takes has a value."""

from __future__ import annotations

import random
import re
from decimal import Decimal

import pytest

from hone_api.base.quantity import value
from hone_api.blocks.placement import Resources
from hone_operator.desired.core.quantity import threads

pytestmark = pytest.mark.pure
PATTERN = Resources.model_json_schema()["properties"]["memory"]["pattern"]
UNITS = re.search(r"\(m\|(.*)\)\?\$", PATTERN)[1].split("|")


def generated(count: int) -> list[str]:
    """Strings of the pattern: digits, perhaps a fraction, perhaps a unit."""
    chance = random.Random(7)
    digits = ["0", "1", "007", "2097152", "9" * 12]
    out = []
    for _ in range(count):
        whole, part = chance.choice(digits), chance.choice(["", ".0", ".5", ".125", f".{chance.randrange(10**6)}"])
        out.append(f"{whole}{part}{chance.choice(['', 'm', *UNITS])}"[:24])
    return [text for text in out if re.fullmatch(PATTERN, text)]


def test_the_pattern_has_every_unit() -> None:
    assert set(UNITS) == {"k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}


@pytest.mark.parametrize("unit", ["", "m", *UNITS])
def test_every_unit_has_a_value(unit: str) -> None:
    assert value(f"2{unit}") == 2 * value(f"1{unit}") > 0


def test_whatever_the_pattern_takes_has_a_value() -> None:
    texts = generated(3000)
    assert len(texts) > 2000
    for text in texts:
        assert value(text) >= 0
        assert isinstance(value(text), Decimal)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2097152Ki", 2 * 2**30),
        ("1.5Gi", 1.5 * 2**30),
        ("500m", Decimal("0.5")),
        ("1k", 1000),
        ("1E", 10**18),
        ("0", 0),
    ],
)
def test_known_values(text: str, number: object) -> None:
    assert value(text) == number


def test_threads_of_a_small_request() -> None:
    assert threads("100m", 1) == 1
    assert threads("8", 2) == 4
    assert threads("1499m", 1) == 1
    assert threads("8", 3) == 2


def test_half_a_core_makes_a_thread() -> None:
    assert threads("1500m", 1) == 2
    assert threads("1500m", 2) == 1
    assert threads("500m", 1) == 1
