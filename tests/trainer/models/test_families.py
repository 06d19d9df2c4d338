"""Families of models from training to serving: what the page says of each is what happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.models import serving_families
from support.models.families import FAMILIES, row, rows_of_page, start_of_row

pytestmark = pytest.mark.trainer
AGAIN = "run PYTHONPATH=tests python -m support.models.families"
SAMPLE = ["qwen3_moe"]
"""vLLM serves adapters of a Llama in tests/trainer/methods/test_vllm.py."""


def test_the_page_has_every_family_with_its_layers() -> None:
    rows = rows_of_page()
    assert list(rows) == list(FAMILIES), AGAIN
    for family in FAMILIES:
        assert rows[family].startswith(start_of_row(family)), AGAIN


@pytest.mark.parametrize("names", [SAMPLE, pytest.param(list(FAMILIES), marks=pytest.mark.long)], ids=["some", "all"])
def test_families_are_trained_exported_and_served_as_the_page_says(names: list[str], tmp_path: Path) -> None:
    seen, rows = serving_families.look(names, tmp_path), rows_of_page()
    for family in names:
        assert row(family, seen[family]) == rows[family], AGAIN


EXPECTED = {"log_probs": [[-1.0, -0.5], [-0.1, -3.0]], "tokens": [1, 0]}
ANSWER = {"log_probs": [{"1": -0.5}, {"0": -0.1}], "tokens": [1, 0]}


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (ANSWER, "works"),
        ({**ANSWER, "log_probs": [{"1": -0.5}, {"0": -0.2}]}, "same tokens, a log-probability is off by 0.1"),
        ({**ANSWER, "tokens": [1, 1]}, "goes on with other tokens"),
        ({"refused": "ValueError no"}, "refused: ValueError no"),
    ],
)
def test_a_wrong_answer_does_not_work(seen: dict[str, Any], words: str) -> None:
    assert serving_families.verdict(seen, EXPECTED) == words
