"""Metrics of answers against hand-computed values, and the bootstrap against theory."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from hone_trainer.scoring.scores import Mean, Score, numbers, resampled
from hone_trainer.scoring.text_metrics import exact_match, f1, rouge_l, tokens, words

pytestmark = pytest.mark.pure


def test_exact_match_forgives_case_punctuation_and_articles() -> None:
    assert exact_match("The Eiffel Tower.", "eiffel tower") == 1
    assert exact_match("Eiffel tower in Paris", "eiffel tower") == 0


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("tower in Paris", "the tower of Paris", 2 * 2 / (3 + 3)),
        ("Paris Paris", "Paris", 2 * 1 / (2 + 1)),
        ("", "Paris", 0),
        ("", "", 1),
    ],
)
def test_f1_counts_common_words(answer: str, reference: str, expected: float) -> None:
    assert f1(answer, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        # The example of Lin 2004, section 3.1.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("a b c", "x y z", 0),
    ],
)
def test_rouge_l_is_the_longest_common_subsequence(answer: str, reference: str, expected: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Да, сейчас", "Нет никогда", 0),
        ("Москва — столица", "Москва столица", 1),
        ("北京。", "北京", 1),
        ("北京", "上海", 0),
        ("مرحبا، يا عالم", "مرحبا يا عالم", 1),
    ],
)
def test_words_are_those_of_every_script(answer: str, reference: str, expected: float) -> None:
    for metric in (exact_match, f1, rouge_l):
        assert metric(answer, reference) == expected


def test_words_of_latin_text_are_those_of_squad_and_of_rouge_score() -> None:
    text = "The price's $5.00 + 3_a, (or) x=y | don't^2!"
    assert words(text) == ["prices", "500", "3a", "or", "xy", "dont2"]
    assert tokens(text) == ["the", "price", "s", "5", "00", "3", "a", "or", "x", "y", "don", "t", "2"]


def score(values: list[float]) -> Score:
    return Score({"exact_match": Mean(values, [1.0] * len(values))}, tokens=len(values))


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = [float(random.Random(i).random() < 0.3) for i in range(400)]
    found = numbers(["a/b"], ["exact_match"], None, [score(values)])[0]
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert float(found.high or 0) - float(found.low or 0) == pytest.approx(2 * half, rel=0.1)
    assert float(found.low or 0) < float(found.tuned) < float(found.high or 0)
    assert found.change_low is None


def test_the_interval_of_a_change_is_paired_by_row() -> None:
    hard = [random.Random(i).random() for i in range(200)]
    base, tuned = score(hard), score([value + 0.01 for value in hard])
    found = numbers(["a/b"], ["exact_match"], [base], [tuned], purpose="Retention")[0]
    assert float(found.change_low or 0) == pytest.approx(0.01, abs=1e-6)
    assert float(found.change_high or 0) == pytest.approx(0.01, abs=1e-6)
    assert float(found.high or 0) - float(found.low or 0) > 0.05
    assert found.purpose == "Retention"


def test_a_derived_metric_also_has_an_interval() -> None:
    losses = Score({"loss": Mean([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])}, tokens=6)
    assert np.allclose(resampled("perplexity", losses), math.exp(2))


def test_a_loss_beyond_what_a_float_can_hold_is_infinite() -> None:
    losses = Score({"loss": Mean([2000.0, 3000.0], [1.0, 1.0])}, tokens=2)
    assert losses.value("perplexity") == math.inf
    assert np.isinf(resampled("perplexity", losses)).all()


def test_two_models_scored_on_different_rows_are_not_paired() -> None:
    found = numbers(["a/b"], ["exact_match"], [score([0.0, 1.0])], [score([1.0])])[0]
    assert found.change_low is None
