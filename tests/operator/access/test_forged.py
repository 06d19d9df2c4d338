"""Status, Jobs and pods that somebody else wrote: each is decided about without an error of the operator, and settles.

Whoever may write them harms at most the object that they are about; no input ends in InternalError, for which somebody
is woken, and none makes the operator write for ever.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.cluster.memory_cluster import Body, MemoryCluster
from support.lives.world import MemoryWorld

from hone_api.generate import KINDS
from hone_api.kinds.resolved import Resolved
from hone_api.schema.schema import crd, structural
from hone_operator.queueing.routing import Key, contents_of

pytestmark = [pytest.mark.pure, pytest.mark.attack("objects at the API server")]
NOW = "2026-01-02T03:04:05Z"
ODD_TIMES = ("0000-01-01T00:00:00Z", "2026-01-01t00:00:00z", "2026-01-01T00:00:00+99:99", "9999-12-31T23:59:59Z")
"""The API server takes all of them for a date-time."""
DIGEST = "sha256:" + "a" * 64
PLAIN = (
    *("x", "1", DIGEST, "a" * 40, "pvc://c/x", "hf://a/b", "0.5", "x@" + "a" * 40),
    *("https://issuer.example.org", f"registry.example.org/a@{DIGEST}"),
)
"""Texts: for each pattern, one of them matches."""
SPECS: dict[str, Any] = {
    "FineTuneJob": {
        "model": {"uri": "hf://org/model"},
        "datasets": [{"name": "rows"}],
        "output": {"modelName": "tutor"},
        "cleanup": {"podsAfter": "1h"},
        "deadline": "30d",
        "resources": {"gpusPerNode": 1},
        "budget": {"money": "1000000000", "gpuHourPrice": "0.000001"},
    },
    "Dataset": {"source": {"uri": "pvc://data/rows.jsonl"}},
    "ModelVersion": {
        "modelName": "tutor",
        "version": 1,
        "artifacts": [{"format": "Adapter", "uri": "pvc://hone-store/models/x/a", "digest": DIGEST, "sizeBytes": 1}],
        "lineage": {"baseModel": {"uri": "hf://a/b"}, "datasets": [], "job": {"name": "run", "uid": "u"}},
    },
    "Model": {
        "aliases": [{"name": "production", "version": 1}],
        "retrain": {"fineTuneJob": "run", "rows": {"share": "5%"}, "times": {"every": "30d"}, "base": {}},
        "deliveries": [{"uri": "pvc://share/x", "when": "Ready"}],
    },
}


def condition(type_: str) -> Body:
    return {"type": type_, "status": "True", "reason": "x", "message": "", "lastTransitionTime": NOW}


def namespace(kind: str, status: Body) -> MemoryWorld:
    """A Dataset that is Ready, and an object of this kind named `it`."""
    world = MemoryWorld()
    world.claims("data", "hone-store")
    world.rows()
    if kind == "Model":  # the job that it repeats
        spec = {**SPECS["FineTuneJob"], "output": {"modelName": "it"}}
        world.add("FineTuneJob", "run", spec, {"conditions": [condition("Finished"), condition("Succeeded")]})
    world.add(kind, "it", SPECS[kind], status)
    return world


def settles(world: MemoryWorld, kind: str) -> None:
    """Reconcile the object until nothing is written any more; an error of the operator is an error here."""
    writes = world.cluster.writes
    world.tell()

    async def rounds() -> list[int]:
        """Writes after each round, at most eight; two without a write end them: time does not pass here."""
        written = [len(writes)]
        while len(written) <= 8 and (len(written) < 3 or written[-1] != written[-3]):
            await world.controllers.process(Key(kind, "team", "it"))
            world.tell()
            written.append(len(writes))
        await world.controllers.process(contents_of("team"))
        return written

    written = asyncio.run(rounds())
    assert written[-1] == written[-2], writes[-4:]


# -- spec: durations ---------------------------------------------------------------------------------

LONG = ("3000000d", "99999999999999999999999d", "9999999h9999999m9999999s")
STARTED = {
    "startTime": NOW,
    "attempts": [{"number": 1, "jobName": "it-1", "startTime": NOW, "outcome": "Running"}],
}
DURATIONS: dict[str, tuple[str, Body, Any]] = {
    "deadline": ("FineTuneJob", STARTED, lambda text: {"deadline": text}),
    "podsAfter": (
        "FineTuneJob",
        {"conditions": [condition("Finished"), condition("Succeeded")], "completionTime": NOW},
        lambda text: {"cleanup": {"podsAfter": text}},
    ),
    "every": (
        "Dataset",
        {"conditions": [condition("Ready")], "digest": DIGEST, "observedGeneration": 1, "readTime": NOW},
        lambda text: {"refresh": {"every": text}},
    ),
}


@pytest.mark.parametrize("text", LONG)
@pytest.mark.parametrize("field", DURATIONS)
def test_a_duration_beyond_every_date_is_not_an_error_of_the_operator(
    field: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, status, spec = DURATIONS[field]
    monkeypatch.setitem(SPECS, kind, {**SPECS[kind], **spec(text)})
    world = namespace(kind, copy.deepcopy(status))
    settles(world, kind)
    assert "InternalError" not in json.dumps(world.cluster.objects[kind, "team", "it"]["status"])


# -- status, field by field --------------------------------------------------------------------------


def odd(schema: dict[str, Any]) -> list[Any]:
    """Values at the edge of what the definition takes."""
    kind = schema.get("type")
    if "enum" in schema:
        return list(schema["enum"])
    if kind == "string" and schema.get("format") == "date-time":
        return list(ODD_TIMES)
    if kind == "string":
        long = "[" * min(3000, schema.get("maxLength", 3000))
        return [plain(schema)] if "pattern" in schema else ["", "\u0000\u202e{}%s", long]
    if kind in ("integer", "number"):
        return [schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)]
    return {"boolean": [True, False], "array": [[]]}.get(str(kind), [{}])


def plain(schema: dict[str, Any]) -> Any:
    """The least that the definition takes."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "date-time":
        return NOW
    kind = str(schema.get("type"))
    if kind == "object":
        return {name: plain(schema["properties"][name]) for name in schema.get("required", ())}
    if kind == "string":
        return next(text for text in PLAIN if re.search(schema.get("pattern", ""), text))
    return {"array": [], "boolean": True}.get(kind, schema.get("minimum", 1))


def values(schema: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """(path, value) with one odd leaf each; of an object everything else is the least that must be there."""
    if fields := schema.get("properties"):
        for name, child in fields.items():
            for where, value in values(child, f"{path}.{name}"):
                yield where, plain(schema) | {name: value}
        yield path, plain(schema)
    elif schema.get("type") == "array":
        yield from ((where, [value]) for where, value in values(schema["items"], f"{path}[]"))
        yield path, []
    elif isinstance(schema.get("additionalProperties"), dict):
        yield from ((where, {"k": v}) for where, v in values(schema["additionalProperties"], f"{path}{{}}"))
    else:
        yield from ((path, value) for value in odd(schema))


def statuses() -> list[Any]:
    found = []
    for kind in KINDS:
        schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
        for name, child in schema["properties"].items():
            for number, (path, value) in enumerate(values(child, name)):
                found.append(pytest.param(kind.kind, {name: value}, id=f"{kind.kind}-{path}-{number}"))
    return found


@pytest.mark.parametrize(("kind", "status"), statuses())
def test_a_forged_status(kind: str, status: Body) -> None:
    settles(namespace(kind, status), kind)


@pytest.mark.parametrize("when", ODD_TIMES)
@pytest.mark.parametrize("field", ["startTime", "completionTime"])
@pytest.mark.parametrize("type_", ["Finished", "Succeeded", "Running"])
def test_a_forged_time_of_a_job_that_has_come_so_far(type_: str, field: str, when: str) -> None:
    settles(namespace("FineTuneJob", {field: when, "conditions": [condition(type_)]}), "FineTuneJob")


# -- Jobs and pods that say they are the run's -------------------------------------------------------


def with_job(end: str | None, labels: Body | None = None, annotations: Body | None = None, **fields: Any) -> Any:
    """The FineTuneJob, and a Job that says it is the first attempt."""
    world = namespace("FineTuneJob", {})
    uid = world.cluster.objects["FineTuneJob", "team", "it"]["metadata"]["uid"]
    owner = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "name": "it", "uid": uid, "controller": True}
    meta = {
        "name": "it-1",
        "namespace": "team",
        "labels": {"hone.dev/component": "training", "hone.dev/attempt": "1", **(labels or {})},
        "annotations": annotations or {},
        "ownerReferences": [owner],
    }
    status = {"conditions": [condition(end)]} if end else {}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"completions": 1}, "status": status}
    return world, world.cluster.add({**body, **fields})


def add_pod(cluster: MemoryCluster, job: Body, state: Body, labels: Body | None = None, phase: str = "Failed") -> None:
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    meta = {
        "name": f"{name}-0-x",
        "namespace": "team",
        "labels": {"hone.dev/component": "training", "batch.kubernetes.io/job-name": name, **(labels or {})},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}],
    }
    status = {"phase": phase, "containerStatuses": [{"name": "trainer", "state": copy.deepcopy(state)}]}
    cluster.add({"kind": "Pod", "metadata": meta, "spec": {"nodeName": "n"}, "status": status})


MESSAGES = {
    "nothing": "",
    "log lines": "garbage" * 585,
    "deep": "[" * 4096,
    "deep objects": '{"result":' * 400,
    "huge number": '{"result":{"kind":"Training","steps":1' + "0" * 4000 + "}}",
    "infinite": '{"result":{"kind":"Training","artifacts":[],"steps":1e999}}',
    "NaN": '{"result":{"kind":"Training","artifacts":[],"steps":NaN}}',
    "surrogates": '{"failure":{"code":"TrainerError","message":"\\ud800 x"}}',
    "key twice": '{"failure":{"code":"x","code":"TrainerError","message":"z"}}',
    "list": "[]",
    "number": "1",
    "both null": '{"result":null,"failure":null}',
    "unknown code": '{"failure":{"code":"NEVER","message":""}}',
    "rank": '{"failure":{"code":"TrainerError","message":"m","rank":99999999999999999999}}',
    "step": '{"failure":{"code":"Interrupted","message":"m","step":9007199254740991}}',
    "of other work": '{"result":{"kind":"Sweep","removed":1,"sizeBytes":1}}',
    "without a model": '{"result":{"kind":"Training","steps":1,"artifacts":[]}}',
    "control characters": "\u0000\u0001\u202e",
}


@pytest.mark.parametrize("exit_code", [0, 75, -1, 2**31])
@pytest.mark.parametrize("end", ["Complete", "Failed"])
@pytest.mark.parametrize("message", MESSAGES)
def test_what_a_pod_leaves(message: str, end: str, exit_code: int) -> None:
    world, job = with_job(end)
    ended = {"exitCode": exit_code, "message": MESSAGES[message], "finishedAt": NOW}
    add_pod(world.cluster, job, {"terminated": ended})
    settles(world, "FineTuneJob")
    assert not world.cluster.of("ModelVersion")


PINNED = '{"datasetDigests":{"rows":"' + DIGEST + '"}'
RECORDS = {
    "list": "[]",
    "cut": "{",
    "number": "1",
    "null": "null",
    "deep": "[" * 100_000,
    "no digests": '{"datasetDigests":"x"}',
    "digest of no text": '{"datasetDigests":{"rows":1}}',
    "surrogates": '{"datasetDigests":{"rows":"\\ud800"}}',
    "huge number": PINNED + ',"worldSize":1' + "0" * 400 + "}",
    "no model": PINNED + ',"modelUri":null}',
    "no address": PINNED + ',"modelUri":"::::"}',
}


@pytest.mark.parametrize("end", [None, "Complete", "Failed"])
@pytest.mark.parametrize("annotation", ["hone.dev/resolved", "hone.dev/ancestors"])
@pytest.mark.parametrize("record", RECORDS)
def test_what_a_job_says_it_was_given(record: str, annotation: str, end: str | None) -> None:
    world, job = with_job(end, annotations={annotation: RECORDS[record]})
    add_pod(world.cluster, job, {"terminated": {"exitCode": 75, "message": "x", "finishedAt": NOW}})
    settles(world, "FineTuneJob")


GIVEN = [
    *((where, value) for where, value in values(structural(Resolved), "resolved") if isinstance(value, dict)),
    ("of another Dataset", {"datasetDigests": {"other": DIGEST}}),
    ("held-out rows of another Dataset", {"evaluationDatasets": ["other/test"]}),
    ("held-out rows of none", {"evaluationDatasets": ["/"]}),
]


WAYS = [(more, end) for more in (False, True) for end in (None, "Complete", "Failed")]


@pytest.mark.parametrize(
    ("given", "more", "end"),
    [
        pytest.param(value, *way, id=f"{i} {where} {j}", marks=() if j == i % len(WAYS) else pytest.mark.long)
        for i, (where, value) in enumerate(GIVEN)
        for j, way in enumerate(WAYS)
    ],
)
def test_what_a_job_says_it_was_resolved_to(given: Body, more: bool, end: str | None) -> None:
    """Of a run that names one Dataset, or another one that is gone; `make test` has each value in one of the ways."""
    record = {"datasetDigests": {"rows": DIGEST}} | given
    world, job = with_job(end, annotations={"hone.dev/resolved": json.dumps(record)})
    if more:
        world.cluster.objects["FineTuneJob", "team", "it"]["spec"]["datasets"] = [{"name": "rows"}, {"name": "gone"}]
    add_pod(world.cluster, job, {"terminated": {"exitCode": 75, "message": "x", "finishedAt": NOW}})
    settles(world, "FineTuneJob")


@pytest.mark.parametrize("end", [None, "Complete", "Failed"])
@pytest.mark.parametrize("number", ["", "abc", "0", "-1", "1" + "0" * 60, "2", "00001", "129"])
def test_the_number_of_an_attempt(number: str, end: str | None) -> None:
    world, job = with_job(end, {"hone.dev/attempt": number})
    add_pod(world.cluster, job, {"terminated": {"exitCode": 1}})
    settles(world, "FineTuneJob")


@pytest.mark.parametrize("index", ["x", "-1", "9" * 60, "", "1"])
def test_the_rank_of_a_pod(index: str) -> None:
    world, job = with_job("Failed")
    add_pod(world.cluster, job, {"terminated": {"exitCode": 1}}, {"batch.kubernetes.io/job-completion-index": index})
    settles(world, "FineTuneJob")


@pytest.mark.parametrize("end", [None, "Failed"])
@pytest.mark.parametrize("state", [{}, {"waiting": {}}, {"waiting": {"reason": "ErrImagePull"}}, {"terminated": {}}])
def test_the_state_of_a_container(state: Body, end: str | None) -> None:
    world, job = with_job(end)
    add_pod(world.cluster, job, state, phase="Failed" if end else "Pending")
    settles(world, "FineTuneJob")


@pytest.mark.parametrize("end", [None, "Complete", "Failed"])
def test_a_job_without_a_shape(end: str | None) -> None:
    world, _ = with_job(end, spec={})
    settles(world, "FineTuneJob")
