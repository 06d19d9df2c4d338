"""The picture of the README: drawn from an artifact, and the one that is committed."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hone_dev.generate import picture

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[3]
SVG = "{http://www.w3.org/2000/svg}"
CURVES = [
    {"step": 0, "eval_loss": 4.0},
    {"step": 1, "loss": 3.5, "grad_norm": 2.0},
    {"step": 2, "loss": 3.0},
    {"step": 2, "eval_loss": 2.5},
]
LOSS = {"name": "loss", "purpose": "HeldOut", "rows": 60, "changeLow": "-1.6", "changeHigh": "-1.4"}
REPORT: dict[str, Any] = {
    "plan": {
        "method": "SFT",
        "modelUri": "hf://owner/small",
        "adapter": {"type": "LoRA"},
        "output": {"modelName": "tutor"},
    },
    "steps": 2,
    "numbers": [{**LOSS, "base": "4.0", "tuned": "2.5"}],
    "samples": [
        {"prompt": "Is 1 < 2?", "base": "I think that " * 100, "tuned": "Yes & no", "reference": "Yes"},
        {"prompt": "And 3?", "base": "3", "tuned": "four"},
    ],
}


def words(svg: str) -> str:
    return " ".join(text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text"))


def test_it_shows_what_the_artifact_holds() -> None:
    svg = picture.render(REPORT, CURVES)
    shown = words(svg)
    assert "tutor: small after 2 steps of SFT (LoRA)" in shown
    assert "60 held-out rows: 4.00 before training, 2.50 after. 95 % interval of the change: -1.60 to -1.40" in shown
    assert "Is 1 < 2?" in shown
    assert "Yes & no" in shown
    lines = {line.get("class"): line.get("points", "") for line in ElementTree.fromstring(svg).iter(f"{SVG}polyline")}
    assert {name: len(points.split()) for name, points in lines.items()} == {"train": 2, "held": 2}


def test_it_says_how_many_answers_are_right_where_that_was_measured() -> None:
    right = {"name": "exact_match", "purpose": "HeldOut", "rows": 24, "base": "0.041667", "tuned": "0.958333"}
    shown = words(picture.render({**REPORT, "numbers": [*REPORT["numbers"], right]}, CURVES))
    assert "Right answers: 4% before, 96% after. Loss on 60 held-out rows" in shown
    assert "Right answers" not in words(picture.render(REPORT, CURVES))


def test_another_answer_can_be_chosen_and_long_ones_are_cut_with_a_mark() -> None:
    assert "four" in words(picture.render(REPORT, CURVES, sample=1))
    assert "think …" in words(picture.render(REPORT, CURVES))


def test_cards_hold_their_lines_and_the_page_its_cards() -> None:
    page = ElementTree.fromstring(picture.render(REPORT, CURVES))
    height = float(page.get("height", "0"))
    cards = [rect for rect in page.iter(f"{SVG}rect") if rect.get("class") == "card"]
    assert len(cards) == 4
    assert all(float(card.get("y", "0")) + float(card.get("height", "0")) < height for card in cards)
    assert all(float(text.get("y", "0")) < height for text in page.iter(f"{SVG}text"))


def test_the_readme_shows_one_that_was_drawn_by_this_program() -> None:
    (name,) = re.findall(r"!\[[^\]]+\]\((docs/images/[\w-]+\.svg)\)", (ROOT / "README.md").read_text())
    shown = words((ROOT / name).read_text())
    assert re.search(r"Loss on \d+ held-out rows: \d\.\d\d before training, \d\.\d\d after", shown)
    assert "Tuned model" in shown
