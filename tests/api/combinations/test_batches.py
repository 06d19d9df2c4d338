"""Rows of a step that ranks cannot divide evenly: the message names a size that they can."""

from __future__ import annotations

import re

import pytest

from hone_api.blocks.training import Training
from hone_api.combinations.batches import batch_problems

pytestmark = pytest.mark.pure


def problem(rows: int, micro: int, ranks: int) -> str | None:
    """What is said about a batch, if anything."""
    return next(iter(batch_problems(Training(batchSize=rows, microBatchSize=micro), ranks)), None)


def test_the_size_that_a_message_names_is_taken() -> None:
    named = 0
    for rows, micro in ((8, 1), (8, 8), (60, 4), (65536, 1), (65536, 2)):
        for ranks in range(1, 4097):
            if words := problem(rows, micro, ranks):
                (size,) = re.findall(r"set it to (\d+)$", words)
                assert problem(int(size), micro, ranks) is None, words
                named += 1
    assert named > 4096


def test_more_ranks_than_a_batch_can_have_rows_get_another_way_out() -> None:
    assert str(problem(4096, 4096, 17)).endswith("use fewer ranks or a smaller microBatchSize")
