"""How long a step may take before the run counts as hung."""

from __future__ import annotations

import pytest

from hone_api.words.phases import EVALUATING, EXPORTING, FIRST_STEP, LOADING, SAVING, TRAINING
from hone_trainer.training.timing import hang_guard

pytestmark = pytest.mark.trainer
"""Nothing is trained, but the module imports transformers."""


@pytest.mark.parametrize(
    ("phase", "seconds", "asked", "limit"),
    [
        (LOADING, [], None, 0.0),
        (EXPORTING, [9.0] * 9, None, 0.0),
        (FIRST_STEP, [], None, 3600.0),
        (TRAINING, [100.0, 100.0], None, 3600.0),
        (TRAINING, [1.0, 1.0, 1.0], None, 600.0),
        (TRAINING, [40.0, 50.0, 60.0], None, 1000.0),
        (TRAINING, [40.0, 50.0, 60.0], 70, 70.0),
        (SAVING, [1.0, 1.0, 1.0], None, 3600.0),
        (EVALUATING, [300.0, 300.0, 300.0], None, 6000.0),
        (EVALUATING, [1.0, 1.0, 1.0], 7200, 7200.0),
    ],
)
def test_the_limit_follows_the_steps(phase: str, seconds: list[float], asked: int | None, limit: float) -> None:
    assert hang_guard.limit(phase, seconds, asked) == limit
