"""Rows are encoded by a CPU Job before any GPU is requested, once for all runs that use them, and pinned."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from support.cluster.platforms import changed, platform_with

from hone_api.contract import encoding
from hone_api.contract.plan_reading import parse_plan
from hone_api.kinds.finetunejob_status import JobProgress
from hone_operator.desired.staging.encode import pods_for
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.staging.encoding import ObservedEncoding
from hone_operator.reconcile.staging.staging import StoreState
from hone_operator.reconcile.store import store_gc

pytestmark = pytest.mark.pure
ROWS = "sha256:" + "5" * 64
MODEL = "sha256:" + "6" * 64
DIGEST = "sha256:" + "7" * 64
COMMIT = "c" * 40
PLATFORM = platform_with("trainer:1", progress_url="https://hone.svc:8443", progress_ca="PEM")
FETCHED = {"kind": "Fetch", "path": f"base-models/org--model/{COMMIT}", "commit": COMMIT, "digest": MODEL}
ENCODED = {
    "kind": "Encode",
    "digest": DIGEST,
    "splits": 2,
    "rows": 100,
    "tokens": 34567,
    "tokensPerSecond": "190000",
    "summary": ["rows/train: 90 rows, 30000 tokens, 20000 trained"],
}


class Encoding:
    """A job whose data and model are ready; `tick` observes what the decision asks to observe."""

    def __init__(self, world: Any, life: Any, size: int = 10**9, *, fetches: bool = True) -> None:
        self.world, self.life = world, life
        life.datasets = {"rows": world.dataset(digest=ROWS, sizeBytes=size)}
        if fetches:
            life.tick()
            life.ends("Complete", world.dead(0, outcome={"result": FETCHED}), seconds=5)
        self.report: Latest | None = None

    def tick(self, seconds: float = 10, **seen: Any) -> Any:
        if (outcome := self.life.tick(seconds, **seen)).look is None:
            return outcome
        assert outcome.create == ()
        assert outcome.status is None
        jobs = [j for j in self.life.shared if j.body["metadata"]["labels"]["hone.dev/content"] == outcome.look.key]
        return self.life.tick(seconds, encoder=ObservedEncoding(StoreState(self.life.claim, jobs), self.report), **seen)

    def done(self, outcome: Any = None, type_: str = "Complete", seconds: float = 60) -> None:
        code = 0 if type_ == "Complete" else 65
        self.life.ends(type_, self.world.dead(code, outcome=outcome or {"result": ENCODED}), seconds=seconds)


@pytest.fixture
def large(world, new_life) -> Encoding:
    return Encoding(world, new_life(model={"uri": "hf://org/model"}))


def of_component(outcome: Any, component: str) -> list[dict[str, Any]]:
    return [
        b for b in outcome.create if b["kind"] == "Job" and b["metadata"]["labels"]["hone.dev/component"] == component
    ]


def plan_of(outcome: Any) -> Any:
    (config,) = (b for b in outcome.create if b["kind"] == "ConfigMap")
    return parse_plan(config["data"]["plan.json"].encode())


def test_a_small_dataset_is_encoded_by_the_run(world, new_life, conditions):
    small = Encoding(world, new_life(model={"uri": "hf://org/model"}), size=32 * 2**20 - 1)
    outcome = small.tick()
    assert len(of_component(outcome, "training")) == 1
    assert "RowsEncoded" not in conditions(small.life.status)
    assert "encoding" not in small.life.status
    assert plan_of(outcome).encoded_path is None


def test_rows_are_encoded_before_anything_trains(large, conditions):
    outcome = large.tick()
    (job,) = of_component(outcome, "encode")
    assert of_component(outcome, "training") == []
    assert outcome.events == (), "as planned: nothing to tell"
    status = large.life.status
    assert conditions(status)["RowsEncoded"] == "False/Encoding"
    assert conditions(status)["ModelReady"] == "True/Available"
    assert status["phase"] == "Preparing"
    plan = plan_of(outcome)
    assert plan.encoded_path == "/store/encoded"
    assert status["encoding"]["keys"] == encoding.keys(plan)
    assert status["encoding"]["work"] == job["metadata"]["labels"]["hone.dev/content"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][-2:] == ["encode", "/etc/hone/plan.json"]
    assert not any("gpu" in name for name in container["resources"]["requests"])
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
    assert mounts["/store/encoded"] is False
    assert mounts["/store/datasets"] is mounts["/store/base-models/org--model"] is True
    assert not any(path.startswith(("/store/runs", "/store/models")) for path in mounts)
    assert large.tick(20).create == ()


def test_the_run_reads_what_was_encoded_and_nothing_else(large, conditions):
    large.tick()
    large.done()
    outcome = large.tick(70)
    (job,) = of_component(outcome, "training")
    plan, status = plan_of(outcome), large.life.status
    assert (plan.encoded_path, plan.encoded_digest) == ("/store/encoded", DIGEST)
    assert status["resolved"]["encodedRows"] == {"keys": encoding.keys(plan), "digest": DIGEST}
    assert conditions(status)["RowsEncoded"] == "True/Encoded"
    assert {k: status["encoding"][k] for k in ("rows", "tokens", "tokensPerSecond")} == {
        "rows": 100,
        "tokens": 34567,
        "tokensPerSecond": "190000",
    }
    mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert [m["readOnly"] for m in mounts if m["mountPath"] == "/store/encoded"] == [True]
    message = next(c["message"] for c in status["conditions"] if c["type"] == "RowsEncoded")
    assert "34,567 tokens" in message
    assert "20000 trained" in message

    large.life.datasets = {}
    large.life.shared.clear()
    later = large.tick(80)
    assert later.create == (), "the attempt has pinned its rows"
    assert conditions(large.life.status)["RowsEncoded"] == "True/Encoded"


def test_another_job_with_the_same_rows_uses_the_same_work(world, new_life, large):
    large.tick()
    large.done()
    other = new_life(model={"uri": "hf://org/model"}, training={"learningRate": "1e-3"})
    other.shared = large.life.shared
    other.job["metadata"] |= {"name": "other", "uid": "other-uid"}
    second = Encoding.__new__(Encoding)
    second.world, second.life, second.report = world, other, None
    other.datasets = large.life.datasets
    outcome = second.tick(70)
    assert of_component(outcome, "encode") == []
    assert len(of_component(outcome, "training")) == 1


def test_two_jobs_that_ask_at_the_same_moment_create_equal_objects(world, new_life, large):
    """Neither has seen the other's Job: of unequal ones, the second would be refused because its name is taken."""
    other = new_life(
        model={"uri": "hf://org/model"},
        datasets=[{"name": "rows", "share": "100%"}],
        training={"learningRate": "1e-3", "batchSize": 4},
        sft={"neftuneAlpha": "5"},
        adapter={"type": "None"},
    )
    other.job["metadata"] |= {"name": "other", "uid": "other-uid"}
    other.shared = list(large.life.shared)
    other.datasets = large.life.datasets
    second = Encoding.__new__(Encoding)
    second.world, second.life, second.report = world, other, None
    made = [[b for b in each.tick().create if b["kind"] in ("Job", "ConfigMap")] for each in (large, second)]
    plain = [json.dumps(bodies, sort_keys=True, default=str) for bodies in made]
    assert len(made[0]) == 2
    assert plain[0] == plain[1]


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"maxLength": 64}},
        {"training": {"thinking": "Disabled"}},
        {"training": {"ropeScaling": {"factor": "4"}}, "adapter": {"type": "None"}},
        {"sft": {"trainOn": "LastAssistant"}},
    ],
)
def test_other_tokens_are_other_work(world, new_life, large, change):
    large.tick()
    large.done()
    other = new_life(model={"uri": "hf://org/model"}, **change)
    other.shared = large.life.shared
    other.datasets = large.life.datasets
    second = Encoding.__new__(Encoding)
    second.world, second.life, second.report = world, other, None
    assert len(of_component(second.tick(70), "encode")) == 1


def test_several_pods_share_the_work_of_a_large_dataset(world, new_life, conditions):
    several = Encoding(world, new_life(model={"uri": "hf://org/model"}), size=9 * 2**30)
    world.platform = changed(world.platform, encoding__pods=3)
    outcome = several.tick()
    assert [b["kind"] for b in outcome.create] == ["Job", "ConfigMap"]
    job, plan = outcome.create[0]["spec"], plan_of(outcome)
    assert (job["completions"], job["parallelism"], plan.pods) == (3, 3, 3)
    assert job["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert encoding.keys(plan) == several.life.status["encoding"]["keys"]
    assert several.tick(20).create == ()


@pytest.mark.parametrize(("size", "pods"), [(2**30, 1), (2**30 + 1, 2), (2**31, 2), (2**40, 8), (0, 1)])
def test_there_is_a_pod_for_each_gigabyte_as_far_as_the_platform_allows(size, pods):
    assert pods_for(size, changed(PLATFORM, encoding__pods=8)) == pods
    assert pods_for(size, PLATFORM) == 1
    assert pods_for(size, changed(PLATFORM, encoding__pods=8, store__access_mode="ReadWriteOnce")) == 1


REPORTED = JobProgress(
    stage="Encoding",
    step=40000,
    total_steps=86700,
    percent=46,
    summary="40000/86700 46%",
    eta="8m",
    tokens_per_second="1.25e+06",
    last_updated_time="2026-01-02T00:00:00Z",
)
"""As the operator keeps what the pod that encodes reports: its steps are rows."""


def test_progress_is_shown_while_rows_are_encoded(large):
    large.tick()
    assert "progress" not in large.life.status
    large.report = Latest(0, REPORTED, datetime(2026, 1, 2, tzinfo=UTC))
    outcome = large.tick(20)
    status = large.life.status
    assert status["progress"] == {
        "step": 0,
        "percent": 46,
        "summary": "rows 40000/86700 46%",
        "eta": "8m",
        "stage": "Encoding",
        "tokensPerSecond": "1.25e+06",
        "lastUpdatedTime": "2026-01-02T00:00:00Z",
    }
    assert set(status["encoding"]) == {"work", "keys"}
    messages = {c["type"]: c["message"] for c in status["conditions"]}
    assert messages["RowsEncoded"] == "The rows are being encoded: 40000 of 86700, 1250000 tokens a second, 8m left."
    assert messages["Ready"] == messages["RowsEncoded"]
    assert outcome.events == ()
    assert outcome.check_again_in == 15
    assert large.tick(20).status is None, "no newer report: nothing to write"


def test_before_the_rows_are_counted_the_activity_of_the_pod_is_shown(large):
    large.tick()
    large.report = Latest(0, JobProgress(stage="Loading", summary="Loading"), datetime(2026, 1, 2, tzinfo=UTC))
    large.tick(20)
    assert large.life.status["progress"] == {"step": 0, "percent": 0, "stage": "Loading", "summary": "Loading"}
    messages = {c["type"]: c["message"] for c in large.life.status["conditions"]}
    assert messages["RowsEncoded"] == "The rows are being staged in the store."


@pytest.mark.parametrize("end", ["encoded", "killed", "refused", "dataset deleted", "operator restarted"])
def test_the_progress_of_the_encoding_goes_with_it(world, large, end):
    large.tick()
    large.report = Latest(0, REPORTED, datetime(2026, 1, 2, tzinfo=UTC))
    large.tick(20)
    assert "progress" in large.life.status
    if end == "dataset deleted":
        large.life.datasets = {}
    else:
        large.report = None
    if end == "encoded":
        large.done()
    elif end == "killed":
        large.life.ends("Failed", world.dead(137), seconds=60)
    elif end == "refused":
        large.done(world.failure("InvalidRow", "line 7000: not JSON"), "Failed")
    outcome = large.tick(61)
    assert "progress" not in large.life.status
    assert bool(of_component(outcome, "training")) == (end == "encoded")


def test_an_attempt_that_begins_again_says_why_the_last_one_failed(world, large, conditions):
    large.tick()
    large.life.ends("Failed", world.dead(137), seconds=60)
    large.tick(61)
    large.tick(75)
    large.report = Latest(0, REPORTED, datetime(2026, 1, 2, tzinfo=UTC))
    large.tick(90)
    assert conditions(large.life.status)["RowsEncoded"] == "False/RankFailed"
    assert large.life.status["progress"]["summary"] == "rows 40000/86700 46%"


def test_a_bad_row_ends_the_job_before_a_gpu_is_requested(world, large, conditions):
    large.tick()
    words = "/store/datasets/5/train.jsonl, line 7000: not JSON"
    large.done(world.failure("InvalidRow", words), "Failed")
    outcome = large.tick(70)
    assert of_component(outcome, "training") == []
    assert conditions(large.life.status)["Failed"] == "True/InvalidRow"
    assert large.life.status["failure"]["message"] == words


def test_a_killed_pod_is_tried_again(world, large, conditions):
    large.tick()
    large.life.ends("Failed", world.dead(137), seconds=60)
    assert of_component(large.tick(61), "encode") == []
    assert conditions(large.life.status)["RowsEncoded"] == "False/RankFailed"
    assert len(of_component(large.tick(75), "encode")) == 1


def test_a_suspended_job_encodes_nothing(large, conditions):
    large.life.job["spec"]["suspend"] = True
    assert large.tick().create == ()
    assert conditions(large.life.status)["RowsEncoded"] == "False/Suspended"


def test_what_a_job_reads_stays_until_it_has_ended(large):
    large.tick()
    job = large.life.job
    keys = job["status"]["encoding"]["keys"]
    assert {f"encoded.{key}" for key in keys} <= store_gc.referred_keys([("FineTuneJob", job)], "hone-store")
    large.done()
    large.tick(70)
    del job["status"]["encoding"]
    assert {f"encoded.{key}" for key in keys} <= store_gc.referred_keys([("FineTuneJob", job)], "hone-store")
    finished = {"type": "Finished", "status": "True", "reason": "Succeeded", "message": ""}
    ended = {**job, "status": {**job["status"], "conditions": [finished]}}
    assert not {f"encoded.{key}" for key in keys} & store_gc.referred_keys([("FineTuneJob", ended)], "hone-store")
    ledger = store_gc.update_ledger({}, {f"encoded.{keys[0]}"}, datetime(2026, 1, 2, tzinfo=UTC))
    assert ledger == {f"encoded.{keys[0]}": ""}
    idle = store_gc.update_ledger(ledger, set(), datetime(2026, 1, 2, tzinfo=UTC))
    assert idle == {f"encoded.{keys[0]}": "2026-01-02T00:00:00Z"}


def test_nothing_that_differs_by_attempt_is_part_of_a_key(large):
    large.tick()
    large.done()
    plan = plan_of(large.tick(70))
    assert encoding.keys(plan.model_copy(update={"attempt": 7, "run": "other"})) == encoding.keys(plan)


def test_rows_for_a_base_in_an_image_are_encoded_where_its_secret_pulls_it(world, new_life):
    model = {"uri": f"oci://registry.example.org/bases/m@{MODEL}", "secretName": "hone-pull"}
    (job,) = of_component(Encoding(world, new_life(model=model), fetches=False).tick(), "encode")
    pod = job["spec"]["template"]["spec"]
    assert {"name": "hone-pull"} in pod["imagePullSecrets"]
    assert [v["image"]["reference"] for v in pod["volumes"] if "image" in v] == [model["uri"].removeprefix("oci://")]
