"""Who may report a metric of a Model; the answer waits for the status. With real tokens: `test_metric_trigger.py`."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from hone_api.contract.metric_report import AUDIENCE, Reading
from hone_operator.progress import metric_reports
from hone_operator.progress.auth import Account, AccountAuthenticator, Authenticator
from hone_operator.progress.binding import ReportRefusedError
from hone_operator.progress.inbox import Inbox
from hone_operator.progress.metric_reports import MetricReports, permitted, report_of
from hone_operator.progress.server import ProgressServer
from hone_operator.progress.store import ProgressStore

pytestmark = pytest.mark.pure
NOW = datetime(2026, 3, 1, tzinfo=UTC)
REQUESTERS = [{"serviceAccount": "drift"}, {"serviceAccount": "alertmanager", "namespace": "monitoring"}]


def model(retrain: Any = None, **meta: Any) -> dict[str, Any]:
    spec = {} if retrain is None else {"retrain": retrain}
    return {"metadata": {"namespace": "ml", "name": "tutor", "uid": "m", **meta}, "spec": spec, "status": {}}


LISTED = model({"fineTuneJob": "run", "requesters": REQUESTERS})


@pytest.mark.parametrize("account", [Account("ml", "drift"), Account("monitoring", "alertmanager")])
def test_listed_accounts_may_report(account: Account) -> None:
    assert permitted(account, LISTED, "ml", "tutor") is LISTED


@pytest.mark.parametrize(
    ("account", "body", "status"),
    [
        (Account("monitoring", "drift"), LISTED, 403),
        (Account("ml", "alertmanager"), LISTED, 403),
        (Account("ml", "drift"), model({"fineTuneJob": "run"}), 403),
        (Account("ml", "drift"), model(), 409),
        (Account("ml", "drift"), None, 404),
        (Account("ml", "drift"), model({"requesters": REQUESTERS}, deletionTimestamp="x"), 404),
        (Account("monitoring", "drift"), model(), 403),
        (Account("monitoring", "alertmanager"), None, 403),
    ],
)
def test_nobody_else_may(account: Account, body: Any, status: int) -> None:
    with pytest.raises(ReportRefusedError) as refused:
        permitted(account, body, "ml", "tutor")
    assert refused.value.status == status


def test_a_time_in_the_future_counts_as_now() -> None:
    account = Account("ml", "drift")
    ahead = report_of(Reading("m", None, None, NOW + timedelta(days=1)), account, NOW)
    assert ahead == {"metric": "m", "by": "ml/drift", "since": "2026-03-01T00:00:00Z"}
    assert report_of(Reading("m", "1", "r", NOW - timedelta(hours=1)), account, NOW)["since"] == "2026-02-28T23:00:00Z"


class Cluster:
    """The API server and the caches, with one Model."""

    def __init__(self) -> None:
        self.model = json.loads(json.dumps(LISTED))

    def cached(self, kind: str, namespace: str, name: str) -> Any:
        return self.model if (kind, namespace, name) == ("Model", "ml", "tutor") else None

    async def read(self, kind: str, namespace: str, name: str) -> Any:
        return None

    async def review_token(self, token: str, audience: str) -> Any:
        user = {"username": "system:serviceaccount:ml:drift"}
        return {"authenticated": True, "audiences": [audience], "user": user}


async def post(
    cluster: Cluster, inbox: Inbox, decide: Callable[[str, str], None], times: int = 1, name: str = "tutor"
) -> list[tuple[int, Any]]:
    """Answers to that many reports, one after the other."""
    metrics = MetricReports(AccountAuthenticator(cluster), cluster, inbox, decide, lambda: NOW, lambda: 0.0)
    store = ProgressStore(lambda key: None, interval=60)
    server = ProgressServer(Authenticator(cluster), cluster, store, metrics=metrics)
    claims = base64.urlsafe_b64encode(json.dumps({"aud": [AUDIENCE], "exp": time.time() + 600}).encode()).decode()
    headers = {"Authorization": f"Bearer h.{claims.rstrip('=')}.s"}
    answers = []
    async with TestClient(TestServer(server.application())) as client:
        for _ in range(times):
            path = f"/apis/hone.dev/v1alpha1/namespaces/ml/models/{name}/retrain"
            async with client.post(path, json={"metric": "m", "value": 1}, headers=headers) as answer:
                answers.append((answer.status, await answer.json()))
    return answers


async def test_the_answer_comes_once_the_status_has_the_report() -> None:
    cluster, inbox = Cluster(), Inbox()
    keys = []

    def decide(namespace: str, name: str) -> None:
        keys.append((namespace, name))
        conditions = [{"type": "UpToDate", "status": "False", "reason": "Suspended", "message": "It is suspended."}]
        cluster.model["status"] = {"retrain": {"reported": inbox.of(cluster.model)}, "conditions": conditions}

    [(status, body)] = await post(cluster, inbox, decide)
    assert (status, body) == (200, {"requested": True, "message": "Suspended: It is suspended."})
    assert keys == [("ml", "tutor")]
    assert cluster.model["status"]["retrain"]["reported"]["since"] == "2026-03-01T00:00:00Z"
    assert inbox.of(cluster.model) is None


async def test_without_a_status_the_sender_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_reports, "RECORD_SECONDS", 0)
    cluster, inbox = Cluster(), Inbox()
    [(status, body)] = await post(cluster, inbox, lambda *_: None)
    assert (status, body["reason"]) == (503, "ServiceUnavailable")
    assert inbox.of(cluster.model) is None, "nobody waits for it any more"


async def test_a_model_that_is_deleted_meanwhile() -> None:
    cluster = Cluster()
    [(status, body)] = await post(cluster, Inbox(), lambda *_: setattr(cluster, "model", model({}, uid="another")))
    assert (status, body["message"]) == (404, "Model tutor was deleted")


async def test_a_sender_that_floods_is_slowed_down() -> None:
    cluster, inbox = Cluster(), Inbox()

    def decide(namespace: str, name: str) -> None:
        cluster.model["status"] = {"retrain": {"reported": inbox.of(cluster.model)}}

    statuses = [status for status, _ in await post(cluster, inbox, decide, times=12)]
    assert statuses == [200] * 10 + [429] * 2


async def test_names_that_nobody_may_report_about_take_no_room_in_the_limits() -> None:
    answers = await post(Cluster(), Inbox(), lambda *_: None, times=12, name="x" * 4096)
    assert [status for status, _ in answers] == [404] * 12
