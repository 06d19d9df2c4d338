"""Two teams, a small quota of Kueue, and real pods: `python -m hone_dev two-teams` with few jobs."""

import pytest

from hone_dev.cluster import cluster as embedded
from hone_dev.cluster.process import Supervisor
from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError
from hone_dev.two_teams.command import measured
from hone_dev.two_teams.objects import Steps

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.usefixtures("images")]


def test_the_quota_holds_and_what_is_preempted_loses_no_step() -> None:
    """It starts what it needs, also hub and Kueue. So few steps that others still come while the long jobs train."""
    outcome = measured(jobs=6, quota=2, steps=Steps(usual=40, long=800))
    assert outcome.problems(fair=False) == []
    assert outcome.verdict.most_held == 2


def test_a_cluster_whose_kueue_has_ended_comes_up_with_it(kubectl) -> None:
    """Without it, its webhooks refuse every Job."""
    embedded.up(addons=["kueue"])
    supervisor = Supervisor(paths.state())
    supervisor.stop("kueue")
    with pytest.raises(HoneDevError, match="failed calling webhook"):
        kubectl("create", "job", "any", "--image=any", "--dry-run=server")
    assert not embedded.is_up()
    embedded.up()
    assert supervisor.pid("kueue")
    kubectl("create", "job", "any", "--image=any", "--dry-run=server")
