"""Kueue of the embedded cluster: it comes back with the cluster."""

import pytest

from hone_dev.cluster import cluster as embedded
from hone_dev.cluster.process import Supervisor
from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.usefixtures("images")]


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
