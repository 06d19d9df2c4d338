"""A Dataset by one pod, and by three although one is killed: the same rows and counts. Real pods, real network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import conditions, config_map, dataset, kill_a_pod_at_work, lines, wait

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.usefixtures("hone")]
COUNT = 6000
CURATION = {"deduplicate": "Near", "personalData": "Redact"}
SAME = ("digest", "rows", "rejected", "errors", "splits", "curation", "duplicates", "tokens", "languages", "advice")


def rows() -> str:
    """Every tenth without an answer, and the answers of one in three alike."""
    made = (
        {"prompt": f"What is {n} plus {n % 7}?", "completion": f"It is {n % 2000 + n % 7}; ask a{n % 9}@example.org."}
        for n in range(COUNT)
    )
    return lines([row if n % 10 else {"prompt": row["prompt"]} for n, row in enumerate(made)])


def test_three_pods_make_the_same_dataset_as_one_although_one_is_killed(kubectl: Any, new_namespace: Any) -> None:
    fields = {"curation": CURATION, "checks": {"maxRejected": "20%"}}
    three = {"cpu": "100m", "memory": "1536Mi", "pods": 3}
    with new_namespace("one pod") as alone:
        for namespace in (kubectl, alone):
            # By the server: a client would keep the rows in an annotation, which has no room for them.
            body = config_map("files", {"rows.jsonl": rows()})
            namespace("apply", "--server-side", "--filename=-", stdin=json.dumps(body))
        kubectl.apply(dataset("rows", "rows.jsonl", resources=three, **fields))
        kill_a_pod_at_work(kubectl, "materialize")
        alone.apply(dataset("rows", "rows.jsonl", **fields))
        statuses = [_ready(namespace) for namespace in (kubectl, alone)]
        files = [_files(namespace, status) for namespace, status in zip((kubectl, alone), statuses, strict=True)]
    several, single = ({field: status.get(field) for field in SAME} for status in statuses)
    assert several == single
    assert several["rejected"] == COUNT / 10
    assert {"report.json", "report.html"} <= files[0].keys()
    assert files[0] == files[1]


def _ready(kubectl: Any) -> dict[str, Any]:
    def status() -> dict[str, Any] | None:
        body = kubectl.get("dset", "rows")
        ready = conditions(body).get("Ready", {})
        assert body.get("status", {}).get("phase") != "Failed", body["status"]
        return dict(body["status"]) if ready.get("status") == "True" else None

    return wait(status, lambda: kubectl.get("dset", "rows").get("status"))


def _files(kubectl: Any, status: dict[str, Any]) -> dict[str, bytes]:
    """All files of the Dataset's contents in the store, by path."""
    (claim,) = kubectl.get("pvc")["items"]
    store = Path(kubectl.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    folder = store / status["uri"].partition("://")[2].partition("/")[2]
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
