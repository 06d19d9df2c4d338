"""A metric asks for a repetition of a Model's job: over the port of a real operator, as Alertmanager would do it."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hand import Namespace
from kube import Kube
from operator_process import Operator
from rights import installed

from hone_api.contract.metric_report import AUDIENCE

pytestmark = [pytest.mark.apiserver, pytest.mark.attack("progress port")]
SYSTEM = "hone-metrics"
IMAGES = {"trainer": {"image": {"repository": "example.org/hone/trainer", "tag": "test"}}}
ALERT = {"alertname": "WrongAnswers", "severity": "warning"}


@dataclass
class Client:
    """Whoever reports to the operator."""

    kube: Kube
    namespace: str
    port: int

    def token(self, account: str, audience: str = AUDIENCE) -> str:
        """Of a ServiceAccount of the namespace, which is made if it is missing."""
        accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
        self.kube.call("PATCH", f"{accounts}/{account}?fieldManager=tests", body, "application/apply-patch+yaml")
        spec = {"audiences": [audience], "expirationSeconds": 3600}
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.kube.call("POST", f"{accounts}/{account}/token", asked)["status"]["token"])

    def post(self, token: str | None, body: Any, model: str = "tutor", namespace: str = "") -> tuple[int, Any]:
        """Status and body of the answer; 503 is tried again, as every client does."""
        secret = self.kube.call("GET", f"/api/v1/namespaces/{SYSTEM}/secrets/hone-operator-tls")
        context = ssl.create_default_context(cadata=base64.b64decode(secret["data"]["ca.crt"]).decode())
        place = f"namespaces/{namespace or self.namespace}/models/{model}/retrain"
        request = urllib.request.Request(
            f"https://localhost:{self.port}/apis/hone.dev/v1alpha1/{place}",
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}"} if token else {},
        )
        while True:
            try:
                with urllib.request.urlopen(request, context=context) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    return error.code, json.load(error)
                time.sleep(0.5)


def notification(status: str, since: str) -> dict[str, Any]:
    """As Alertmanager posts it."""
    annotations = {"value": "0.12", "summary": "12 % of answers are wrong"}
    alert = {"status": status, "labels": ALERT, "annotations": annotations, "startsAt": since, "fingerprint": "0"}
    return {"version": "4", "status": status, "receiver": "retrain", "groupKey": "{}", "alerts": [alert]}


def finish(namespace: Namespace, result: dict[str, Any]) -> None:
    """Play the pods of FineTuneJob run to its end."""
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    for rank, pod in enumerate(namespace.start_pods("run-1")):
        namespace.end_pod(pod, 0, {"result": result} if rank == 0 else None)
    namespace.end_job("run-1", "Complete")
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Finished").get("status") == "True", "its end")
    namespace.until(lambda: namespace.get("Model", "tutor"), "the Model")


def test_an_alert_has_the_job_repeated(
    kube: Kube,
    apiserver: Path,
    namespace: Namespace,
    start_operator: Callable[[Path, dict[str, str]], Operator],
    spec: Callable[..., dict[str, Any]],
    result: dict[str, Any],
    free_ports: Callable[[int], list[int]],
    tmp_path: Path,
) -> None:
    """With the rights that the chart gives: it needs no further one, and reads no Secret of a tenant."""
    (port,) = free_ports(1)
    settings = {
        "HONE_NAMESPACE": SYSTEM,
        "HONE_WATCH_NAMESPACES": json.dumps([namespace.name]),
        "HONE_PROGRESS__SERVICE_HOST": "localhost",
        "HONE_PROGRESS__PORT": str(port),
        "HONE_PROGRESS__SERVICE_PORT": str(port),
    }
    with installed(kube, apiserver, SYSTEM, {**IMAGES, "watchNamespaces": [namespace.name]}) as user:
        operator = start_operator(user.kubeconfig(apiserver, tmp_path / "account.kubeconfig"), settings)
        namespace.until(operator.ready, "ready")
        namespace.dataset()
        namespace.create("FineTuneJob", "run", spec())
        finish(namespace, result)
        team, monitoring = Client(kube, namespace.name, port), Client(kube, SYSTEM, port)
        drift, alertmanager = team.token("drift"), monitoring.token("alertmanager")
        metric = {"metric": "wrong_answers", "value": 0.12}
        namespace.until(lambda: team.post(drift, metric)[0] == 409, "the Model has no spec.retrain")
        requesters = [{"serviceAccount": "drift"}, {"serviceAccount": "alertmanager", "namespace": SYSTEM}]
        limits = {"minInterval": "0s", "quietPeriod": "0s"}
        namespace.patch("Model", "tutor", {"spec": {"retrain": {"fineTuneJob": "run", **limits}}})
        namespace.until(lambda: team.post(drift, metric)[0] == 403, "nobody is listed")
        namespace.patch("Model", "tutor", {"spec": {"retrain": {"requesters": requesters}}})
        namespace.until(lambda: team.post(drift, b"no metric")[0] == 422, "the operator has seen who is listed")

        def reason() -> Any:
            return namespace.condition("Model", "tutor", "UpToDate").get("reason")

        changes = {"previous": "sha256:" + "0" * 64, "added": 7, "removed": 0}
        news = {"status": {"digest": "sha256:" + "1" * 64, "rows": 107, "changes": changes}}
        namespace.patch("Dataset", "rows", news, "status")
        namespace.until(lambda: reason() == "WaitingForRows", "only a request starts a job")

        refused_callers(team, monitoring, operator)
        refused_bodies(team, namespace, drift)
        resolved = notification("resolved", "2026-01-01T00:00:00Z")
        assert monitoring.post(alertmanager, resolved, namespace=namespace.name) == (
            200,
            {"requested": False, "message": "No alert fires any more: nothing is asked for."},
        )
        before = notification("firing", "2026-01-01T00:00:00Z")
        status, body = monitoring.post(alertmanager, before, namespace=namespace.name)
        assert (status, body["requested"]) == (200, False), "a job began after this alert"
        assert namespace.names("FineTuneJob") == ["run"]
        started = namespace.get("Model", "tutor")["status"]["retrain"]["lastStart"]

        firing = notification("firing", "3026-01-01T00:00:00Z")  # a clock that is ahead: it counts as now
        status, body = namespace.until(lambda: requested(monitoring, alertmanager, firing, namespace.name), "a request")
        namespace.until(lambda: len(namespace.names("FineTuneJob")) == 2, "a second job")
        reported = namespace.get("Model", "tutor")["status"]["retrain"]["reported"]
        assert reported.pop("since") > started
        assert reported == {
            "metric": "WrongAnswers",
            "value": "0.12",
            "reason": "12 % of answers are wrong",
            "by": f"{SYSTEM}/alertmanager",
        }
        events = namespace.until(
            lambda: [e for e in namespace.list("Event") if e["reason"] == "MetricReported"], "told"
        )
        assert "alertmanager reported WrongAnswers 0.12" in events[-1]["message"]
        assert operator.stop() == 0


def requested(client: Client, token: str, body: Any, namespace: str) -> Any:
    """The answer, once it is a request: a report in the second in which the last job was created is not."""
    answer = client.post(token, body, namespace=namespace)
    return answer if answer[1].get("requested") else None


def refused_callers(team: Client, monitoring: Client, operator: Operator) -> None:
    """Nobody but a listed ServiceAccount is heard, and others learn nothing."""
    metric = {"metric": "wrong_answers"}
    of_pods = team.token("drift", "progress.hone.dev")
    for token in (None, "a.b.c", of_pods, team.token("drift", "https://kubernetes.default.svc")):
        status, body = team.post(token, metric)
        assert (status, body["reason"]) == (401, "Unauthorized")
    assert "audience retrain.hone.dev" in body["message"]
    status, body = team.post(team.token("default"), metric)
    assert (status, body["reason"], body["details"]["kind"]) == (403, "Forbidden", "models")
    assert "ServiceAccount default" in body["message"]
    stranger = monitoring.token("drift")  # of the same name, in another namespace
    unlisted, absent = (monitoring.post(stranger, metric, model, team.namespace) for model in ("tutor", "nothing"))
    assert unlisted == absent
    assert unlisted[0] == 403
    status, body = team.post(team.token("drift"), metric, "nothing")
    assert (status, body["message"]) == (404, f"Model nothing does not exist in namespace {team.namespace}")
    assert "wrong_answers" not in operator.log()


def refused_bodies(team: Client, namespace: Namespace, token: str) -> None:
    """What is not a metric changes nothing."""
    assert team.post(token, b'"' + b"x" * 65536 + b'"')[0] == 413
    for body, where in (({"metric": "m", "limit": 3}, "limit"), (b"metric=3", "body"), ({"alerts": []}, "version")):
        status, answer = team.post(token, body)
        assert status == 422
        assert where in answer["message"]
    assert "reported" not in namespace.get("Model", "tutor")["status"]["retrain"]
