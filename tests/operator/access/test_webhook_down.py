"""An admission webhook of somebody else that does not answer: every object that waits for it says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.cluster.hand import Namespace

pytestmark = pytest.mark.apiserver
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@pytest.fixture
def webhook(namespace: Namespace) -> Iterator[Callable[[str, str], Callable[[], None]]]:
    """Puts a webhook that is down in the way of a resource; the returned function removes it."""
    made: list[str] = []

    def remove() -> None:
        while made:
            namespace.kube.call("DELETE", f"{WEBHOOKS}/{made.pop()}")

    def add(group: str, resource: str) -> Callable[[], None]:
        rule = {"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [resource]}
        body = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": f"{namespace.name}-{resource}"},
            "webhooks": [
                {
                    "name": "down.example.org",
                    "clientConfig": {"url": "https://127.0.0.1:9/"},
                    "failurePolicy": "Fail",
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                    "rules": [rule],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
                }
            ],
        }
        namespace.kube.call("POST", WEBHOOKS, body)
        made.append(body["metadata"]["name"])
        return remove

    yield add
    remove()


def shows_it(namespace: Namespace) -> Callable[[], bool]:
    def shows() -> bool:
        condition = namespace.condition("FineTuneJob", "run", "Reconciling")
        job = namespace.get("FineTuneJob", "run").get("status", {})
        reasons = condition.get("reason"), job.get("reason")
        return reasons == ("APIServerError", "APIServerError") and "down.example.org" in condition["message"]

    return shows


@pytest.mark.faults("O22")
def test_a_new_job_says_that_a_webhook_is_down(namespace: Namespace, operator: Any, spec: Any, webhook: Any) -> None:
    remove = webhook("batch", "jobs")
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(shows_it(namespace), "the status names the webhook")
    assert namespace.get("FineTuneJob", "run")["status"]["phase"] == "Pending"
    namespace.until(
        lambda: any(event.get("reason") == "APIServerError" for event in namespace.list("Event")), "an Event says so"
    )
    remove()
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.until(
        lambda: namespace.condition("FineTuneJob", "run", "Reconciling").get("reason") != "APIServerError", "recovered"
    )


@pytest.mark.faults("O22")
def test_a_second_attempt_says_so(namespace: Namespace, operator: Any, spec: Any, webhook: Any) -> None:
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.start_pods("run-1")
    remove = webhook("batch", "jobs")
    for pod in namespace.names("Pod"):
        namespace.delete("Pod", pod)
    namespace.delete("Job", "run-1")
    namespace.until(shows_it(namespace), "the status names the webhook")
    remove()
    namespace.until(lambda: namespace.get("Job", "run-2"), "attempt 2")


@pytest.mark.faults("O22")
def test_a_finished_run_whose_version_cannot_be_made_says_so(
    namespace: Namespace, operator: Any, spec: Any, result: Any, webhook: Any
) -> None:
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    pods = namespace.start_pods("run-1")
    remove = webhook("hone.dev", "modelversions")
    for rank, pod in enumerate(pods):
        namespace.end_pod(pod, 0, {"result": result} if rank == 0 else None)
    namespace.end_job("run-1", "Complete")
    namespace.until(shows_it(namespace), "the status names the webhook")
    remove()
    namespace.until(
        lambda: namespace.get("FineTuneJob", "run").get("status", {}).get("phase") == "Succeeded", "Succeeded"
    )
