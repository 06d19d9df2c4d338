"""The MLflow run of a job: found by its tag or created, and written to in batches."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hone_api.blocks.tracking import JOB_TAG
from hone_api.plan import TrackingInput
from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.mlflow.server import EXISTS, MISSING, MlflowError, MlflowServer
from hone_trainer.errors import TrainerError

MOST_POINTS, MOST_PARAMS = 1000, 100
"""Of one request, by MLflow's limits."""
PARENT_TAG = "mlflow.parentRunId"
"""By which MLflow nests runs."""
_MAX_KEY, _MAX_VALUE = 250, 5000
_LATEST = 2**53
"""Milliseconds since 1970: what every reader of JSON can hold."""
_RUN_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_NOT_IN_KEY = re.compile(r"[^-\w./ ]")


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    key: str
    value: float
    step: int
    milliseconds: int
    """When it was measured, since 1970."""

    def to_json(self) -> dict[str, Any]:
        """As MLflow takes it; a value that is not finite is a word."""
        special = "NaN" if math.isnan(self.value) else "Infinity" if self.value > 0 else "-Infinity"
        value = self.value if math.isfinite(self.value) else special
        return {"key": self.key, "value": value, "step": self.step, "timestamp": self.milliseconds}


def key_of(name: str) -> str:
    """The name with the characters that MLflow takes in keys, where / divides parts as in a path."""
    parts = _NOT_IN_KEY.sub("_", name)[:_MAX_KEY].split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "_"


@dataclass(frozen=True)
class MlflowRun:
    """One run on a server."""

    server: MlflowServer
    run_id: str
    params: Mapping[str, str]
    """Those that it had when it was opened."""
    started: int = 0
    """When it began, by the server, in milliseconds since 1970; 0: unknown."""

    @classmethod
    def open(cls, server: MlflowServer, about: TrackingInput, name: str) -> MlflowRun:
        """The run of the job: the existing one, or a new one called `name`, below that of the job that began its chain.

        A request that was answered too late may have created the run, so it is looked for each time.

        Raises:
            TrainerError: see `MlflowServer.call`.
        """
        experiment_id = _experiment(server, about.experiment)
        if body := _run_of(server, experiment_id, about.uid):
            server.call("POST", "runs/update", run_id=_id_of(server, body), status="RUNNING")
        else:
            tags = {JOB_TAG: about.uid, **about.tags}
            if about.parent and (parent := _run_of(server, experiment_id, about.parent)):
                tags[PARENT_TAG] = _id_of(server, parent)
            new = {"run_name": name, "start_time": _now(), "tags": entries(tags)}
            body = server.call("POST", "runs/create", experiment_id=experiment_id, **new)["run"]
        params = {p["key"]: p["value"] for p in body.get("data", {}).get("params", ())}
        return cls(server, _id_of(server, body), params, _start_of(body))

    def log(self, points: Sequence[Point]) -> None:
        """Write at most MOST_POINTS points. Writing the same points again changes nothing."""
        self.server.call("POST", "runs/log-batch", run_id=self.run_id, metrics=[point.to_json() for point in points])

    def describe(self, params: Mapping[str, str], attempt: int, step: int = 0) -> None:
        """Write the parameters. MLflow does not change a parameter: another value of a later attempt becomes a tag.

        Args:
            step: the one that the attempt goes on from; MLflow keeps what an earlier attempt measured after it.
        """
        values = {key_of(name): value[:_MAX_VALUE] for name, value in params.items()}
        fresh = {name: value for name, value in values.items() if name not in self.params}
        for part in _parts(fresh.items(), MOST_PARAMS):
            self.server.call("POST", "runs/log-batch", run_id=self.run_id, params=entries(dict(part)))
        changed = {n: value for n, value in values.items() if self.params.get(n, value) != value}
        tags = {"hone.attempt": str(attempt), **{f"hone.attempt-{attempt}.{n}": v for n, v in changed.items()}}
        for part in _parts(tags.items(), MOST_PARAMS):
            self.server.call("POST", "runs/log-batch", run_id=self.run_id, tags=entries(dict(part)))

    def end(self, status: str) -> None:
        """Set the state of the run: FINISHED, FAILED, or SCHEDULED where it will go on."""
        # The clock of a node may have jumped, or be behind that of the node where the run began.
        over = {} if status == "SCHEDULED" else {"end_time": max(_now(), self.started)}
        self.server.call("POST", "runs/update", run_id=self.run_id, status=status, **over)


def _run_of(server: MlflowServer, experiment_id: str, uid: str) -> Mapping[str, Any] | None:
    """The oldest run of the job with this uid."""
    where = {"experiment_ids": [experiment_id], "filter": f"tags.`{JOB_TAG}` = '{uid}'", "max_results": 1}
    runs = server.call("POST", "runs/search", **where, order_by=["attributes.start_time ASC"]).get("runs")
    return runs[0] if runs else None


def _id_of(server: MlflowServer, body: Mapping[str, Any]) -> str:
    run_id = body["info"]["run_id"]
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        words = f"{server.host}: its run has the id {str(run_id)[:70]!r}, which is none of MLflow"
        raise TrainerError(FailureCode.DESTINATION_REFUSED, words)
    return run_id


def _start_of(body: Mapping[str, Any]) -> int:
    started = body["info"].get("start_time")
    return started if isinstance(started, int) and 0 < started < _LATEST else 0


def _experiment(server: MlflowServer, name: str) -> str:
    """Id of the experiment, which is created if there is none."""
    for create in (True, False):
        try:
            existing = server.call("GET", "experiments/get-by-name", experiment_name=name)["experiment"]
        except MlflowError as error:
            if error.error_code != MISSING or not create:
                raise
        else:
            if existing.get("lifecycle_stage") == "deleted":
                message = f"{server.host}: the experiment {json.dumps(name)} is deleted: restore it, or name another"
                raise TrainerError(FailureCode.DESTINATION_REFUSED, message)
            return str(existing["experiment_id"])
        try:
            return str(server.call("POST", "experiments/create", name=name)["experiment_id"])
        except MlflowError as error:
            if error.error_code != EXISTS:  # another job created it meanwhile
                raise
    raise AssertionError("unreachable")


def entries(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags or parameters as MLflow takes them."""
    return [{"key": key, "value": value[:_MAX_VALUE]} for key, value in values.items()]


def _parts(items: Iterable[tuple[str, str]], size: int) -> Iterable[list[tuple[str, str]]]:
    rest = iter(items)
    return iter(lambda: list(islice(rest, size)), [])


def _now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
