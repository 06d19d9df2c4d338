"""A Dataset by one pod, and by three although one is killed: the same rows and counts. Real pods, real network."""

from __future__ import annotations

import json
from typing import Any

import pytest
from live import conditions, config_map, dataset, kill_a_pod_at_work, lines, wait

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]
COUNT = 6000
CURATION = {"deduplicate": "Near", "personalData": "Redact"}
SAME = ("digest", "rows", "rejected", "errors", "splits", "curation", "duplicates", "tokens", "languages", "advice")
WORKERS = "--selector=hone.dev/component=materialize-workers"


def rows() -> str:
    """Every tenth without an answer, and the answers of one in three alike."""
    made = (
        {"prompt": f"What is {n} plus {n % 7}?", "completion": f"It is {n % 2000 + n % 7}; ask a{n % 9}@example.org."}
        for n in range(COUNT)
    )
    return lines([row if n % 10 else {"prompt": row["prompt"]} for n, row in enumerate(made)])


def test_three_pods_make_the_same_dataset_as_one_although_one_is_killed(kubectl: Any) -> None:
    # By the server: a client would keep the rows in an annotation, which has no room for them.
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(config_map("files", {"rows.jsonl": rows()})))
    fields = {"curation": CURATION, "checks": {"maxRejected": "20%"}}
    three = {"cpu": "100m", "memory": "1536Mi", "pods": 3}
    kubectl.apply(dataset("three", "rows.jsonl", resources=three, **fields))
    kill_a_pod_at_work(kubectl, "materialize")
    kubectl.apply(dataset("one", "rows.jsonl", **fields))
    statuses = [_ready(kubectl, name) for name in ("three", "one")]
    several, single = ({field: status.get(field) for field in SAME} for status in statuses)
    assert several == single
    assert several["rejected"] == COUNT / 10
    wait(lambda: not kubectl.get("jobs", WORKERS)["items"], lambda: kubectl.get("jobs", WORKERS))


def _ready(kubectl: Any, name: str) -> dict[str, Any]:
    def status() -> dict[str, Any] | None:
        body = kubectl.get("dset", name)
        ready = conditions(body).get("Ready", {})
        assert body.get("status", {}).get("phase") != "Failed", body["status"]
        return dict(body["status"]) if ready.get("status") == "True" else None

    return wait(status, lambda: kubectl.get("dset", name).get("status"))
