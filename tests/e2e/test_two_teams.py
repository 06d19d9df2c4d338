"""Two teams, a small quota of Kueue, and real pods: `python -m hone_dev two-teams` with few jobs."""

import pytest

from hone_dev.two_teams.command import measured

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.usefixtures("images")]


def test_the_quota_holds_and_what_is_preempted_loses_no_step() -> None:
    """It starts what it needs: the test before it takes the cluster down, with its hub."""
    outcome = measured(jobs=6, quota=2)
    assert outcome.problems(fair=False) == []
    assert outcome.verdict.most_held == 2
