"""From the pods of a failed Job to one cause."""

from __future__ import annotations

from typing import Any

import pytest

from hone_operator.reconcile.core.failures import root_cause

pytestmark = pytest.mark.pure


@pytest.fixture
def failed(world):
    def make(*pods, message=""):
        body = {"kind": "Job", "metadata": {"name": "run-1", "namespace": "team"}, "spec": {}}
        return world.ended(world.child(body, *pods), "Failed", message=message)

    return make


@pytest.mark.parametrize(
    ("exit_code", "reason", "code"),
    [
        (137, "OOMKilled", "OutOfMemory"),
        (137, "Error", "RankFailed"),
        (139, "Error", "RankFailed"),
        (75, "Error", "Interrupted"),
        (1, "Error", "TrainerError"),
    ],
)
def test_a_pod_without_a_report(world, failed, exit_code, reason, code):
    cause = root_cause(failed(world.dead(exit_code, reason=reason)))
    assert (cause.code, cause.exit_code, cause.pod) == (code, exit_code, "run-1-0-abcde")


@pytest.mark.parametrize(
    ("exit_code", "code", "words"), [(137, "RankFailed", "podLimits of the chart"), (75, "Interrupted", "checkpoint")]
)
def test_a_pod_that_ran_for_its_longest_time(world, failed, exit_code, code, words):
    pod = world.dead(exit_code)
    pod["status"]["reason"] = "DeadlineExceeded"
    cause = root_cause(failed(pod))
    assert cause.code == code
    assert words in cause.message


def test_the_rank_that_reports_its_own_failure_beats_those_that_noticed(world, failed):
    noticed = world.dead(1, rank=0, seconds=40, outcome=world.failure("RankFailed", "rank 1 went away"))
    killed = world.dead(137, rank=2, seconds=41)
    cause = root_cause(failed(noticed, killed, world.dead(74, 1, 45, world.failure("DiskFull", "ENOSPC"))))
    assert (cause.code, cause.rank, cause.message) == ("DiskFull", 1, "ENOSPC")


@pytest.mark.faults("O17")
def test_a_rank_out_of_memory_beats_those_that_noticed(world, failed):
    noticed = world.dead(1, rank=0, seconds=40, outcome=world.failure("RankFailed"))
    cause = root_cause(failed(noticed, world.dead(137, rank=1, seconds=45, reason="OOMKilled")))
    assert (cause.code, cause.rank) == ("OutOfMemory", 1)


def test_among_equals_the_earliest_is_the_cause(world, failed):
    late = world.dead(74, rank=0, seconds=50, outcome=world.failure("StorageError", "late"))
    early = world.dead(74, rank=1, seconds=40, outcome=world.failure("StorageError", "early"))
    assert root_cause(failed(late, early)).message == "early"


@pytest.mark.faults("O18")
def test_a_disrupted_pod_is_the_cluster_s_doing(world, failed):
    noticed = world.dead(1, rank=0, seconds=40, outcome=world.failure("RankFailed"))
    cause = root_cause(failed(noticed, world.disrupted(exit_code=137, rank=1)))
    assert cause.code == "Disrupted"
    assert "PreemptionByScheduler" in cause.message


@pytest.mark.faults("O18")
def test_a_node_that_evicts_is_a_disruption(world, failed):
    pod = world.pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    assert root_cause(failed(pod)).code == "Disrupted"
    assert "memory" in root_cause(failed(pod)).message


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Pod a/b has condition DisruptionTarget matching FailJob rule at index 0", "Disrupted"),
        ("Container trainer for pod a/b failed with exit code 75 matching FailJob rule at index 1", "Interrupted"),
        ("Container trainer for pod a/b failed with exit code 70 matching FailJob rule at index 1", "RankFailed"),
    ],
)
def test_without_pods_the_job_s_own_words_decide(failed, words, code):
    assert root_cause(failed(message=words)).code == code


@pytest.mark.faults("O19")
def test_pods_that_were_removed_by_force_are_a_disruption(world, failed):
    """`kubectl delete pod --force`: the Job controller counts a failure, and the pod is gone or has no last words."""
    job = failed(message="Job has reached the specified backoff limit")
    job.body["status"]["conditions"][0]["reason"] = "BackoffLimitExceeded"
    assert (root_cause(job).code, root_cause(job).message) == ("Disrupted", "The pods of Job run-1 were deleted.")
    killed = world.dead(137)
    killed["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert root_cause(failed(killed)).code == "Disrupted"
    assert root_cause(failed(killed, world.dead(139, rank=1, seconds=40))).code == "RankFailed"


def test_a_code_from_a_newer_trainer_is_a_trainer_error(world, failed):
    cause = root_cause(failed(world.dead(1, outcome=world.failure("FromTheFuture", "words"))))
    assert (cause.code, cause.message) == ("TrainerError", "words")


def test_the_log_tail_is_bounded(world, failed):
    from dataclasses import replace

    job = replace(failed(world.dead(1)), log_tail="x" * 20000)
    assert len(root_cause(job).to_json()["logTail"]) == 8192


class Counted(dict[str, Any]):
    """A pod's status that counts how often its containers are read."""

    reads = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.reads += key == "containerStatuses"
        return super().get(key, default)


def test_each_pod_is_read_once_however_much_is_asked(world, failed):
    pods = [
        world.dead(1, rank=0, seconds=40, outcome=world.failure("RankFailed")),
        world.dead(74, 1, 45, world.failure("DiskFull", "ENOSPC")),
    ]
    for pod in pods:
        pod["status"] = Counted(pod["status"])
    job = failed(*pods)
    assert (root_cause(job).code, job.result()) == ("DiskFull", None)
    assert [pod["status"].reads for pod in pods] == [1, 1]


def test_a_pod_whose_ranks_only_waited_is_not_the_cause_of_a_hang(world, failed):
    def hung(at, seconds, **more):
        outcome = {"failure": {"code": "Hung", "message": "no step", **more}}
        return world.dead(1, rank=at, seconds=seconds, outcome=outcome)

    waited, stopped = hung(0, 40), hung(1, 45, rank=9)
    cause = root_cause(failed(waited, stopped))
    assert (cause.code, cause.rank, cause.pod) == ("Hung", 9, stopped["metadata"]["name"])
    assert root_cause(failed(waited)).rank is None
