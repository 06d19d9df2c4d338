"""Finished objects are packed: they read as before, and are found as before."""

import copy
import hashlib
import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from hone_operator.objects import packing
from hone_operator.objects.cache import Cache, strip
from hone_operator.objects.packing import PackedBody

pytestmark = pytest.mark.pure

RECORDED = json.loads((Path(__file__).parents[1] / "objects_of_an_earlier_operator.json").read_text())["objects"]
OURS = ("FineTuneJob", "Dataset", "ModelVersion", "Model")


def job(version: int, **status: Any) -> dict[str, Any]:
    spec = {
        "model": {"fineTuneJob": "before"},
        "datasets": [{"name": "rows"}],
        "output": {"modelName": "tutor"},
    }
    return {
        "apiVersion": "hone.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"namespace": "team", "name": "run", "uid": "u", "resourceVersion": str(version)},
        "spec": spec,
        "status": status,
    }


def condition(type_: str, status: str = "True") -> dict[str, Any]:
    return {
        "type": type_,
        "status": status,
        "reason": "R",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def finished(version: int, **status: Any) -> dict[str, Any]:
    return job(version, phase="Succeeded", conditions=[condition("Finished")], **status)


def names(bodies: list[Any]) -> list[str]:
    return [body["metadata"]["name"] for body in bodies]


@pytest.mark.parametrize(
    "value",
    [True, 1, 1.5, 2**70, None, "", "Grüße \u2028", "half a pair \ud800", [], {}, {"a": [{"b": [None, False]}]}],
    ids=repr,
)
def test_every_json_value_comes_back_as_it_was(value: Any) -> None:
    body = {"apiVersion": "v", "kind": "k", "metadata": {"name": "n"}, "spec": {"x": value}, "status": {"y": [value]}}
    packed = PackedBody(copy.deepcopy(body))
    assert packed == body
    assert {**packed} == body
    assert type(packed["spec"]["x"]) is type(value)
    assert packed.get("other") is None


@pytest.mark.parametrize("body", [o for o in RECORDED if o["kind"] in OURS], ids=lambda body: body["kind"])
def test_the_cache_returns_what_was_put_into_it(body: dict[str, Any]) -> None:
    cache, meta, kind = Cache(), body["metadata"], body["kind"]
    cache.put(kind, copy.deepcopy(body))
    kept = cache.get(kind, meta["namespace"], meta["name"])
    assert kept == strip(kind, body)
    assert cache.items(kind) == cache.items(kind, meta["namespace"]) == [kept]


@pytest.mark.parametrize(
    ("kind", "ends", "packed"),
    [
        ("FineTuneJob", "Finished", True),
        ("FineTuneJob", "Ready", False),
        ("ModelVersion", "Ready", True),
        ("ModelVersion", "Stalled", True),
        ("ModelVersion", "Verified", False),
        ("Dataset", "Ready", False),
        ("Model", "Ready", False),
    ],
)
def test_what_stays_as_a_record_is_packed(kind: str, ends: str, packed: bool) -> None:
    def kept(status: str) -> Any:
        cache = Cache()
        cache.put(kind, {**job(1, conditions=[condition(ends, status)]), "kind": kind})
        return cache.get(kind, "team", "run")

    assert isinstance(kept("True"), PackedBody) == packed
    assert isinstance(kept("False"), dict)


def test_newer_wins_also_over_a_packed_body() -> None:
    cache = Cache()
    cache.put("FineTuneJob", finished(5, reason="first"))
    assert not cache.put("FineTuneJob", finished(5, reason="again"))
    assert not cache.put("FineTuneJob", job(4))
    assert cache.get("FineTuneJob", "team", "run")["status"]["reason"] == "first"
    assert cache.has("FineTuneJob", finished(5))
    assert not cache.has("FineTuneJob", finished(6))
    assert cache.put("FineTuneJob", finished(6, reason="second"))
    assert cache.get("FineTuneJob", "team", "run")["status"]["reason"] == "second"


def test_a_job_that_has_ended_is_found_by_its_model_alone_until_it_runs_again() -> None:
    """Its status may be lost, e.g. when it is restored from a backup."""

    def found() -> list[list[str]]:
        return [
            names(cache.unfinished("team")),
            names(cache.followers("team", "before")),
            names(cache.users("Dataset", "team", "rows")),
            names(cache.making("team", "tutor")),
        ]

    cache = Cache()
    cache.put("FineTuneJob", job(1))
    assert found() == [["run"]] * 4
    cache.put("FineTuneJob", finished(2))
    assert found() == [[], [], [], ["run"]]
    cache.put("FineTuneJob", job(3))
    assert found() == [["run"]] * 4
    assert cache.get("FineTuneJob", "team", "run") == strip("FineTuneJob", job(3))


def test_a_packed_body_leaves_nothing_behind() -> None:
    cache = Cache()
    cache.put("FineTuneJob", finished(1))
    model = next(o for o in RECORDED if o["kind"] == "ModelVersion" and "verifiedAt" in o["status"])
    cache.put("ModelVersion", model)
    assert isinstance(cache.get("ModelVersion", "team", "tutor-v1"), PackedBody)
    assert names(cache.versions_of("team", "tutor")) == ["tutor-v1"]
    cache.remove("FineTuneJob", cache.get("FineTuneJob", "team", "run"))
    cache.remove("ModelVersion", model)
    assert len(cache) == 0
    assert not cache.put("FineTuneJob", finished(2)), "the answer to an earlier request"
    indexes = [value for name, value in vars(cache).items() if name not in ("_objects", "_gone")]
    assert not any(indexes), "namespaces, models and jobs come and go"


def test_a_version_is_found_by_those_in_its_lineage() -> None:
    def version(name: str, number: int, *parents: str) -> dict[str, Any]:
        ancestors = [{"modelVersion": parent, "uri": "hf://o/n"} for parent in parents[1:]]
        base = {"modelVersion": parents[0]} if parents else {"uri": "hf://o/n"}
        body = job(1, conditions=[condition("Ready")])
        body["metadata"] |= {"name": name, "uid": name}
        spec = {"modelName": "tutor", "version": number, "lineage": {"baseModel": base, "ancestors": ancestors}}
        return {**body, "kind": "ModelVersion", "spec": spec}

    cache = Cache()
    for each in (version("v1", 1), version("v2", 2, "v1"), version("v3", 3, "v2", "v1")):
        cache.put("ModelVersion", each)
    assert names(cache.trained_from("team", "v1")) == ["v2", "v3"]
    assert names(cache.trained_from("team", "v2")) == ["v3"]
    assert names(cache.trained_from("team", "v3")) == []


def test_a_finished_job_and_its_model_take_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what Python allocates; what the allocator adds is in docs/reliability.md."""
    monkeypatch.setattr(packing, "_dictionaries", {})  # that of another test's bodies serves 256 more, and less well
    count, cache = 100, Cache()
    ended = [o for o in RECORDED if "completionTime" in o["status"] or "verifiedAt" in o["status"]]
    texts = {o["kind"]: json.dumps(o) for o in ended if o["kind"] in ("FineTuneJob", "ModelVersion")}

    def add(number: int) -> None:
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        for kind, text in texts.items():
            body = json.loads(re.sub("[0-9a-f]{64}", digest, text.replace("T03:", f"T{number % 24:02}:")))
            body["metadata"] |= {"name": f"{kind}-{number:040}", "uid": f"{kind}-{number:036}"}
            cache.put(kind, body)

    add(0)  # what is loaded once does not count

    def growth(first: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(first, first + count):
            add(number)
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    each = min(map(growth, (1, 1 + count, 1 + 2 * count))) / count  # threads of other tests allocate meanwhile
    tracemalloc.stop()
    assert each < 2.8 * 1024, "without packing 12 KiB, without a dictionary 3.1 KiB"


def test_bodies_that_have_nothing_in_common_are_packed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dictionary changes, also to one that does not help, and is never larger than its bound."""
    monkeypatch.setattr(packing, "SAME_DICTIONARY", 2)
    monkeypatch.setattr(packing, "_dictionaries", {})
    bodies = [finished(number, reason=os.urandom(2000 * number).hex()) for number in range(1, 12)]
    packed = [PackedBody(copy.deepcopy(body)) for body in bodies]
    assert packed == bodies
    dictionaries = [body._dictionary for body in packed]
    assert len(set(dictionaries)) > 2
    assert max(map(len, dictionaries)) <= packing.LARGEST_DICTIONARY < len(bodies[-1]["status"]["reason"])


def test_packed_bodies_outlive_their_dictionary() -> None:
    bodies = [finished(number, reason="r" * number) for number in range(2 * packing.SAME_DICTIONARY)]
    packed = [PackedBody(copy.deepcopy(body)) for body in bodies]
    packing._dictionaries.clear()
    packing._unpacked.cache_clear()
    assert packed == bodies
