"""How answers end: a loop and an endless answer are found, marked and warned of; a good answer is not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hone_api.kinds.modelversion import AnsweredPrompt
from hone_trainer.artifacts import model_card
from hone_trainer.scoring import endings
from hone_trainer.scoring.endings import Answer

pytestmark = pytest.mark.trainer
END = 2
WORDS = [40, 41, 42, 43]


@pytest.mark.parametrize(
    ("ids", "ending"),
    [
        ([*range(10, 30), END], None),
        ([END], None),
        ([9, 8, 7, *WORDS * 5], "Repeats"),
        ([9, 8, 7, *WORDS * 5, 40, 41], "Repeats"),
        ([9, 8, 7, *WORDS * 5, END], "Repeats"),
        ([5] * 16, "Repeats"),
        ([5] * 15, None),
        ([*WORDS * 3, END], None),
        ([*WORDS * 5, 9, END], None),
        ([*range(100, 140), *range(100, 140), END], None),
        (list(range(10, 58)), None),
        (list(range(10, 106)), "Cut"),
    ],
    ids=[
        "ends",
        "empty",
        "loop",
        "in the middle of a round",
        "loop with an end",
        "one token",
        "too short for a loop",
        "three short rounds",
        "goes on after the loop",
        "two rounds",
        "below the limit",
        "at the limit",
    ],
)
def test_how_an_answer_ended(ids: list[int], ending: str | None) -> None:
    assert endings.ending_of(ids, frozenset({END}), 96) == ending


def test_what_loops_or_does_not_end_is_warned_of_with_its_place() -> None:
    good, loop, cut = Answer("a"), Answer("a a a", "Repeats"), Answer("a b", "Cut")
    (looping,) = endings.sentences([loop, good, loop], [good, good, loop], [5, 5, 5], 96)
    assert looping.startswith("2 of 3 sample answers loop (in the report: 1, 3; of the base model 1)")
    (endless,) = endings.sentences([good, cut], None, [5, 5], 96)
    assert endless.startswith("1 of 2 sample answers do not end within 96 tokens")
    assert "(in the report: 2)" in endless


def test_an_answer_that_may_be_long_and_a_base_that_loops_are_no_warning() -> None:
    good, loop, cut = Answer("a"), Answer("a a a", "Repeats"), Answer("a b", "Cut")
    assert endings.sentences([good], [loop], [5], 96) == []
    assert endings.sentences([cut, cut], None, [96, 0], 96) == [], "its own answer is as long, or there is none"


def test_answers_of_an_attempt_before_an_upgrade_are_read() -> None:
    kept = json.loads(json.dumps([dataclasses.asdict(Answer("a", "Cut"))]))
    assert list(map(Answer.from_json, [*kept, "text alone"])) == [Answer("a", "Cut"), Answer("text alone")]


def test_the_model_card_marks_the_answer() -> None:
    text = model_card._sample(AnsweredPrompt(prompt="?", base="b", tuned="a a a", tuned_ending="Repeats"))
    assert "**Tuned (loops)**" in text
    assert "**Base**" in text


def test_a_run_warns_of_its_loops_in_result_log_and_card(
    runs: Any, make_plan: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of random weights says the same token for ever."""
    plan = make_plan(training={"maxSteps": 1}, evaluation={"samples": 2})
    result = runs.finish(plan)
    assert {sample.base_ending for sample in result.samples} == {"Repeats"}
    assert {sample.tuned_ending for sample in result.samples} == {"Repeats"}
    (warning,) = [sentence for sentence in result.advice if "sample answers loop" in sentence]
    assert warning.startswith("2 of 2 sample answers loop (in the report: 1, 2; of the base model 2)")
    assert warning in capsys.readouterr().err
    readme = (Path(plan.output_path) / "adapter" / "README.md").read_text()
    assert warning in readme
    assert "**Tuned (loops)**" in readme
