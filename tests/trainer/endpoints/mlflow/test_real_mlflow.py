"""Runs that are logged, and versions that are registered, at a real MLflow server."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.servers.mlflow_server import LOOPBACK, PASSWORD, RealMlflow, real_mlflow, secret

from hone_api.plan import RegisterPlan, TrackingInput
from hone_api.words.failures import FailureCode
from hone_trainer.endpoints import http
from hone_trainer.endpoints import tracker as trackers
from hone_trainer.endpoints.addresses import Resolution
from hone_trainer.endpoints.mlflow import registry
from hone_trainer.endpoints.mlflow.run import PARENT_TAG, MlflowRun
from hone_trainer.endpoints.mlflow.server import MlflowServer
from hone_trainer.endpoints.tracker import QueuedTracker
from hone_trainer.errors import TrainerError
from hone_trainer.reporting.live import LogLines

pytestmark = pytest.mark.trainer
SINCE = "2026-01-02T03:04:05Z"
DIGEST = f"sha256:{'5' * 64}"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMlflow]:
    with pytest.MonkeyPatch.context() as patch, real_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        patch.setattr(http._BoundedConnection, "idle", 3600.0)  # on a busy machine it is silent for more than a minute
        yield server


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take minutes for what takes milliseconds."""
    monkeypatch.setattr(trackers, "SETTLE_SECONDS", 3600.0)


def tracking(server: RealMlflow, uid: str, folder: Path | None = None) -> TrackingInput:
    tags = {"hone.namespace": "team-a", "hone.dataset.rows": DIGEST}
    return TrackingInput(uri=server.uri, experiment="faq", secret_path=str(folder or server.secret), uid=uid, tags=tags)


def queued(asked: TrackingInput, server: MlflowServer, *args: Any, **waits: float) -> QueuedTracker:
    return QueuedTracker(asked, partial(MlflowRun.open, server, asked, "faq-job"), *args, **waits)


def started(asked: TrackingInput, said: list[str], attempt: int = 1) -> QueuedTracker:
    server = MlflowServer(asked.uri, LOOPBACK, asked.secret_path, seconds=3600)
    return queued(asked, server, attempt, said.append, settle_seconds=3600, pause=0.01)


def test_a_run_that_is_interrupted_goes_on_in_the_same_mlflow_run(
    mlflow: RealMlflow, runs: Any, make_plan: Any, interrupt: Any, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "hone_trainer.endpoints.tracker.MlflowServer",
        lambda uri, network, path: MlflowServer(uri, network, path, seconds=3600),
    )
    plan = make_plan(tracking=tracking(mlflow, "uid-whole").to_json(), allowPrivateAddresses=True)
    interrupt(plan, 4)
    between = mlflow.client.call("POST", "runs/search", experiment_ids=["1"])["runs"]
    assert [run["info"]["status"] for run in between] == ["SCHEDULED"]

    reported: list[str | None] = []
    monkeypatch.setattr(LogLines, "report", lambda _, progress: reported.append(progress.tracking_run))
    result = runs.finish(plan.model_copy(update={"attempt": 2}))

    assert result.tracking is not None
    assert not any("MLflow" in sentence for sentence in result.advice)
    assert result.tracking.run_id == between[0]["info"]["run_id"]
    assert set(reported) <= {None, result.tracking.run_id}
    run = mlflow.run(result.tracking.run_id)
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == plan.run
    assert run["tags"] | {"hone.job_uid": "uid-whole", "hone.namespace": "team-a", "hone.dataset.rows": DIGEST} == (
        run["tags"] | {"hone.attempt": "2"}
    )
    assert run["params"]["method"] == "SFT"
    assert run["params"]["resolved.adapterRank"] == "16"
    steps = [step for step, _ in mlflow.history(result.tracking.run_id, "loss")]
    assert sorted(set(steps)) == list(range(1, result.steps + 1))
    assert mlflow.history(result.tracking.run_id, "eval_loss")[0][0] == 0
    tuned = next(n for n in result.numbers if n.name == "loss")
    logged = mlflow.history(result.tracking.run_id, f"tuned.loss.{tuned.dataset}")
    assert logged == [(result.steps, pytest.approx(float(tuned.tuned)))]


def test_values_that_are_not_finite_arrive(mlflow: RealMlflow) -> None:
    said: list[str] = []
    tracker = started(tracking(mlflow, "uid-nan"), said)
    tracker.measure(1, {"loss": math.nan, "grad norm (max)": math.inf})
    run, missing = tracker.settle()
    tracker.close("FAILED")
    assert (missing, said) == (None, [])
    assert run is not None
    assert mlflow.history(run.run_id, "loss") == [(1, "NaN")]
    assert len(mlflow.history(run.run_id, "grad norm _max_")) == 1
    assert mlflow.run(run.run_id)["info"]["status"] == "FAILED"


def test_a_stage_of_a_chain_is_below_the_run_that_began_it(mlflow: RealMlflow) -> None:
    ids = []
    for uid, parent in (("uid-first", None), ("uid-second", "uid-first"), ("uid-alone", "uid-elsewhere")):
        asked = tracking(mlflow, uid).model_copy(update={"parent": parent})
        tracker = started(asked, [])
        run, missing = tracker.settle()
        tracker.close("FINISHED")
        assert missing is None
        assert run is not None
        ids.append(run.run_id)
    parents = [mlflow.run(run_id)["tags"].get(PARENT_TAG) for run_id in ids]
    assert parents == [None, ids[0], None]


def test_a_later_attempt_with_other_parameters_says_so_in_tags(mlflow: RealMlflow) -> None:
    ids = set()
    for attempt, size in ((1, "4"), (2, "2")):
        tracker = started(tracking(mlflow, "uid-params"), [], attempt)
        tracker.describe({"microBatchSize": size, "method": "SFT"})
        run, missing = tracker.settle()
        tracker.close("SCHEDULED")
        assert missing is None
        assert run is not None
        ids.add(run.run_id)
    [run_id] = ids
    run = mlflow.run(run_id)
    assert run["params"] == {"microBatchSize": "4", "method": "SFT"}
    assert run["tags"]["hone.attempt-2.microBatchSize"] == "2"


@pytest.mark.faults("T14")
def test_what_a_server_did_not_take_arrives_when_it_does(mlflow: RealMlflow, tmp_path: Path) -> None:
    """The password is wrong for a while, as a Secret that was not rotated everywhere."""
    said: list[str] = []
    reported = threading.Event()
    folder = secret(tmp_path / "secret", password="not-the-password")
    asked = tracking(mlflow, "uid-late", folder)
    server = MlflowServer(asked.uri, LOOPBACK, asked.secret_path, seconds=3600)
    tracker = queued(
        asked, server, 1, lambda text: (said.append(text), reported.set()), settle_seconds=3600, pause=0.01
    )
    for step in range(1, 51):
        tracker.measure(step, {"loss": 1 / step})
    reported.wait()
    secret(folder)
    run, _ = tracker.settle()
    while run is None:
        run, _ = tracker.settle()
    tracker.close("FINISHED")
    assert [step for step, _ in mlflow.history(run.run_id, "loss")] == list(range(1, 51))
    assert len(said) == 1, "the first failure alone"
    assert said[0].startswith("warning: spec.tracking: 127.0.0.1 answers 401")
    assert "not-the-password" not in said[0]
    assert PASSWORD not in said[0]


SOURCES = {
    1: "pvc://hone-store/models/job-1/adapter",
    2: f"oci://registry.example.org/team/tutor@sha256:{'7' * 64}",
    3: "s3://models/team/tutor-v3",
}


def registered(
    server: RealMlflow,
    *numbers: int,
    remove: tuple[str, ...] = (),
    life: str = "first",
    namespace: str = "team-a",
    **aliases: int,
) -> dict[int, str]:
    """MLflow's numbers of the versions after the Job."""
    listed = [{"name": name, "version": version, "since": SINCE} for name, version in aliases.items()]
    versions: list[dict[str, Any]] = [
        {"version": n, "uid": f"{life}-uid-{n}", "source": SOURCES[n], "runId": "f" * 32} for n in numbers
    ]
    for version in versions:
        version["tags"] = {"hone.job": "run", "hone.digest": f"sha256:{version['version']:064}"}
    body: dict[str, Any] = {"model": "tutor", "uri": server.uri, "name": "Tutor of team-a", "namespace": namespace}
    body |= {"secretPath": str(server.secret), "limits": {"allowPrivateAddresses": True}}
    plan = RegisterPlan.model_validate({**body, "versions": versions, "aliases": listed, "remove": list(remove)})
    result = registry.register(plan, seconds=3600)
    assert (result.aliases, result.removed) == (plan.aliases, plan.remove)
    return {entry.version: entry.registered for entry in result.versions}


def pointing(server: RealMlflow) -> dict[str, str]:
    """Numbers by alias."""
    model = server.client.call("GET", "registered-models/get", name="Tutor of team-a")["registered_model"]
    return {entry["alias"]: entry["version"] for entry in model.get("aliases", ())}


def test_versions_are_registered_once_and_aliases_follow(mlflow: RealMlflow) -> None:
    numbers = registered(mlflow, 1, 2, champion=1)
    assert registered(mlflow, 1, 2, champion=1) == numbers, "a Job that is repeated changes nothing"
    assert pointing(mlflow) == {"champion": numbers[1]}
    for number in (1, 2):
        about = {"name": "Tutor of team-a", "version": numbers[number]}
        body = mlflow.client.call("GET", "model-versions/get", **about)["model_version"]
        assert (body["source"], body["run_id"]) == (SOURCES[number], "f" * 32)
        assert {tag["key"]: tag["value"] for tag in body["tags"]} == {
            "hone.job": "run",
            "hone.model_version_uid": f"first-uid-{number}",
            "hone.namespace": "team-a",
            "hone.model": "tutor",
            "hone.version": str(number),
            "hone.digest": f"sha256:{number:064}",
        }
    assert registered(mlflow, 1, 2, champion=1, life="restored") == numbers, "nor one after a restore from a backup"
    numbers |= registered(mlflow, 2, 3, champion=2, candidate=3)
    assert pointing(mlflow) == {"champion": numbers[2], "candidate": numbers[3]}
    somebody = mlflow.client.call("POST", "model-versions/create", name="Tutor of team-a", source="s3://other/x")
    theirs = somebody["model_version"]["version"]
    mlflow.client.call("POST", "registered-models/alias", name="Tutor of team-a", alias="theirs", version=theirs)
    registered(mlflow, remove=("candidate", "theirs", "never-set"))
    assert pointing(mlflow) == {"champion": numbers[2], "theirs": theirs}, "what somebody else has set stays"
    with pytest.raises(
        TrainerError, match="alias champion points to a version of Model tutor of namespace team-a"
    ) as of:
        registered(mlflow, 1, champion=1, life="other", namespace="team-b")
    assert of.value.code == FailureCode.DESTINATION_OCCUPIED
    assert pointing(mlflow)["champion"] == numbers[2]
    registered(mlflow, 1, other=1, life="other", namespace="team-b")
    assert pointing(mlflow)["other"] not in numbers.values(), "the same number and digest of another namespace"


def test_a_server_that_does_not_know_its_service_by_name_gets_an_alias(mlflow: RealMlflow) -> None:
    """By default it knows localhost and private addresses alone, whatever the credentials."""
    named = mlflow.uri.replace("127.0.0.1", "mlflow")
    here = Resolution(["127.0.0.1"])
    server = MlflowServer(named, LOOPBACK, str(mlflow.secret), resolver=lambda *_: here, seconds=3600)
    with pytest.raises(TrainerError, match=r"mlflow answers 403: .* --allowed-hosts mlflow:\d+, and") as caught:
        server.call("GET", "experiments/get", experiment_id="0")
    assert caught.value.code == FailureCode.DESTINATION_DENIED


def test_an_alias_that_mlflow_reserves_is_refused_with_its_words(mlflow: RealMlflow) -> None:
    with pytest.raises(TrainerError, match=r"127\.0\.0\.1 answers 400 INVALID_PARAMETER_VALUE: .*reserved") as caught:
        registered(mlflow, 1, latest=1)
    assert caught.value.code == FailureCode.DESTINATION_REFUSED


@pytest.mark.faults("T14")
def test_a_server_that_is_not_there_costs_a_run_its_curve_and_nothing_else(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trackers, "SETTLE_SECONDS", 0.5)
    asked = TrackingInput(uri="http://127.0.0.1:9", experiment="faq", uid="u")
    result = runs.finish(make_plan(tracking=asked.to_json(), allowPrivateAddresses=True))
    assert result.steps == 8
    assert result.tracking is None
    [sentence] = [sentence for sentence in result.advice if "MLflow" in sentence]
    assert sentence.startswith("spec.tracking: ")
    assert "did not reach MLflow at 127.0.0.1" in sentence
    assert capsys.readouterr().err.count("warning: spec.tracking") == 1


def test_a_full_queue_drops_its_oldest_points_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "MOST_WAITING", 10)
    asked = TrackingInput(uri="http://127.0.0.1:9", experiment="faq", uid="u")
    tracker = queued(asked, MlflowServer(asked.uri, LOOPBACK), 1, lambda _: None, settle_seconds=0.1)
    for step in range(25):
        tracker.measure(step, {"loss": 1.0})
    _, missing = tracker.settle()
    tracker.close("FINISHED")
    assert missing is not None
    assert missing.startswith("spec.tracking: 25 values of metrics did not reach MLflow")
