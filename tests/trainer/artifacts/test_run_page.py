"""The page of a run: what it shows, and that nothing of a row or an answer can act in it."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from typing import Any

import pytest
from support.pages.model_report import CURVES, EVALUATED, EVIL, REPORT

from hone_trainer.artifacts import plots, run_page
from hone_trainer.methods import sft

pytestmark = pytest.mark.trainer


class Page(HTMLParser):
    """Tags that were opened, with their classes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs).get("class") or ""))

    def handle_data(self, data: str) -> None:
        self.text += data


def render(**changes: Any) -> Page:
    return Page(run_page.render({**REPORT, **changes}, [*CURVES, *EVALUATED], sft.METHOD))


def test_nothing_of_a_row_acts() -> None:
    found = render()
    assert "script" not in {tag for tag, _ in found.tags}
    assert found.text.count(EVIL) == 13, "title, heading, six commands, prompt, answer, data, mask, advice"


def test_a_change_beyond_chance_is_coloured_by_the_good_end_of_its_metric() -> None:
    cells = [style for tag, style in render().tags if tag == "td" and style.startswith("n")]
    assert cells[3::5][:3] == ["n good", "n bad", "n "]


@pytest.mark.parametrize(("name", "verdict"), [("acc", "n good"), ("word_perplexity", "n bad")])
def test_a_task_of_the_harness_has_its_own_good_end(name: str, verdict: str) -> None:
    number = {**REPORT["numbers"][0], "name": name, "dataset": "wikitext", "purpose": "Harness"}
    number |= {"changeLow": "0.1", "changeHigh": "0.2"}
    found = render(numbers=[number])
    cells = [style for tag, style in found.tags if tag == "td" and style.startswith("n")]
    assert cells[3] == verdict
    assert f"{name} lm-evaluation-harness" in found.text


def test_numbers_have_four_significant_digits() -> None:
    found = render()
    row = ["3.000", "2.500", "2.400 to 2.600", "−0.5000", "−0.6000 to −0.4000"]
    assert "".join(row) in "".join(found.text.split("\n")[0:]).replace("\n", "")


def test_an_answer_that_loops_has_a_mark() -> None:
    sample = {"prompt": "?", "base": "b", "tuned": "a a a", "tunedEnding": "Repeats", "baseEnding": "Cut"}
    found = render(samples=[sample])
    assert [style for tag, style in found.tags if style.startswith("flag")] == ["flag cut", "flag"]
    assert "tuned loops: repeats itself to the end" in found.text
    assert not [style for _, style in render().tags if style.startswith("flag")]


def test_the_verdict_and_the_cards_come_first_and_warnings_before_everything_else() -> None:
    found = render()
    parts = ["Better than the base.", "2 GPUs", "2,400", "Warnings", "What to do next", "What changed", "Curves"]
    places = [found.text.index(part) for part in parts]
    assert places == sorted(places)
    assert ("div", "verdict warned") in found.tags
    assert ("div", "verdict ") in render(advice=[]).tags


def test_curves_of_training_and_held_out_rows_stand_in_one_figure() -> None:
    found = render()
    lines = [style for tag, style in found.tags if tag == "polyline"]
    assert lines == ["train", "held", "held", "train", "train"], "loss twice, token accuracy, norm, rate"


def test_a_rejected_model_says_so() -> None:
    assert ("div", "verdict no") in render(rejected="worse").tags
    assert "Rejected. worse" in render(rejected="worse").text


def test_without_held_out_rows_the_page_says_that_nothing_was_measured() -> None:
    assert "nothing was measured" in render(numbers=[], samples=[], interpolation=[]).text


def test_points_that_are_not_finite_are_left_out_and_one_point_is_no_curve() -> None:
    made = plots.plot({"a": [(1, 1.0), (2, math.nan), (3, 2.0)], "b": [(1, 1.0)]}, plots.Size(640, 240))
    assert made is not None
    assert made.lines == {"a": "56.0,216.0 624.0,10.0"}
    assert [label for _, label in made.y_ticks] == ["1.00", "1.25", "1.50", "1.75", "2.00"]
    assert [label for _, label in made.x_ticks] == ["1", "2", "3"]
    assert plots.plot({"a": [(1, 5.0)]}) is None


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (2.41, 3.935, ["2.0", "2.5", "3.0", "3.5", "4.0"]),
        (0.0, 60.0, ["0", "20", "40", "60"]),
        (0.507, 0.549, ["0.50", "0.52", "0.54", "0.56"]),
        (-1.2, 0.3, ["-1.5", "-1.0", "-0.5", "0.0", "0.5"]),
        (1e-6, 2e-4, ["0", "5e-05", "0.0001", "0.00015", "0.0002"]),
        (12000.0, 47000.0, ["10,000", "20,000", "30,000", "40,000", "50,000"]),
        (3.0, 3.0, ["1", "2", "3", "4", "5"]),
        (0.0, 0.0, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_axes_end_on_round_numbers_around_every_value(low: float, high: float, labels: list[str]) -> None:
    ticks = plots.around(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert plots.labels(ticks) == labels


def test_steps_are_whole_and_round() -> None:
    assert plots.steps(0, 60) == [0, 20, 40, 60]
    assert plots.steps(1, 3) == [1, 2, 3]
    assert plots.steps(12, 1189) == [500, 1000]
