"""Work whose cost grows with a namespace has a bounded part of the time."""

import pytest

from hone_operator.pace import LONGEST_PAUSE, MANY, Pace

pytestmark = pytest.mark.pure


def test_the_pause_grows_with_the_run_up_to_a_minute():
    pace = Pace()
    assert pace.left("team", 100.0) == 0
    pace.ran("team", 100.0, 100.1)
    assert pace.left("team", 100.1) == pytest.approx(2.0)
    assert pace.left("team", 102.2) == 0
    assert pace.left("other", 100.1) == 0
    pace.ran("team", 200.0, 230.0)
    assert pace.left("team", 230.0) == LONGEST_PAUSE
    assert pace.left("team", 130.0) == 0, "the clock was set back"


def test_keys_whose_pause_is_over_are_forgotten():
    pace = Pace()
    for n in range(3 * MANY):
        pace.ran(n, float(n), n + 0.001)
    assert len(pace._not_before) <= MANY
