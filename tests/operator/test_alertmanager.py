"""A real Alertmanager, configured as docs/guides/retrain.md shows it, asks a real operator for a Model's job."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from fault_proxy import FaultProxy
from hand import Namespace
from kube import Kube
from operator_process import Operator
from prometheus_client.parser import text_string_to_metric_families

from hone_api.contract.metric_report import AUDIENCE
from hone_dev.cluster import alertmanager
from hone_dev.cluster.alertmanager import Alertmanager
from hone_dev.tools import paths

pytestmark = pytest.mark.apiserver
SYSTEM, MODEL, ACCOUNT = "hone-alerts", "support-bot", "alertmanager"
RECEIVER = "retrain-support-bot"
FAST = {"group_wait": "1s", "group_interval": "6s", "repeat_interval": "1s"}
"""Of the root route: minutes and hours by default. It notifies again at each `group_interval`."""
SECOND = "%Y-%m-%dT%H:%M:%SZ"
LABELS = {"alertname": "WrongAnswers", "model": MODEL}
ANNOTATIONS = {"value": "0.12", "summary": "12 % of answers are wrong"}
GROUPS = "alertmanager_dispatcher_aggregation_groups"
"""0 once it has notified, or need not notify, that each alert ended."""
REQUESTS = "alertmanager_notification_requests_total"
FAILED = "alertmanager_notification_requests_failed_total"


def shown() -> dict[str, Any]:
    """The configuration of Alertmanager that the page shows."""
    page = (paths.SOURCE / "docs" / "guides" / "retrain.md").read_text()
    [block] = [text for text in re.findall(r"^```\w+\n(.*?)^```", page, re.S | re.M) if "webhook_configs" in text]
    config: dict[str, Any] = yaml.safe_load(block)
    return config


def webhook(config: dict[str, Any]) -> dict[str, Any]:
    """The only webhook of a configuration."""
    hooks: list[dict[str, Any]] = [h for each in config["receivers"] for h in each.get("webhook_configs", ())]
    [hook] = hooks
    return hook


@dataclass
class Platform:
    """An operator that reaches the API server through a proxy, and what the page has the platform team prepare."""

    kube: Kube
    namespace: Namespace
    operator: Operator
    proxy: FaultProxy
    folder: Path
    port: int
    metrics: int

    def config(self, **times: str) -> dict[str, Any]:
        """The configuration on the page, with the address and the files of this place."""
        config = shown()
        config["route"] |= times
        hook = webhook(config)
        service, path = "https://hone-progress.hone-system.svc:8443", f"namespaces/team-a/models/{MODEL}/retrain"
        assert hook["url"] == f"{service}/apis/hone.dev/v1alpha1/{path}"
        hook["url"] = hook["url"].replace(service, f"https://localhost:{self.port}")
        hook["url"] = hook["url"].replace("/team-a/", f"/{self.namespace.name}/")
        hook["http_config"]["authorization"]["credentials_file"] = str(self.folder / "token")
        hook["http_config"]["tls_config"]["ca_file"] = str(self.folder / "ca.crt")
        return config

    def renew_token(self) -> None:
        """As the kubelet does it."""
        spec = {"audiences": [AUDIENCE], "expirationSeconds": 3600}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{ACCOUNT}/token"
        (self.folder / "next").write_text(self.kube.call("POST", path, body)["status"]["token"])
        (self.folder / "next").rename(self.folder / "token")

    def refused(self, reason: str) -> int:
        """How often the operator says that it refused a report for this reason."""
        text = requests.get(f"http://127.0.0.1:{self.metrics}/metrics", timeout=60).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        name = "hone_operator_progress_refused_total"
        return int(sum(s.value for s in samples if s.name == name and s.labels == {"reason": reason}))

    def jobs(self) -> list[str]:
        """Names of the FineTuneJobs."""
        names: list[str] = self.namespace.names("FineTuneJob")
        return names

    def reported(self) -> Any:
        """What the Model says about the newest report."""
        return self.namespace.get("Model", MODEL)["status"]["retrain"].get("reported")

    def reason(self) -> Any:
        """Why the Model has no newer job."""
        return self.namespace.condition("Model", MODEL, "UpToDate").get("reason")

    def change_rows(self, digit: str) -> None:
        """Give the Dataset new content; no trigger but a request starts a job on it."""
        changes = {"previous": "sha256:" + "0" * 64, "added": 7, "removed": 0}
        status = {"digest": "sha256:" + digit * 64, "rows": 107, "changes": changes}
        self.namespace.patch("Dataset", "rows", {"status": status}, "status")
        self.namespace.until(lambda: self.reason() == "WaitingForRows", "only a request starts a job")

    def train(self, job: str, result: dict[str, Any]) -> None:
        """Play the pods of a job to its end."""
        self.namespace.until(lambda: self.namespace.get("Job", f"{job}-1"), "attempt 1")
        self.namespace.succeed(f"{job}-1", result)
        self.namespace.until(lambda: self.finished(job), "its end")

    def finished(self, job: str) -> bool:
        """Whether a FineTuneJob has ended."""
        return bool(self.namespace.condition("FineTuneJob", job, "Finished").get("status") == "True")

    def let_request(self, account: str) -> None:
        """List one ServiceAccount of the other namespace as a requester of the Model."""
        requesters = [{"serviceAccount": account, "namespace": SYSTEM}]
        self.namespace.patch("Model", MODEL, {"spec": {"retrain": {"requesters": requesters}}})


@pytest.fixture
def platform(
    kube: Kube,
    namespace: Namespace,
    start_operator: Callable[[Path, dict[str, str]], Operator],
    free_ports: Callable[[int], list[int]],
    tmp_path: Path,
) -> Iterator[Platform]:
    """With the Secret that the chart has, and the ServiceAccount of Alertmanager."""
    port, metrics = free_ports(2)
    proxy = FaultProxy.of(kube)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(proxy.kubeconfig()))
    secret = f"{SYSTEM}/secrets/hone-operator-tls"
    for kind, path in (
        ("Namespace", SYSTEM),
        ("Secret", secret),
        ("ServiceAccount", f"{SYSTEM}/serviceaccounts/{ACCOUNT}"),
    ):
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": path.rpartition("/")[2]}}
        target = f"/api/v1/namespaces/{path}?fieldManager=tests"
        kube.call("PATCH", target, body, "application/apply-patch+yaml")
    settings = {
        "HONE_NAMESPACE": SYSTEM,
        "HONE_WATCH_NAMESPACES": json.dumps([namespace.name]),
        "HONE_PROGRESS__SERVICE_HOST": "localhost",
        "HONE_PROGRESS__PORT": str(port),
        "HONE_PROGRESS__SERVICE_PORT": str(port),
        "HONE_PORTS__METRICS": str(metrics),
    }
    operator = start_operator(kubeconfig, settings)
    namespace.until(operator.ready, "ready")
    ca = kube.call("GET", f"/api/v1/namespaces/{secret}")["data"]["ca.crt"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(ca))
    platform = Platform(kube, namespace, operator, proxy, tmp_path, port, metrics)
    platform.renew_token()
    yield platform
    assert operator.stop() == 0
    proxy.stop()


@contextmanager
def firing(platform: Platform, folder: Path, config: dict[str, Any]) -> Iterator[tuple[Alertmanager, datetime]]:
    """Alertmanager with an alert that began just now, after the second in which the last job was created."""
    last = [body["metadata"]["creationTimestamp"] for body in platform.namespace.list("FineTuneJob")]
    platform.namespace.until(lambda: datetime.now(UTC).strftime(SECOND) > max(last), "the next second")
    since = datetime.now(UTC)
    with alertmanager.serve(folder, config) as manager:
        manager.post(LABELS, ANNOTATIONS, startsAt=since.isoformat(), endsAt=(since + timedelta(hours=1)).isoformat())
        yield manager, since


def test_an_alert_asks_for_one_job(
    platform: Platform, spec: Callable[..., dict[str, Any]], result: dict[str, Any], tmp_path: Path
) -> None:
    namespace = platform.namespace
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec(output={"modelName": MODEL}))
    platform.train("run", result)
    namespace.until(lambda: namespace.get("Model", MODEL), "the Model")
    limits = {"minInterval": "0s", "quietPeriod": "0s"}
    namespace.patch("Model", MODEL, {"spec": {"retrain": {"fineTuneJob": "run", **limits}}})
    platform.let_request("prometheus")
    platform.change_rows("1")
    with firing(platform, tmp_path / "first", platform.config(**FAST)) as (manager, since):
        is_refused(platform, manager)
        [second] = asks_through_an_outage(platform, manager) - {"run"}
        reported = namespace.until(platform.reported, "the report in the status")
        assert reported == {
            "metric": "WrongAnswers",
            "value": "0.12",
            "reason": "12 % of answers are wrong",
            "by": f"{SYSTEM}/{ACCOUNT}",
            "since": since.strftime(SECOND),
        }
        platform.train(second, result)
        platform.change_rows("2")
        repeats(platform, manager)
        end(manager, since)
        namespace.until(lambda: manager.metric(GROUPS) == 0, "it has nothing more to say")
        assert platform.reason() == "WaitingForRows"
        assert platform.reported() == reported
        assert platform.jobs() == sorted(["run", second]), "one alert, one job"
    fires_again_and_says_that_it_ended(platform, result, tmp_path / "second")


def is_refused(platform: Platform, manager: Alertmanager) -> None:
    """Alertmanager's account is not listed: Alertmanager's log, the operator's metric and its log say so."""
    until = platform.namespace.until
    until(lambda: platform.refused("403 Forbidden") >= 1, "a refusal")
    until(lambda: "unexpected status code 403" in manager.log(), "Alertmanager says so")
    assert f"ServiceAccount {ACCOUNT} of namespace {SYSTEM} is not one of spec.retrain.requesters" in manager.log()
    until(lambda: "x 403 Forbidden from" in platform.operator.log(), "the operator says so")
    assert platform.reported() is None
    assert platform.jobs() == ["run"]
    [group] = [group for group in manager.groups() if group["receiver"]["name"] == RECEIVER]
    assert [r["name"] for r in group["alerts"][0]["receivers"]] == [RECEIVER, "team"], "people hear of it"


def asks_through_an_outage(platform: Platform, manager: Alertmanager) -> set[str]:
    """The account is listed now, but the operator cannot ask who that is: Alertmanager tries again, until a job."""
    until = platform.namespace.until
    platform.proxy.unavailable.add("tokenreviews")
    platform.renew_token()
    platform.let_request(ACCOUNT)
    until(lambda: platform.refused("503 ServiceUnavailable") >= 2, "refusals and another try")
    assert platform.jobs() == ["run"]
    platform.proxy.unavailable.clear()
    until(lambda: len(platform.jobs()) == 2, "a job")
    return set(platform.jobs())


def repeats(platform: Platform, manager: Alertmanager) -> None:
    """Notifications that are repeated are accepted, and ask for nothing."""
    before = accepted(manager)
    platform.namespace.until(lambda: accepted(manager) >= before + 2, "two more notifications")
    assert platform.reason() == "WaitingForRows"


def accepted(manager: Alertmanager) -> int:
    """Requests that were answered with success. One that fails for a moment is sent again."""
    return int(manager.metric(REQUESTS) - manager.metric(FAILED))


def end(manager: Alertmanager, since: datetime) -> None:
    """The alert ends."""
    manager.post(LABELS, ANNOTATIONS, startsAt=since.isoformat(), endsAt=datetime.now(UTC).isoformat())


def fires_again_and_says_that_it_ended(platform: Platform, result: dict[str, Any], folder: Path) -> None:
    """It asks for a third job. `send_resolved` is true by default; then a notification has only alerts that ended."""
    before = set(platform.jobs())
    config = platform.config(**FAST | {"repeat_interval": "4h"})
    del webhook(config)["send_resolved"]
    with firing(platform, folder, config) as (manager, since):
        platform.namespace.until(lambda: set(platform.jobs()) - before, "a third job")
        [third] = set(platform.jobs()) - before
        platform.train(third, result)
        platform.change_rows("3")
        assert accepted(manager) == 1
        end(manager, since)
        platform.namespace.until(lambda: accepted(manager) == 2, "a notification of the end")
        assert platform.reason() == "WaitingForRows"
        assert set(platform.jobs()) == {*before, third}
