"""A Dataset from its first reading to the last of its rows: mixed, looked at again, replaced, swept.

The operator's process, the API server and the trainer are real; a pod is a process on this machine, and an hour passes
by setting back when the source was read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.operator_process import Operator

pytestmark = pytest.mark.apiserver

LONG_AGO = "2026-01-01T00:00:00Z"


def rows(start: int, end: int) -> str:
    return "".join(json.dumps({"text": f"This is row {i} of all."}) + "\n" for i in range(start, end))


class Pods:
    """Runs what Jobs ask for, each once."""

    def __init__(self, namespace: Namespace, folder: Path):
        self.namespace, self.folder = namespace, folder

    def run(self, component: str, owner: str) -> None:
        """The next Job of this kind and owner, once it is there, to its end."""
        job = self.namespace.until(lambda: self._next(component, owner), f"a Job {component} of {owner}")
        name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
        config = next(v["configMap"]["name"] for v in pod["volumes"] if v["name"] == "plan")
        # Of a sweep, which its plan belongs to, the Job is made first.
        made = self.namespace.until(lambda: self.namespace.get("ConfigMap", config), f"the plan of {name}")
        plan = json.loads(made["data"]["plan.json"])
        text = json.dumps(plan | ({"sourcePath": "rows.jsonl"} if plan["kind"] == "Materialize" else {}))
        file, log = self.folder / "plan.json", self.folder / "termination-log"
        file.write_text(text.replace("/store", str(self.folder / "store")))
        env = {**os.environ, "HONE_TERMINATION_LOG": str(log), "OMP_NUM_THREADS": "1"}
        (started,) = self.namespace.start_pods(name)
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            command = [sys.executable, "-m", "hone_trainer", container["command"][3], str(file)]
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        self.namespace.end_pod(started, 0, terminated={"message": log.read_text()})
        self.namespace.end_job(name, "Complete")

    def _next(self, component: str, owner: str) -> Any:
        for job in self.namespace.list("Job"):
            meta = job["metadata"]
            asked = meta["labels"]["hone.dev/component"] == component and meta["ownerReferences"][0]["name"] == owner
            if asked and not job.get("status", {}).get("conditions"):
                return job
        return None

    def an_hour_passes(self, dataset: str) -> None:
        """The Dataset was read long ago, and its Job is forgotten: the next one is there at the end.

        Jobs and Datasets come by two watches. While the operator still sees the old Job, it takes its result again,
        with the present time, so the time is set back again.
        """
        for name in self.namespace.names("Job"):
            self.namespace.delete("Job", name)

        def asked_again() -> bool:
            if self.namespace.get("Dataset", dataset)["status"]["readTime"] != LONG_AGO:
                times = {"readTime": LONG_AGO, "lastTryTime": LONG_AGO}
                self.namespace.patch("Dataset", dataset, {"status": times}, "status")
            return self._next("materialize", dataset) is not None

        self.namespace.until(asked_again, f"{dataset} is looked at again")

    def held_out(self, digest: str) -> set[str]:
        """Lines of the validation split."""
        folder = self.folder / "store" / "datasets" / digest.removeprefix("sha256:")
        return {json.dumps(json.loads(line)) for line in (folder / "validation.jsonl").open()}

    def contents(self) -> set[str]:
        assert not list((self.folder / "store").glob("incoming/*"))
        return {f"sha256:{path.name}" for path in (self.folder / "store" / "datasets").iterdir()}


@pytest.fixture
def pods(
    apiserver: Path,
    namespace: Namespace,
    tmp_path: Path,
    start_operator: Callable[[Path, dict[str, str]], Operator],
) -> Pods:
    env = {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name]), "HONE_STORE__KEEP_UNUSED_SECONDS": "2"}
    start_operator(apiserver, env)
    (tmp_path / "rows.jsonl").write_text(rows(0, 40))
    return Pods(namespace, tmp_path)


def test_from_the_first_reading_to_the_last_of_its_rows(namespace: Namespace, pods: Pods) -> None:
    def says(reason: str, dataset: str = "rows", type_: str = "UpToDate") -> Any:
        def reached() -> bool:
            return namespace.condition("Dataset", dataset, type_).get("reason") == reason

        namespace.until(reached, f"{dataset} is {reason}")
        return namespace.get("Dataset", dataset)["status"]

    source = {"uri": "pvc://data/rows.jsonl"}
    namespace.create("Dataset", "rows", {"source": source, "format": "Text", "refresh": {"every": "1h"}})
    pods.run("materialize", "rows")
    first = says("Read")
    folder = pods.folder / "store" / "datasets" / first["digest"].removeprefix("sha256:")
    assert first["sizeBytes"] == sum(f.stat().st_size for f in folder.iterdir() if f.name != "manifest.json")

    namespace.create("Dataset", "mix", {"mixture": [{"name": "rows", "weight": "100%"}], "refresh": {"every": "1h"}})
    pods.run("materialize", "mix")
    mixed = says("Materialized", "mix", "Ready")
    assert {(use["name"], use["digest"]) for use in mixed["mixture"]} == {("rows", first["digest"])}

    pods.an_hour_passes("rows")
    pods.run("materialize", "rows")
    assert says("Unchanged")["digest"] == first["digest"]

    held_out = pods.held_out(first["digest"])
    (pods.folder / "rows.jsonl").write_text(rows(5, 50))
    pods.an_hour_passes("rows")
    pods.run("materialize", "rows")
    second = says("Refreshed")
    assert second["changes"] == {"previous": first["digest"], "added": 10, "removed": 5}
    assert second["splitSettings"] == first["splitSettings"]
    assert pods.held_out(second["digest"]) >= held_out - set(rows(0, 5).splitlines())
    told = namespace.until(lambda: [e for e in namespace.list("Event") if e["reason"] == "Refreshed"], "an Event")
    assert told[0]["message"].startswith("10 rows added, 5 removed: 45 rows")

    pods.an_hour_passes("mix")
    pods.run("materialize", "mix")
    remixed = says("Refreshed", "mix")
    assert remixed["mixture"][0]["digest"] == second["digest"]

    pods.run("sweep", "hone-contents")
    while pods.contents() != {second["digest"], remixed["digest"]}:  # each content had its own time
        pods.run("sweep", "hone-contents")
    namespace.delete("Dataset", "mix")
    namespace.delete("Dataset", "rows")
    while pods.contents():
        pods.run("sweep", "hone-contents")


def test_sets_that_were_cut_by_hand_see_each_other(namespace: Namespace, pods: Pods) -> None:
    """Rows 30 to 40 are in both Datasets: one reports them, and the other removes them."""

    def made(name: str, start: int, end: int, **spec: Any) -> Any:
        (pods.folder / "rows.jsonl").write_text(rows(start, end))
        namespace.create("Dataset", name, {"source": {"uri": "pvc://data/rows.jsonl"}, "format": "Text", **spec})
        pods.run("materialize", name)
        namespace.until(
            lambda: namespace.condition("Dataset", name, "Ready").get("status") == "True", f"{name} is Ready"
        )
        return namespace.get("Dataset", name)["status"]

    first = made("first", 0, 40)
    assert not first.get("sharedRows")
    (shared,) = made("second", 30, 90)["sharedRows"]
    crossing = shared.pop("crossing", 0)
    assert shared == {"name": "first", "digest": first["digest"], "rows": 10, "questions": 10}
    assert crossing <= 10
    third = made("third", 30, 90, curation={"deduplicateAgainst": [{"name": "first"}]})
    assert (third["rows"], third["curation"][0]["step"], third["curation"][0]["removed"]) == (50, "SharedRows", 10)
    assert [(one["name"], one["rows"]) for one in third["sharedRows"]] == [("second", 50)]
