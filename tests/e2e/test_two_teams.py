"""Two teams, a small quota of Kueue, and real pods: `python -m hone_dev two-teams` with few jobs."""

import pytest

from hone_dev import cluster as embedded
from hone_dev.demo import command
from hone_dev.two_teams.command import measure

pytestmark = [pytest.mark.e2e, pytest.mark.long]


def test_the_quota_holds_and_what_is_preempted_loses_no_step(hone) -> None:
    embedded.up(addons=["kueue"])
    hone.values["kueue"] = {"enabled": True}
    command.install(hone)
    outcome = measure(hone, jobs=6, quota=2)
    assert outcome.problems(fair=False) == []
    assert outcome.verdict.most_held == 2
