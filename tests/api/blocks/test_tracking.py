"""What the operator writes about MLflow is kept by the API server, field by field."""

from typing import Any

import pytest

pytestmark = pytest.mark.apiserver
SINCE = "2026-01-02T03:04:05Z"
RUN = {"uri": "https://mlflow.example.org", "experiment": "faq", "runId": "0123abcd"}
REGISTRY = {
    "uri": "http://mlflow:5000",
    "name": "Support bot of team-a",
    "versions": [{"version": 3, "registered": "12"}],
    "aliases": [{"name": "champion", "version": 3, "since": SINCE}],
}


@pytest.mark.parametrize(
    ("kind", "spec", "status"),
    [
        ("FineTuneJob", {"spec.tracking": [{"type": "MLflow", "uri": RUN["uri"]}]}, {"tracking": RUN}),
        ("Model", {"spec.registry": {"mlflow": {"uri": REGISTRY["uri"]}}}, {"registry": REGISTRY}),
    ],
)
def test_the_status_is_kept(api: Any, manifest: Any, kind: str, spec: Any, status: Any) -> None:
    name = "tracked"
    created = api.create(manifest(kind, spec, name=name), dry_run=False)
    assert created.code == 201, created.message
    answer = api.merge(kind, name, {"status": status}, "status", dry_run=False)
    assert answer.code == 200, answer.message
    kept = api.call("GET", api.path(kind, name)).body
    assert {field: kept["status"][field] for field in status} == status
    api.call("DELETE", api.path(kind, name))
