"""Three real pods encode rows into the same files as one pod, although one of them is killed.

`tests/trainer/run/test_encode_pods.py` is the shorter one, with processes for pods.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import conditions, config_map, dataset, job, kill_a_pod_at_work, lines, wait

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.usefixtures("hone")]
COUNT = 8000
PARTS = ("a", "b", "c")


def rows(part: str) -> str:
    words = (
        {"prompt": f"What is {part}{n} and {n % 7}?", "completion": f"It is {part}{n + n % 7}, as it is written."}
        for n in range(COUNT)
    )
    return lines(list(words))


def test_three_pods_encode_the_same_as_one_although_one_is_killed(kubectl: Any, new_namespace: Any, tiny: str) -> None:
    with new_namespace("encoded by one pod") as alone:
        for namespace in (kubectl, alone):
            for part in PARTS:
                # By the server: a client would keep the rows in an annotation, which has no room for them.
                body = config_map(f"files-{part}", {"rows.jsonl": rows(part)})
                namespace("apply", "--server-side", "--filename=-", stdin=json.dumps(body))
                source = {"uri": f"configmap://files-{part}/rows.jsonl"}
                namespace.apply(dataset(part, "rows.jsonl", source=source, splits={"validation": "10%"}))
        kubectl.apply(job("all", {"uri": tiny}, datasets=[{"name": part} for part in PARTS]))
        kill_a_pod_at_work(kubectl, "encode")
        several = _encoded(kubectl, "all")
        single: dict[str, bytes] = {}
        for part in PARTS:
            alone.apply(job(part, {"uri": tiny}, datasets=[{"name": part}]))
            single |= _encoded(alone, part)
    assert len({name.partition("/")[0] for name in several}) == 2 * len(PARTS)
    assert several == single


def _encoded(kubectl: Any, run: str) -> dict[str, bytes]:
    """The files that were encoded for a run, by key and name; the run itself is not awaited."""

    def keys() -> list[str] | None:
        body = kubectl.get("ftj", run)
        found = conditions(body)
        assert found.get("Failed", {}).get("status") != "True", body["status"]
        return body["status"]["encoding"]["keys"] if found.get("RowsEncoded", {}).get("status") == "True" else None

    done = wait(keys, lambda: kubectl.get("ftj", run).get("status"))
    (claim,) = kubectl.get("pvc")["items"]
    store = Path(kubectl.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    kubectl("delete", "ftj", run, "--wait=false")
    files = [file for key in done for file in (store / "encoded" / key).iterdir()]
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}
