"""The files of a model whose ModelVersion had deletionPolicy Delete go some time after it; nothing else does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support.cluster.memory_cluster import Body
from support.lives.world import MemoryWorld

from hone_api.plan import SweepPlan
from hone_operator.queueing.routing import contents_of, keys_concerned

pytestmark = pytest.mark.pure
URI = "pvc://hone-store/models/run-uid/attempt-1"
PLACE = "run-uid/attempt-1"


def training(model: str) -> Body:
    return {"model": {"uri": "hf://a/b"}, "datasets": [{"name": "x"}], "output": {"modelName": model}}


class DeletionWorld(MemoryWorld):
    """A namespace with a ModelVersion, whose run is over and whose FineTuneJob is gone."""

    def __init__(self, policy: str):
        super().__init__(store__keep_unused_seconds=3600)
        self.claims("hone-store")
        spec = {"modelName": "tutor", "version": 1, "artifacts": [{"uri": f"{URI}/adapter"}], "deletionPolicy": policy}
        self.model = self.add("ModelVersion", "tutor-v1", spec)

    async def look(self, after: timedelta = timedelta(minutes=2)) -> None:
        self.now += after
        await self.process(contents_of("team"))

    def delete(self) -> None:
        """As the watch reports it."""
        self.cluster.remove(self.model)
        self.tell()
        self.controllers.gone("ModelVersion", self.model)

    @property
    def data(self) -> dict[str, str]:
        return self.cluster.objects["ConfigMap", "team", "hone-contents"]["data"]

    @property
    def ledger(self) -> dict[str, str]:
        return {key: since for key, since in self.data.items() if key.startswith("model.")}

    def end_sweeps(self) -> None:
        """They are gone, and nobody knows what they did."""
        for sweep in self.cluster.of("Job"):
            self.cluster.remove(sweep)

    def sweep(self) -> SweepPlan | None:
        """The plan of the sweep that is there."""
        return next((self.sweep_plan(job) for job in self.jobs("sweep")), None)


@pytest.mark.parametrize("known", [True, False], ids=["known", "changed and deleted at once"])
async def test_a_model_that_is_to_go_goes(known: bool) -> None:
    world = DeletionWorld("Delete" if known else "Retain")
    await world.look()
    assert world.sweep() is None
    if not known:
        world.model["spec"]["deletionPolicy"] = "Delete"
    world.delete()
    await world.look()
    assert set(world.ledger) == {f"model.{PLACE.replace('/', '.')}"}
    assert world.sweep() is None, "not at once"
    await world.look(timedelta(hours=1))
    plan = world.sweep()
    assert plan is not None
    assert (plan.models, plan.exports) == ([PLACE], [])


async def test_it_goes_also_when_the_operator_was_away() -> None:
    world = DeletionWorld("Delete")
    await world.look()
    world.cluster.remove(world.model)
    world.start_operator()
    await world.look()
    await world.look(timedelta(hours=1))
    assert (plan := world.sweep()) is not None
    assert plan.models == [PLACE]


@pytest.mark.parametrize("before", ["Retain", "Delete"], ids=["always", "changed back and deleted at once"])
async def test_a_retained_model_stays(before: str) -> None:
    world = DeletionWorld(before)
    world.add("FineTuneJob", "another", training("another"))
    await world.look()
    world.model["spec"]["deletionPolicy"] = "Retain"
    world.delete()
    await world.look()
    await world.look(timedelta(days=2))
    assert (plan := world.sweep()) is not None, "the daily measure"
    assert plan.models == []


async def test_of_a_model_that_is_there_and_of_a_run_that_is_not_over_all_exports_stay() -> None:
    world = DeletionWorld("Delete")
    job = world.add("FineTuneJob", "run", training("tutor"))
    done = world.add("FineTuneJob", "done", training("other"))
    done["status"] = {"conditions": [{"type": "Finished", "status": "True", "reason": "x", "message": ""}]}
    await world.look()
    await world.look(timedelta(days=2))
    assert (plan := world.sweep()) is not None
    assert (plan.models, plan.exports) == ([], sorted([PLACE, job["metadata"]["uid"]]))


async def test_a_model_of_a_run_that_is_not_over_waits() -> None:
    """Its ModelVersion and its status were lost: it answers with what it has exported."""
    world = DeletionWorld("Delete")
    job = world.add("FineTuneJob", "run", training("tutor"))
    job["metadata"]["uid"] = "run-uid"
    await world.look()
    world.delete()
    await world.look()
    await world.look(timedelta(hours=1))
    assert (plan := world.sweep()) is not None
    assert (plan.models, plan.exports) == ([], ["run-uid"])
    assert world.ledger, "it is not forgotten"
    world.cluster.remove(job)
    for sweep in world.cluster.of("Job"):
        world.cluster.remove(sweep)
    await world.look(timedelta(hours=2))
    assert (plan := world.sweep()) is not None
    assert plan.models == [PLACE]


@pytest.mark.parametrize("kind", ["ModelVersion", "FineTuneJob"])
async def test_a_model_that_is_named_again_stays_although_a_sweep_waits_for_a_node(kind: str) -> None:
    world = DeletionWorld("Delete")
    await world.look()
    world.delete()
    await world.look()
    await world.look(timedelta(hours=1))
    assert (plan := world.sweep()) is not None
    assert plan.models == [PLACE]
    await world.look()
    assert world.sweep() is not None, "it goes on while nothing names the model"
    spec = world.model["spec"] | {"deletionPolicy": "Retain"}
    world.add(
        kind, "again", spec if kind == "ModelVersion" else training("other") | {"model": {"uri": f"{URI}/merged"}}
    )
    await world.look()
    assert world.sweep() is None
    await world.look(timedelta(days=2))
    assert (plan := world.sweep()) is not None
    assert plan.models == []


@pytest.mark.parametrize("policies", [("Retain", "Delete"), ("Delete", "Retain")])
async def test_of_two_model_versions_that_go_at_once_one_that_retains_keeps_the_folder(policies: list[str]) -> None:
    world = DeletionWorld("Delete")
    await world.look()
    world.model["spec"]["deletionPolicy"] = policies[0]
    other = world.add("ModelVersion", "tutor-v2", world.model["spec"] | {"deletionPolicy": policies[1]})
    world.delete()
    world.model = other
    world.delete()
    await world.look()
    await world.look(timedelta(days=2))
    assert (plan := world.sweep()) is not None, "the daily measure"
    assert plan.models == []


@pytest.mark.attack("plans")
@pytest.mark.parametrize("parent", ["models/run-uid", "models", "models/", "."])
async def test_a_parent_that_is_named_keeps_the_model(parent: str) -> None:
    """Also while a sweep that is to remove it waits for a node."""
    world = DeletionWorld("Delete")
    await world.look()
    world.delete()
    await world.look()
    await world.look(timedelta(hours=1))
    assert (plan := world.sweep()) is not None
    assert plan.models == [PLACE]
    reader = world.add("Dataset", "reports", {"source": {"uri": f"pvc://hone-store/{parent}"}})
    await world.look()
    assert world.sweep() is None, "it is withdrawn"
    await world.look(timedelta(days=2))
    assert (plan := world.sweep()) is not None, "the daily measure"
    assert plan.models == []
    (since,) = world.ledger.values()
    assert since == world.time(), "it waits as long again"
    world.end_sweeps()
    world.cluster.remove(reader)
    await world.look()
    assert (plan := world.sweep()) is not None
    assert plan.models == []
    world.end_sweeps()
    await world.look(timedelta(hours=1))
    assert (plan := world.sweep()) is not None
    assert plan.models == [PLACE]


@pytest.mark.attack("plans")
@pytest.mark.parametrize(
    ("parent", "stay"), [("runs", {"runs"}), ("datasets", {"datasets"}), (".", {"runs", "datasets"})]
)
async def test_a_folder_that_is_named_as_a_whole_keeps_what_nothing_else_refers_to(parent: str, stay: set[str]) -> None:
    world, rows = DeletionWorld("Retain"), "0" * 64
    dataset = world.add("Dataset", "rows", {"source": {"uri": "pvc://data/rows"}})
    dataset["status"] = {"digest": f"sha256:{rows}"}
    job = world.add("FineTuneJob", "run", training("tutor"))
    await world.look()
    reader = world.add("Dataset", "reader", {"source": {"uri": f"pvc://hone-store/{parent}"}})
    for body in (dataset, job):
        world.cluster.remove(body)
    await world.look()
    await world.look(timedelta(days=2))
    assert (plan := world.sweep()) is not None
    assert (plan.remove == []) == ("datasets" in stay)
    assert (plan.jobs is None) == ("runs" in stay)
    content = {"runs": f"run.{job['metadata']['uid']}", "datasets": rows}
    for folder in stay:
        assert world.data[content[folder]] == world.time(), "it waits as long again"
    world.end_sweeps()
    world.cluster.remove(reader)
    await world.look(timedelta(days=2))
    assert (plan := world.sweep()) is not None
    assert plan.jobs == []
    assert plan.remove == [f"sha256:{rows}"]


def pod(**container: Any) -> Body:
    return {"containers": [container], "volumes": [{"persistentVolumeClaim": {"claimName": "hone-store"}}]}


@pytest.mark.parametrize(
    ("spec", "labels", "uses"),
    [
        (pod(args=["--model", f"/mnt/models/{PLACE}/adapter"]), {}, True),
        (pod(volumeMounts=[{"subPath": "models/run-uid"}]), {}, True),
        (pod(env=[{"name": "MODEL", "value": f"/store/models/{PLACE}"}]), {}, True),
        (pod(), {"hone.dev/component": "materialize"}, True),
        (pod(args=["--model", "/mnt/models/other/attempt-1"]), {}, False),
    ],
)
async def test_a_model_stays_while_a_pod_uses_it(spec: Body, labels: dict[str, str], uses: bool) -> None:
    world = DeletionWorld("Delete")
    await world.look()
    server = world.add("Pod", "server", spec, **labels)
    world.delete()
    await world.look()
    await world.look(timedelta(hours=1))
    assert (plan := world.sweep()) is not None
    assert plan.models == ([] if uses else [PLACE])
    if not uses:
        return
    for job in world.cluster.of("Job"):
        world.cluster.remove(job)
    world.cluster.remove(server)
    await world.look()
    assert world.sweep() is None, "it waits as long again"
    await world.look(timedelta(hours=1))
    assert (plan := world.sweep()) is not None
    assert plan.models == [PLACE]


def test_a_model_that_is_to_go_is_noted_at_once() -> None:
    for policy, noted in (("Delete", True), ("Retain", False)):
        world = DeletionWorld(policy)
        world.tell()
        assert (contents_of("team") in keys_concerned("ModelVersion", world.model, world.cache)) is noted
