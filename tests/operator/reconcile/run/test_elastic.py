"""A job with resources.minNodes: when an attempt ends for want of nodes, how many the next one has, what it costs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cluster.platforms import changed

from hone_api.blocks.placement import Resources
from hone_api.blocks.training import Training
from hone_api.combinations.elastic import node_counts
from hone_api.kinds.plan_record import values_of

pytestmark = pytest.mark.pure
ELASTIC = {"resources": {"nodes": 4, "minNodes": 2}, "training": {"batchSize": 8}}
FREE = {"restarts": {"maxRestarts": 0, "maxPreemptions": 0}}


@pytest.fixture
def life(new_life: Any) -> Any:
    return new_life(**ELASTIC, **FREE)


def some_without_a_node(world: Any, with_a_node: int) -> list[dict[str, Any]]:
    pods = [world.pod(rank) for rank in range(with_a_node)]
    for rank in range(with_a_node, 4):
        pod = world.unscheduled()
        pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = str(rank)
        pods.append(pod)
    return pods


def size_of(job: Any) -> tuple[int, int, int]:
    """Pods of a Job, and nodes in its plan and in what it was resolved to."""
    resolved = json.loads(job.body["metadata"]["annotations"]["hone.dev/resolved"])
    return job.body["spec"]["completions"], job.body["spec"]["parallelism"], resolved["worldSize"]


def plan_of(outcome: Any) -> dict[str, Any]:
    (config,) = (body for body in outcome.create if body["kind"] == "ConfigMap")
    plan: dict[str, Any] = json.loads(config["data"]["plan.json"])
    return plan


@pytest.mark.parametrize(
    ("resources", "training", "counts"),
    [
        ({"nodes": 4}, {"batch_size": 8}, [4]),
        ({"nodes": 4, "min_nodes": 1}, {"batch_size": 8}, [4, 2, 1]),
        ({"nodes": 6, "min_nodes": 2}, {"batch_size": 12}, [6, 4, 3, 2]),
        ({"nodes": 4, "min_nodes": 1, "gpus_per_node": 2}, {"batch_size": 16, "micro_batch_size": 2}, [4, 2, 1]),
        ({"nodes": 4, "min_nodes": 3}, {"batch_size": 8}, [4]),
    ],
)
def test_only_numbers_of_nodes_are_tried_over_which_a_step_divides_evenly(resources, training, counts):
    assert node_counts(Resources(**resources), Training(**training)) == counts


def test_an_attempt_without_enough_nodes_ends_after_a_while_and_the_next_has_what_was_free(life, world):
    outcome = life.tick()
    assert (plan_of(outcome)["nodes"], plan_of(outcome)["maxNodes"]) == (4, 4)
    life.pods(*some_without_a_node(world, 3))
    outcome = life.tick(10)
    assert outcome.check_again_in == 15  # the network of the ranks; the nodes are due at 300
    assert not outcome.delete
    outcome = life.tick(300)
    assert [body["metadata"]["name"] for body in outcome.delete] == ["run-1"]
    (record,) = life.status["attempts"]
    assert (record["outcome"], record["nodes"], record["nextNodes"]) == ("Resized", 4, 2)
    assert [(e.reason, e.type, e.message) for e in outcome.events] == [
        (
            "Resized",
            "Normal",
            "Attempt 1 has had a node for 3 of its 4 pods for 300 s and ends. Attempt 2 asks for 2 nodes; "
            "training.batchSize stays 8.",
        )
    ]
    assert life.tick(301, stopping=2).create == ()
    assert "endTime" not in life.status["attempts"][0]
    outcome = life.tick(310, stopping=0)
    assert size_of(life.children[-1]) == (2, 2, 2)
    assert plan_of(outcome)["nodes"] == 2
    first, second = life.status["attempts"]
    assert (first["outcome"], first["reason"]) == ("Resized", "Unschedulable")
    assert (second["outcome"], second["nodes"]) == ("Running", 2)
    assert "failure" not in life.status
    life.pods(world.pod(0), world.pod(1))
    life.tick(320)
    assert life.status["phase"] == "Running"
    assert life.tick(1000).delete == ()


@pytest.mark.parametrize("stage", [2, 3])
def test_a_sharded_run_has_fewer_nodes_as_well(new_life, world, stage):
    life = new_life(**ELASTIC, **FREE, deepspeed={"zeroStage": stage})
    life.tick()
    life.pods(*some_without_a_node(world, 3))
    life.tick(300)
    plan = plan_of(life.tick(310, stopping=0))
    assert (plan["nodes"], plan["maxNodes"], plan["deepspeed"]["zeroStage"]) == (2, 4, stage)


SHARDED = {
    "resources": {"nodes": 4, "minNodes": 1},
    "training": {"batchSize": 8},
    "deepspeed": {"zeroStage": 3},
    "restarts": {"maxRestarts": 1},
}


def lacks_memory(life: Any, world: Any, with_a_node: int, code: str = "GpuOutOfMemory", **fields: Any) -> Any:
    """Attempt 1 ends for want of nodes, attempt 2 for want of memory; what is decided then."""
    life.tick()
    life.pods(*some_without_a_node(world, with_a_node))
    life.tick(300)
    life.tick(310, stopping=0)
    life.pods(*[world.pod(rank) for rank in range(with_a_node)])
    life.tick(320)
    dead = world.dead(1, outcome=world.failure(code, "while the engine was built", **fields))
    if code == "OutOfMemory":
        dead = world.dead(137, reason="OOMKilled")
    life.ends("Failed", dead, seconds=400)
    return life.tick(401)


@pytest.mark.parametrize("code", ["GpuOutOfMemory", "OutOfMemory"])
def test_a_sharded_attempt_that_lacks_memory_on_fewer_nodes_is_followed_by_one_with_all(new_life, world, code):
    life = new_life(**SHARDED)
    (event,) = [e for e in lacks_memory(life, world, 1, code).events if e.reason == "Restarting"]
    assert event.message.endswith(
        ". A rank holds more of what ZeRO divides on 1 node than on 4: the next attempt asks for 4 nodes, and none has "
        "1 node or fewer again. Raise resources.minNodes in your next job"
    )
    assert life.status["phase"] == "Restarting"
    assert "(1 of 1 restarts used)" in next(c for c in life.status["conditions"] if c["type"] == "Running")["message"]
    life.tick(1000)
    assert [(r["outcome"], r["nodes"]) for r in life.status["attempts"]] == [
        ("Resized", 4),
        ("Failed", 1),
        ("Running", 4),
    ]
    life.pods(*some_without_a_node(world, 1))
    assert life.tick(10_000).delete == ()
    life.pods(*some_without_a_node(world, 2))
    life.tick(10_010)
    assert life.status["attempts"][-1]["nextNodes"] == 2


def test_a_sharded_attempt_that_lacks_memory_on_all_nodes_ends_the_job(new_life, world):
    life = new_life(**SHARDED)
    lacks_memory(life, world, 1)
    life.tick(1000)
    life.pods(*[world.pod(rank) for rank in range(4)])
    life.ends("Failed", world.dead(1, outcome=world.failure("GpuOutOfMemory")), seconds=1100)
    life.tick(1101)
    assert life.status["failure"]["code"] == "GpuOutOfMemory"


@pytest.mark.parametrize(
    "spec",
    [{"deepspeed": None}, {"restarts": {"maxRestarts": 0}}, {"restarts": {"onOutOfMemory": "Fail"}}],
    ids=["nothing is divided", "no restart is left", "not wanted"],
)
def test_a_lack_of_memory_on_fewer_nodes_ends_the_job_where_more_nodes_are_no_way_out(new_life, world, spec):
    life = new_life(**{name: value for name, value in {**SHARDED, **spec}.items() if value})
    lacks_memory(life, world, 1)
    assert life.status["phase"] == "Failed"
    assert life.status["failure"]["code"] == "GpuOutOfMemory"


def test_fewer_rows_in_a_pass_are_tried_before_a_number_of_nodes_is_given_up(new_life, world):
    life = new_life(**SHARDED)
    lacks_memory(life, world, 1, microBatchSize=8)
    assert (life.status["attempts"][-1]["nodes"], life.status["attempts"][-1]["microBatchLimit"]) == (4, 4)
    life.pods(*some_without_a_node(world, 1))
    life.tick(10_000)
    assert life.status["attempts"][-1]["nextNodes"] == 1


def test_the_next_attempt_after_an_interruption_asks_for_all_nodes_again(new_life, world):
    life = new_life(**ELASTIC)
    life.tick()
    life.pods(*some_without_a_node(world, 2))
    life.tick(300)
    life.tick(301, stopping=0)
    life.pods(world.pod(0), world.pod(1))
    life.tick(302)
    life.ends("Failed", world.disrupted(), seconds=400)
    outcome = life.tick(401)
    assert size_of(life.children[-1]) == (4, 4, 4)
    assert [record["nodes"] for record in life.status["attempts"]] == [4, 2, 4]
    assert [record["outcome"] for record in life.status["attempts"]] == ["Resized", "Preempted", "Running"]
    assert "Attempt 3 asks for 4 nodes again; attempt 2 had 2. training.batchSize stays 8." in [
        e.message for e in outcome.events
    ]


def test_the_record_of_the_model_has_the_nodes_that_each_attempt_had(new_life, world):
    life = new_life(**ELASTIC)
    life.tick()
    life.pods(*some_without_a_node(world, 2))
    life.tick(300)
    life.tick(301, stopping=0)
    life.ends("Complete", world.dead(0, outcome=world.result()), seconds=400)
    (version,) = life.tick(401).record
    lineage = version["spec"]["lineage"]
    assert (lineage["settings"]["nodes"], values_of(lineage)["maxNodes"]) == (2, 4)
    assert (lineage["attempts"], lineage["attemptNodes"]) == (2, [4, 2])


@pytest.mark.parametrize("with_a_node", [0, 1])
def test_an_attempt_is_kept_while_no_smaller_one_could_start(life, world, with_a_node):
    life.tick()
    life.pods(*some_without_a_node(world, with_a_node))
    assert life.tick(10_000).delete == ()
    life.pods(*some_without_a_node(world, 2))
    assert [body["metadata"]["name"] for body in life.tick(10_010).delete] == ["run-1"]
    assert life.status["attempts"][0]["nextNodes"] == 2


def test_pods_that_a_quota_refuses_count_as_without_a_node(life, world):
    life.tick()
    job = life.children[-1]
    life.children[-1] = world.child(job.body, world.pod(0), world.pod(1), refused="exceeded quota: gpus")
    life.tick(300)
    assert life.status["attempts"][0]["nextNodes"] == 2


def test_a_job_without_min_nodes_waits_as_before(new_life, world):
    life = new_life(resources={"nodes": 4}, training={"batchSize": 8})
    life.tick()
    life.pods(*some_without_a_node(world, 3))
    assert life.tick(10_000).delete == ()
    assert life.status["attempts"][0].keys().isdisjoint({"nodes", "nextNodes"})


def test_a_crash_after_any_write_changes_nothing(life, world):
    """Before the Job was deleted, and after the next one was created."""
    life.tick()
    life.pods(*some_without_a_node(world, 2))
    job = life.children[-1]
    life.tick(300)
    life.children.append(job)
    outcome = life.tick(301)
    assert ([body["metadata"]["name"] for body in outcome.delete], outcome.events) == (["run-1"], ())
    before = json.loads(json.dumps(life.status))
    life.tick(302, stopping=0)
    life.job["status"] = before
    assert life.tick(303).create == ()
    assert [(r["outcome"], r["nodes"]) for r in life.status["attempts"]] == [("Resized", 4), ("Running", 2)]
    assert life.status["attempts"][0]["reason"] == "Unschedulable"


def test_the_time_without_a_node_is_counted_as_such_and_gpus_by_the_nodes_of_the_attempt(new_life, world):
    life = new_life(resources={"nodes": 4, "minNodes": 2, "gpusPerNode": 2}, training={"batchSize": 16}, scheduling={})
    life.tick()
    life.pods(*some_without_a_node(world, 2))
    life.tick(300)
    life.tick(305, stopping=0)
    assert sum(life.status["attempts"][0]["phaseSeconds"].values()) == 305
    assert life.status["attempts"][0]["phaseSeconds"]["scheduled"] == 305
    assert size_of(life.children[-1]) == (2, 2, 4)


@pytest.mark.parametrize("evicted", [False, True])
def test_in_a_queue_of_kueue_the_next_smaller_number_is_tried(new_life, world, at, evicted):
    world.platform = changed(world.platform, kueue__enabled=True)
    life = new_life(**ELASTIC, scheduling={"queueName": "team"})
    life.tick()
    quota = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient quota"}
    conditions = [{**quota, "lastTransitionTime": at(20)}]
    if evicted:
        conditions.append(
            {
                "type": "Evicted",
                "status": "True",
                "reason": "Preempted",
                "lastTransitionTime": at(20),
                "message": "for a",
            }
        )
    meta = {"name": "job-run-1", "namespace": "team", "uid": "wl", "creationTimestamp": at(1)}
    workload = {"kind": "Workload", "metadata": meta, "spec": {}, "status": {"conditions": conditions}}
    life.children[-1] = world.child(life.children[-1].body, workload=workload)
    assert life.tick(30).check_again_in == 290
    outcome = life.tick(320)
    assert [body["metadata"]["name"] for body in outcome.delete] == ["run-1"]
    assert outcome.events[-1].message.startswith("Attempt 1 has had no quota for 300 s and ends. Attempt 2 asks for 2")
    life.tick(321, stopping=0)
    assert size_of(life.children[-1]) == (2, 2, 2)
    meta = {**meta, "creationTimestamp": at(321)}
    conditions = [{**quota, "lastTransitionTime": at(321)}]
    body = {**workload, "metadata": meta, "status": {"conditions": conditions}}
    life.children[-1] = world.child(life.children[-1].body, workload=body)
    assert life.tick(10_000).delete == (), "minNodes is the fewest"


@pytest.mark.parametrize("stopping", [1, 0])
def test_an_attempt_that_never_had_quota_does_not_count_towards_the_deadline(new_life, world, at, stopping):
    world.platform = changed(world.platform, kueue__enabled=True)
    life = new_life(**ELASTIC, scheduling={"queueName": "team"}, deadline="10m")
    life.tick()
    quota = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient quota"}
    status = {"conditions": [{**quota, "lastTransitionTime": at(2)}]}
    meta = {"name": "job-run-1", "namespace": "team", "uid": "wl", "creationTimestamp": at(1)}
    workload = {"kind": "Workload", "metadata": meta, "spec": {}, "status": status}
    life.children[-1] = world.child(life.children[-1].body, workload=workload)
    life.tick(310)
    assert life.status["attempts"][-1]["outcome"] == "Resized"
    life.tick(311, stopping=stopping)
    assert "startTime" not in life.status
    life.tick(700, stopping=0)
    life.tick(5000)
    assert life.status["phase"] == "Queued"
    assert "failure" not in life.status


def test_a_workload_that_waits_for_a_person_is_left_alone(new_life, world, at):
    world.platform = changed(world.platform, kueue__enabled=True)
    life = new_life(**ELASTIC, scheduling={"queueName": "team"})
    life.tick()
    meta = {"name": "job-run-1", "namespace": "team", "uid": "wl", "creationTimestamp": at(1)}
    quota = {"type": "QuotaReserved", "status": "False", "reason": "Inadmissible", "lastTransitionTime": at(2)}
    workload = {"metadata": meta, "spec": {"active": True}, "status": {"conditions": [quota]}}
    life.children[-1] = world.child(life.children[-1].body, workload=workload)
    assert life.tick(10_000).delete == ()


def test_a_batch_that_no_smaller_number_divides_is_refused(new_life, conditions):
    life = new_life(resources={"nodes": 4, "minNodes": 3}, training={"batchSize": 8})
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"] == "False/ConflictingFields"
    assert "for any number from minNodes to 3: lower minNodes" in life.status["failure"]["message"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": "ORPO"}, "minNodes is for the methods SFT, DAPT, DPO, Reward, Distillation"),
        ({"resources": {"nodes": 2, "minNodes": 2}}, "minNodes must be below nodes"),
        ({"resources": {"gpusPerNode": 2, "gpuResourceName": "nvidia.com/mig-3g.40gb"}}, "one slice of a pod's GPUs"),
        ({"resources": {"gpusPerNode": 2, "gpuProducts": ["NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"]}}, "name whole GPUs"),
    ],
)
def test_what_cannot_have_fewer_nodes_is_refused(new_life, conditions, fields, words):
    life = new_life(**{**ELASTIC, **fields})
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"].startswith("False/")
    assert words in life.status["failure"]["message"]


def stopping(world: Any, rank: int) -> dict[str, Any]:
    pod: dict[str, Any] = world.pod(rank)
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T04:00:00Z"
    return pod


@pytest.mark.parametrize(
    ("pods", "status"),
    [
        (lambda w: [w.dead(76, 0, 7200, outcome=w.failure("Diverged")), stopping(w, 1), stopping(w, 2)], {}),
        (lambda w: [stopping(w, 1), stopping(w, 2), stopping(w, 3)], {}),
        (lambda w: [w.disrupted(), w.pod(1), w.pod(2)], {}),
        (lambda w: [w.pod(1), w.pod(2), w.pod(3)], {"failed": 1}),
    ],
    ids=["one failed and one is gone", "one was preempted and is gone", "one is being preempted", "one was deleted"],
)
def test_an_attempt_that_ends_is_not_one_without_nodes(life, world, pods, status):
    """Its pods go one by one, and only then its Job says why."""
    life.tick()
    life.pods(*[world.pod(rank) for rank in range(4)])
    life.tick(25)
    life.pods(*pods(world))
    life.children[-1].body["status"].update(status)
    assert life.tick(7201).delete == ()
    assert life.status["attempts"][0]["outcome"] != "Resized"


def test_a_run_that_was_suspended_has_waited_for_nobody(new_life, world, at):
    """Kueue writes when the quota was given back, which is when a person suspended the run."""
    world.platform = changed(world.platform, kueue__enabled=True)
    life = new_life(**ELASTIC, scheduling={"queueName": "team"})
    life.tick()
    life.job["spec"]["suspend"] = True
    life.tick(100)
    quota = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "lastTransitionTime": at(101)}
    meta = {"name": "job-run-1", "namespace": "team", "uid": "wl", "creationTimestamp": at(1)}
    held = {**meta, "annotations": {"hone.dev/held": "true"}}
    workload = {"kind": "Workload", "metadata": held, "spec": {"active": False}, "status": {"conditions": [quota]}}
    life.children[-1] = world.child(life.children[-1].body, workload=workload)
    life.tick(110)
    life.job["spec"]["suspend"] = False
    assert life.tick(10_000).delete == ()
    workload = {**workload, "metadata": meta, "spec": {"active": True}}
    life.children[-1] = world.child(life.children[-1].body, workload=workload)
    assert life.tick(10_299).delete == ()
    outcome = life.tick(10_300)
    assert [body["metadata"]["name"] for body in outcome.delete] == ["run-1"]
    assert "has had no quota for 300 s" in outcome.events[-1].message
