"""What is left of a run's time at the rate of Llama 3's interruptions."""

from __future__ import annotations

import pytest

from hone_dev.ettr import mix
from hone_dev.ettr.faults import INTERRUPT

pytestmark = pytest.mark.pure


def test_all_interruptions_of_the_report_are_there_and_each_can_be_made() -> None:
    assert sum(kind.count for kind in mix.KINDS.values()) == 419
    for kind in mix.KINDS.values():
        numbers = [int(word) for word in kind.causes.replace(",", " ").replace(";", " ").split() if word.isdigit()]
        assert not numbers or sum(numbers) == kind.count
    assert INTERRUPT.keys() == mix.KINDS.keys()


def test_as_many_gpus_as_llama_3_had_are_interrupted_as_often() -> None:
    run = mix.run(mix.GPUS, dict.fromkeys(mix.KINDS, 0.0), save=0.0)
    assert run.between == pytest.approx(54 * 86_400 / 419)
    assert run.ratio == pytest.approx(1.0, abs=1e-3)


def test_the_interval_between_checkpoints_costs_less_than_others() -> None:
    costs, save = dict.fromkeys(mix.KINDS, 60.0), 10.0
    best = mix.run(4096, costs, save)
    lost = sum(kind.count for kind in mix.KINDS.values() if not kind.notice) / 419 / best.between
    for interval in (best.interval / 2, best.interval * 2):
        assert 1 / (1 + 60 / best.between + lost * interval / 2 + save / interval) < best.ratio


def test_what_costs_more_leaves_less() -> None:
    short = mix.run(512, dict.fromkeys(mix.KINDS, 60.0), 5.0)
    assert mix.run(512, dict.fromkeys(mix.KINDS, 600.0), 5.0).ratio < short.ratio
    assert mix.run(512, dict.fromkeys(mix.KINDS, 60.0), 50.0).ratio < short.ratio
    assert mix.run(64, dict.fromkeys(mix.KINDS, 60.0), 5.0).ratio > short.ratio
