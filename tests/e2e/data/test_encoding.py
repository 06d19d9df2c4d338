"""Rows of a large Dataset become tokens in a pod without a GPU; two runs read the same files. Each step a real pod."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import conditions, config_map, dataset, job, lines, wait

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.usefixtures("hone")]
COUNT = 6000


def rows() -> str:
    return lines(
        [
            {"prompt": f"What is {n} and {n % 7}?", "completion": f"It is {n + n % 7}, as {n} plus {n % 7} gives."}
            for n in range(COUNT)
        ]
    )


def ended(kubectl: Any, name: str) -> dict[str, Any]:
    def finished() -> dict[str, Any] | None:
        body = kubectl.get("ftj", name)
        return body if conditions(body).get("Finished", {}).get("status") == "True" else None

    return wait(finished, lambda: kubectl.get("ftj", name).get("status"))


def test_two_runs_read_rows_that_were_encoded_once(kubectl, tiny) -> None:
    # By the server: a client would keep the rows in an annotation, which has no room for them.
    files = json.dumps(config_map("files", {"rows.jsonl": rows()}))
    kubectl("apply", "--server-side", "--filename=-", stdin=files)
    kubectl.apply(dataset("good", "rows.jsonl"))
    kubectl.apply(*(job(name, {"uri": tiny}, training={"maxSteps": 2, "seed": seed}) for name, seed in RUNS.items()))
    bodies = [ended(kubectl, name) for name in RUNS]
    for body in bodies:
        found = conditions(body)
        assert found["Succeeded"]["status"] == "True", body["status"]
        assert found["RowsEncoded"]["reason"] == "Encoded"
    first, second = (body["status"] for body in bodies)
    assert first["encoding"]["work"] == second["encoding"]["work"]
    assert first["resolved"]["encodedRows"] == second["resolved"]["encodedRows"]
    assert 0 < first["encoding"]["rows"] <= COUNT
    (claim,) = kubectl.get("pvc")["items"]
    store = Path(kubectl.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    for key in first["encoding"]["keys"]:
        assert (store / "encoded" / key / "manifest.json").is_file()


RUNS = {"one": 1, "two": 2}
