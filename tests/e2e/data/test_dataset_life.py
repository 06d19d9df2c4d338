"""A Dataset that follows its source, a mixture of it, and what of both is left in the store: each step a real pod.

An hour passes by setting back when something was done.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import config_map, dataset, reason_becomes, wait

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]

LONG_AGO = "2026-01-01T00:00:00Z"


def source(start: int, end: int) -> dict[str, Any]:
    """The ConfigMap with texts of these numbers, and with a file that is none."""
    text = "".join(json.dumps({"text": f"This is row {i} of all."}) + "\n" for i in range(start, end))
    return config_map("files", {"rows.jsonl": text, "broken.jsonl": "{"})


def patch(kubectl: Any, what: str, body: dict[str, Any], *options: str) -> None:
    kubectl("patch", what, "--type=merge", f"--patch={json.dumps(body)}", *options)


def an_hour_passes(kubectl: Any, name: str) -> None:
    """Since this Dataset was read; its Job was removed after its time to live."""
    for job in kubectl.get("job", "--selector=hone.dev/component=materialize")["items"]:
        if job["metadata"]["ownerReferences"][0]["name"] == name:
            kubectl("delete", f"job/{job['metadata']['name']}")
    patch(kubectl, f"dset/{name}", {"status": {"readTime": LONG_AGO, "lastTryTime": LONG_AGO}}, "--subresource=status")


def says(kubectl: Any, name: str, reason: str, type_: str = "UpToDate") -> dict[str, Any]:
    reason_becomes(kubectl, "dset", name, type_, reason)
    return kubectl.get("dset", name)["status"]


def contents(store: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (store / "datasets").iterdir()}


def unused_for_an_hour(kubectl: Any, store: Path) -> set[str]:
    """Set the ledger and the folders back; the contents that nothing refers to."""
    ledger = kubectl.get("configmap", "hone-contents")["data"]
    idle = {content for content, since in ledger.items() if since and content != "plan.json"}
    patch(kubectl, "configmap/hone-contents", {"data": dict.fromkeys(idle, LONG_AGO)})
    for folder in (*(store / "datasets" / content for content in idle), *(store / "reports").iterdir()):
        os.utime(folder, (1, 1))
    return {f"sha256:{content}" for content in idle}


def test_refreshed_mixed_and_swept(kubectl) -> None:
    kubectl.apply(source(0, 40), dataset("rows", "rows.jsonl", format="Text", refresh={"every": "1h"}))
    first = says(kubectl, "rows", "Read")
    mixture = {"mixture": [{"name": "rows", "weight": "100%"}], "refresh": {"every": "1h"}}
    kubectl.apply({**dataset("mix", "rows.jsonl"), "spec": mixture})
    mixed = says(kubectl, "mix", "Materialized", "Ready")
    assert {(use["name"], use["digest"]) for use in mixed["mixture"]} == {("rows", first["digest"])}

    kubectl.apply(source(5, 50))
    an_hour_passes(kubectl, "rows")
    second = says(kubectl, "rows", "Refreshed")
    assert second["changes"] == {"previous": first["digest"], "added": 10, "removed": 5}
    an_hour_passes(kubectl, "mix")
    remixed = says(kubectl, "mix", "Refreshed")
    assert remixed["mixture"][0]["digest"] == second["digest"]

    kubectl.apply(dataset("broken", "broken.jsonl", format="Text"))
    assert says(kubectl, "broken", "TooManyBadRows", "Ready")["report"].endswith("/reports/broken/report.html")

    (claim,) = kubectl.get("pvc")["items"]
    store = Path(kubectl.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    made = {first["digest"], mixed["digest"], second["digest"], remixed["digest"]}
    assert contents(store) == made
    replaced = {first["digest"], mixed["digest"]}
    wait(lambda: unused_for_an_hour(kubectl, store) == replaced, lambda: kubectl.get("configmap", "hone-contents"))
    assert (store / "reports" / "broken").is_dir()
    kubectl("delete", "dset/broken", "dset/mix")  # the operator looks, and finds a content more without a user
    wait(
        lambda: contents(store) == {second["digest"], remixed["digest"]},
        lambda: f"{contents(store)} is left: {kubectl.get('job')['items']}",
    )
    wait(lambda: not (store / "reports" / "broken").exists(), lambda: "the report of a deleted Dataset is left")
