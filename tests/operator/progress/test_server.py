"""The progress server against a real API server's TokenReview and transformers' own Kubeflow callback, over TLS."""

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from hone_api.contract.report import AUDIENCE, CA_ENV, TOKEN_ENV, URL_ENV
from hone_operator.apiserver.cluster import Cluster
from hone_operator.objects.cache import Cache
from hone_operator.progress.auth import Authenticator
from hone_operator.progress.backing import ClusterBacking
from hone_operator.progress.server import ProgressServer
from hone_operator.progress.store import ProgressStore
from hone_operator.progress.tls import ensure, renew, server_context

pytestmark = pytest.mark.apiserver
OWNER = "6a3f5b0e-0000-4000-8000-000000000001"


@dataclass
class Kube:
    """Raw calls to the API server."""

    api: ApiClient

    async def __call__(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = await self.api.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = await self.api.call_api(*request)
        text = await response.read()
        if response.status >= 300:
            raise ApiException(status=response.status, reason=text.decode())
        return json.loads(text)


def reference(kind: str, name: str, uid: str) -> list[dict[str, Any]]:
    version = "batch/v1" if kind == "Job" else "hone.dev/v1alpha1"
    return [{"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": True}]


def pod_spec() -> dict[str, Any]:
    return {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "example.org/trainer:1"}]}


@dataclass
class World:
    """A running server and the means to make pods that report to it. No watch fills the cache: pods are read live."""

    kube: Kube
    cache: Cache
    backing: ClusterBacking
    store: ProgressStore
    url: str
    ca: str
    namespace: str

    def knows(self, name: str, attempts: int = 1, finished: bool = False) -> None:
        """There is such a FineTuneJob."""
        conditions = [{"type": "Finished", "status": str(finished)}]
        meta = {"namespace": self.namespace, "name": name, "uid": OWNER}
        status = {"attempts": [{"number": n + 1} for n in range(attempts)], "conditions": conditions}
        self.cache.put("FineTuneJob", {"metadata": meta, "spec": {}, "status": status})

    async def attempt(self, job: str, number: int, owner: str = OWNER) -> str:
        """Make the batch Job of an attempt and one pod of it; the pod's name."""
        name = f"{job}-{number}"
        meta = {"name": name, "ownerReferences": reference("FineTuneJob", job, owner)}
        body = {"metadata": meta, "spec": {"template": {"spec": pod_spec()}}}
        made = await self.kube("POST", f"/apis/batch/v1/namespaces/{self.namespace}/jobs", body)
        labels = {"hone.dev/finetunejob": job, "hone.dev/attempt": str(number)}
        return await self.pod(f"{name}-0", labels, reference("Job", name, made["metadata"]["uid"]))

    async def pod(self, name: str, labels: dict[str, str], owners: list[dict[str, Any]]) -> str:
        body = {"metadata": {"name": name, "labels": labels, "ownerReferences": owners}, "spec": pod_spec()}
        await self.kube("POST", f"/api/v1/namespaces/{self.namespace}/pods", body)
        return name

    async def token(self, pod: str | None, audience: str = AUDIENCE) -> str:
        """A token as the kubelet projects it: bound to the pod."""
        spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": 3600}
        if pod:
            uid = (await self.kube("GET", f"/api/v1/namespaces/{self.namespace}/pods/{pod}"))["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default/token"
        return (await self.kube("POST", path, {"spec": spec}))["status"]["token"]

    async def encoder(self, name: str, component: str = "encode") -> str:
        """Make a Job that encodes rows and its pod; the pod's name."""
        labels = {"hone.dev/component": component, "hone.dev/content": "0" * 16}
        body = {"metadata": {"name": name, "labels": labels}, "spec": {"template": {"spec": pod_spec()}}}
        made = await self.kube("POST", f"/apis/batch/v1/namespaces/{self.namespace}/jobs", body)
        return await self.pod(f"{name}-0", labels, reference("Job", name, made["metadata"]["uid"]))

    async def post(
        self, job: str, token: str | None, body: Any, namespace: str = "", kind: str = "finetunejobs"
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        context = ssl.create_default_context(cadata=self.ca)
        async with aiohttp.ClientSession(trust_env=False) as session:
            url = self.path(job, namespace).replace("/finetunejobs/", f"/{kind}/")
            async with session.post(url, data=data, headers=headers, ssl=context) as answer:
                return answer.status, await answer.json()

    def path(self, job: str, namespace: str = "") -> str:
        return f"{self.url}/apis/hone.dev/v1alpha1/namespaces/{namespace or self.namespace}/finetunejobs/{job}/status"


@pytest_asyncio.fixture
async def world(apiserver) -> AsyncIterator[World]:
    settings = Configuration()
    await config.load_kube_config(str(apiserver), client_configuration=settings)
    async with ApiClient(settings) as api:
        kube, cache = Kube(api), Cache()
        backing = ClusterBacking(cache, Cluster(api))
        namespace = f"ml-{uuid.uuid4().hex[:8]}"  # of the test alone: here nothing cleans up after deletions
        await kube("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        await kube("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "default"}})
        certificates = renew(None, ["localhost"], datetime.now(UTC))
        store = ProgressStore(lambda key: None, interval=60)
        server = ProgressServer(Authenticator(backing), backing, store)
        runner = await server.start("127.0.0.1", 0, server_context(certificates))
        port = runner.addresses[0][1]
        try:
            yield World(kube, cache, backing, store, f"https://localhost:{port}", certificates.ca_pem, namespace)
        finally:
            await runner.cleanup()


REPORT = {"trainerStatus": {"progressPercentage": 20, "metrics": [{"name": "current_step", "value": "41"}]}}


async def test_transformers_own_callback_reports(world, tmp_path, monkeypatch):
    world.knows("a")
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text(await world.token(await world.attempt("a", 1)))
    ca.write_text(world.ca)
    monkeypatch.setenv(URL_ENV, world.path("a"))
    monkeypatch.setenv(TOKEN_ENV, str(token))
    monkeypatch.setenv(CA_ENV, str(ca))
    from transformers.integrations.integration_utils import KubeflowCallback

    monkeypatch.setattr(KubeflowCallback, "_MIN_UPDATE_INTERVAL", 0.0)

    def train() -> None:
        callback = KubeflowCallback()
        state = SimpleNamespace(is_world_process_zero=True, max_steps=40, global_step=0, epoch=0.0)
        callback.on_train_begin(None, state, None)
        for state.global_step in range(1, 11):
            callback.on_log(None, state, None, logs={"loss": 2.5, "grad_norm": float("nan"), "learning_rate": 2e-4})
            callback.on_step_end(None, state, None)

    await asyncio.to_thread(train)
    progress = world.store.latest(OWNER).progress
    assert (progress.step, progress.total_steps, progress.percent) == (10, 40, 25)
    assert (progress.loss, progress.grad_norm, progress.learning_rate) == ("2.5", "nan", "0.0002")


async def test_a_report_is_echoed_as_it_was_understood(world):
    world.knows("a")
    token = await world.token(await world.attempt("a", 1))
    hone = {"stage": "Training", "step": 41, "evalLoss": "nan", "metrics": {}, "phases": {"loading": 2.5}}
    understood = {**REPORT, "hone": hone}
    assert await world.post("a", token, {**understood, "further": [1, 2]}) == (200, understood)
    older = {**REPORT, "hone": {"stage": "Training", "step": 40, "metrics": {"reward": "0.5"}, "phases": {}}}
    assert await world.post("a", token, older) == (200, older)
    assert world.store.latest(OWNER).step == 41


async def test_no_valid_token(world):
    world.knows("a")
    pod = await world.attempt("a", 1)
    good = await world.token(pod)
    forged = good[:-8] + ("A" * 8)
    unbound = await world.token(None)
    for token in (None, "nonsense", forged, unbound, await world.token(pod, audience="https://other")):
        status, body = await world.post("a", token, REPORT)
        assert (status, body["reason"]) == (401, "Unauthorized")
    assert world.store.latest(OWNER) is None


async def test_only_a_pod_of_the_current_attempt(world):
    world.knows("a", attempts=2)
    world.knows("b")
    labels = {"hone.dev/finetunejob": "a", "hone.dev/attempt": "2"}
    pods = {
        "a pod of an earlier attempt": await world.attempt("a", 1),
        "a pod of another job": await world.attempt("b", 1),
        "a pod that only wears the labels": await world.pod("forged", labels, []),
        "a pod without labels": await world.pod("plain", {}, []),
    }
    for what, pod in pods.items():
        status, body = await world.post("a", await world.token(pod), REPORT)
        assert (status, body["reason"]) == (403, "Forbidden"), what
    assert (await world.post("b", await world.token(pods["a pod of another job"]), REPORT))[0] == 200


async def test_a_pod_of_an_earlier_job_with_the_same_name(world):
    world.knows("a")
    pod = await world.attempt("a", 1, owner="6a3f5b0e-0000-4000-8000-00000000dead")
    assert (await world.post("a", await world.token(pod), REPORT))[0] == 403


async def test_a_pod_that_is_gone(world):
    world.knows("a")
    pod = await world.attempt("a", 1)
    token = await world.token(pod)
    assert (await world.post("a", token, REPORT))[0] == 200
    await world.kube("DELETE", f"/api/v1/namespaces/{world.namespace}/pods/{pod}?gracePeriodSeconds=0")
    assert (await world.post("a", token, REPORT))[0] == 403


async def test_other_namespaces_unknown_jobs_and_ended_jobs(world):
    token = await world.token(await world.attempt("a", 1))
    assert (await world.post("a", token, REPORT))[0] == 404
    assert (await world.post("a", token, REPORT, namespace="other"))[0] == 403
    world.knows("a", finished=True)
    assert (await world.post("a", token, REPORT))[0] == 409
    assert world.store.latest(OWNER) is None


async def test_a_pod_that_encodes_rows_reports_for_its_job_alone(world):
    report = {"trainerStatus": {"progressPercentage": 42, "estimatedRemainingSeconds": 90, "metrics": []}}
    encoder = await world.token(await world.encoder("rows-encode-1"))
    assert (await world.post("rows-encode-1", encoder, report, kind="encodings"))[0] == 200
    job = await world.kube("GET", f"/apis/batch/v1/namespaces/{world.namespace}/jobs/rows-encode-1")
    latest = world.store.latest(job["metadata"]["uid"])
    assert (latest.progress.percent, latest.progress.eta) == (42, "1m")
    assert (await world.post("rows-encode-2", encoder, report, kind="encodings"))[0] == 403, "of another Job"
    assert (await world.post("rows-encode-1", encoder, report, "other", kind="encodings"))[0] == 403
    world.knows("rows-encode")
    assert (await world.post("rows-encode", encoder, report))[0] == 403, "it is no attempt of a run"
    stager = await world.token(await world.encoder("model-fetch-1", component="fetch"))
    assert (await world.post("model-fetch-1", stager, report, kind="encodings"))[0] == 403


async def test_a_pod_that_delivers_reports_for_its_job_alone(world):
    numbers = {"stage": "Delivering", "step": 400, "totalSteps": 1000, "metrics": {"bytes_per_second": "20"}}
    time = {"progressPercentage": 40, "estimatedRemainingSeconds": 30, "metrics": []}
    report = {"trainerStatus": time, "hone": numbers}
    pod = await world.token(await world.encoder("tutor-deliver-1", component="deliver"))
    assert (await world.post("tutor-deliver-1", pod, report, kind="deliveries"))[0] == 200
    job = await world.kube("GET", f"/apis/batch/v1/namespaces/{world.namespace}/jobs/tutor-deliver-1")
    latest = world.store.due(job["metadata"]["uid"])
    assert (latest.progress.step, latest.progress.total_steps, latest.eta_seconds) == (400, 1000, 30)
    assert latest.progress.metrics == {"bytes_per_second": "20"}
    assert (await world.post("tutor-deliver-2", pod, report, kind="deliveries"))[0] == 403, "of another Job"
    assert (await world.post("tutor-deliver-1", pod, report, kind="encodings"))[0] == 403, "it encodes nothing"
    assert (await world.post("tutor-deliver-1", pod, report, "other", kind="deliveries"))[0] == 403
    assert (await world.post("tutor-deliver-1", None, report, kind="deliveries"))[0] == 401
    encoder = await world.token(await world.encoder("rows-encode-3"))
    assert (await world.post("rows-encode-3", encoder, report, kind="deliveries"))[0] == 403


async def test_bad_bodies(world):
    world.knows("a")
    token = await world.token(await world.attempt("a", 1))
    assert (await world.post("a", token, b"{" + b" " * (64 * 1024)))[0] == 413
    assert (await world.post("a", token, b"\xff\xfe"))[0] == 422
    wrong = {"trainerStatus": {"progressPercentage": 101}, "hone": {"step": -1}}
    status, body = await world.post("a", token, wrong)
    assert status == 422
    for place in ("trainerStatus.progressPercentage", "hone.stage", "hone.step"):
        assert place in body["message"]
    assert world.store.latest(OWNER) is None


async def test_a_pod_that_floods_is_slowed_down_alone(world):
    world.knows("a")
    world.knows("b")
    token, other = await world.token(await world.attempt("a", 1)), await world.token(await world.attempt("b", 1))
    answers = await asyncio.gather(*(world.post("a", token, REPORT) for _ in range(60)))
    statuses = [status for status, _ in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 20
    assert (await world.post("b", other, REPORT))[0] == 200


async def test_the_certificates_secret_of_the_chart_is_filled_and_kept(world):
    path, name = f"/api/v1/namespaces/{world.namespace}/secrets", "hone-operator-tls"
    await world.kube("POST", path, {"metadata": {"name": name}})
    first = await ensure(world.backing, world.namespace, name, ["localhost"])
    assert await ensure(world.backing, world.namespace, name, ["localhost"]) == first
    await world.kube("DELETE", f"{path}/{name}")
    assert await world.backing.read_secret(world.namespace, name) is None
