"""How many rows of a pass fit, from measured bytes."""

from __future__ import annotations

import pytest

from hone_trainer.training.micro_batch_memory import Gauge, Measured, candidates

MIB = 2**20


@pytest.mark.pure
@pytest.mark.parametrize(
    ("rows", "sizes"), [(1, [1]), (7, [1, 7]), (8, [1, 2, 4, 8]), (12, [1, 2, 3, 4, 6, 12]), (8192, None)]
)
def test_sizes_divide_the_rows_of_a_rank(rows: int, sizes: list[int] | None) -> None:
    assert candidates(rows) == (sizes or [2**n for n in range(13)])


@pytest.mark.pure
@pytest.mark.parametrize(
    ("idle", "peaks", "limit", "larger", "fits"),
    [
        (10, {1: 15}, 20, 2, True),
        (10, {1: 15}, 19, 2, False),
        (10, {1: 30, 2: 32}, 36, 4, True),  # what a pass takes once does not grow with its rows
        (10, {1: 30, 2: 32}, 35, 4, False),
        (10, {1: 15, 2: 14}, 15, 4, True),  # a peak may vary a little
        (10, {1: 15, 2: 20, 3: 25}, 40, 6, True),
    ],
)
def test_whether_a_larger_pass_fits(idle: int, peaks: dict[int, int], limit: int, larger: int, fits: bool) -> None:
    assert Measured(limit, idle, peaks).is_expected_to_fit(larger) is fits


@pytest.mark.pure
@pytest.mark.parametrize(("peaks", "largest"), [({}, 0), ({1: 30}, 0), ({1: 10, 2: 20}, 2), ({1: 10, 2: 20, 4: 21}, 2)])
def test_the_largest_that_was_measured_to_fit(peaks: dict[int, int], largest: int) -> None:
    assert Measured(20, 0, peaks).largest == largest


@pytest.mark.trainer
def test_the_peak_is_that_since_the_last_pass() -> None:
    gauge = Gauge(cuda=False)
    gauge.restart()
    before = gauge.now()
    block = bytearray(64 * MIB)
    block[::4096] = b"1" * (len(block) // 4096)
    assert gauge.peak() - before > 48 * MIB
    del block
    gauge.restart()
    assert gauge.peak() - before < 48 * MIB
