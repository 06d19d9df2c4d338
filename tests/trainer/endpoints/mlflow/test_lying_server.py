"""A server whose answers are not MLflow's costs a run its curve, and not its model."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from hone_api.plan import TrackingInput
from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.endpoints.mlflow.run import MlflowRun, key_of
from hone_trainer.endpoints.mlflow.server import MlflowError, MlflowServer
from hone_trainer.endpoints.tracker import QueuedTracker

pytestmark = [pytest.mark.pure, pytest.mark.attack("servers that lie")]


class Lying(MlflowServer):
    """Answers what the test sets, and notes what it was asked."""

    def __init__(self, run_id: Any = "0123abcd", refuses: str = "", **info: Any) -> None:
        super().__init__("http://m", AllowedNetwork(namespace="team-a"))
        self.info = {"run_id": run_id, **info}
        self.refuses, self.asked = refuses, list[tuple[str, dict[str, Any]]]()

    def call(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        self.asked.append((path, fields))
        if self.refuses and any(point["key"] == self.refuses for point in fields.get("metrics", ())):
            raise MlflowError(FailureCode.DESTINATION_REFUSED, "m answers 400 INVALID_PARAMETER_VALUE", "INVALID")
        answers = {"experiments/get-by-name": {"experiment": {"experiment_id": "1"}}}
        return answers.get(path, {"run": {"info": self.info}} if path == "runs/create" else {})


def tracker(server: MlflowServer) -> QueuedTracker:
    asked = TrackingInput(uri="http://m", experiment="faq", uid="u")
    open_run = partial(MlflowRun.open, server, asked, "job")
    return QueuedTracker(asked, open_run, 1, lambda _: None, settle_seconds=3600, pause=0.01)


@pytest.mark.parametrize("run_id", [5, None, ["a"], "a/b", "a" * 65, "abc\n"], ids=str)
def test_an_id_that_is_none_of_mlflow_is_not_used(run_id: Any) -> None:
    tracked, missing = tracker(Lying(run_id)).settle()
    assert tracked is None
    assert "which is none of MLflow" in (missing or "")


def test_one_value_that_is_refused_costs_its_batch_alone() -> None:
    server = Lying(refuses="odd")
    found = tracker(server)
    found.measure(1, {"odd": 1.0})
    assert found.settle()[0] is not None
    found.measure(2, {"loss": 0.5})
    _, missing = found.settle()
    found.close("FINISHED")
    assert "1 value of metrics did not reach MLflow at m: m answers 400" in (missing or "")
    arrived = [point["key"] for path, fields in server.asked if path == "runs/log-batch" for point in fields["metrics"]]
    assert arrived[-1] == "loss"
    assert [fields["status"] for path, fields in server.asked if path == "runs/update"] == ["FINISHED"]


@pytest.mark.faults("T12")
@pytest.mark.parametrize(
    ("start", "is_used"), [(5, True), (2**52, True), ("never", False), (2**80, False), (-9, False)]
)
def test_a_run_does_not_end_before_it_began(start: Any, is_used: bool) -> None:
    """The clock of the node jumps back, or the next attempt is on a node whose clock is behind."""
    server, before = Lying(start_time=start), int(time.time() * 1000)
    found = tracker(server)
    found.settle()
    found.close("FINISHED")
    (ended,) = [fields["end_time"] for path, fields in server.asked if path == "runs/update"]
    assert ended == start if is_used and start > before else before <= ended < before + 3600_000


@pytest.mark.parametrize(
    ("name", "key"),
    [("eval/loss", "eval/loss"), ("a//b", "a/b"), ("/a/", "a"), ("../b", "b"), ("..", "_"), ("a:b", "a_b")],
)
def test_a_key_is_a_path_without_tricks(name: str, key: str) -> None:
    assert key_of(name) == key
