"""What is told of a job before it starts."""

from __future__ import annotations

import pytest

from hone_api.advice import advise
from hone_api.training import Adapter, Training

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("generations", "rows", "words"),
    [
        (1, 60, ["batchSize 128 is more than the 60 rows there are: an epoch is one step; lower it."]),
        (1, 128, []),
        (2, 60, ["batchSize 128 at 2 generations is more than the 60 rows there are: it is refused; lower it."]),
        (2, 64, []),
    ],
)
def test_a_batch_counts_the_samples_of_each_row(generations: int, rows: int, words: list[str]) -> None:
    training = Training.model_validate({"batchSize": 128})
    assert advise("GRPO", Adapter(), training, rows, generations) == words
