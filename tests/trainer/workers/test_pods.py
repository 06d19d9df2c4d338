"""Which part of shared work a pod does."""

from __future__ import annotations

import pytest

from hone_trainer.errors import ConfigError
from hone_trainer.workers.pods import ALONE, Pod, this_pod

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize("items", [0, 1, 5, 40])
def test_pods_do_each_item_once_and_the_first_one_would_do_all(count: int, items: int) -> None:
    shares = [list(Pod(index, count).order(items)) for index in range(count)]
    own = [share[: len(range(index, items, count))] for index, share in enumerate(shares)]
    assert sorted(item for share in own for item in share) == list(range(items))
    assert sorted(shares[0]) == list(range(items))
    assert shares[1:] == own[1:]


def test_the_environment_says_which_pod_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    assert this_pod(3) == Pod(2, 3)
    assert this_pod(None) == ALONE, "a Job of one pod has the variable as well"
    with pytest.raises(ConfigError, match="the plan is for 2 pods, and JOB_COMPLETION_INDEX is '2': it must be 0 to 1"):
        this_pod(2)
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    with pytest.raises(ConfigError, match="JOB_COMPLETION_INDEX is ''"):
        this_pod(2)
