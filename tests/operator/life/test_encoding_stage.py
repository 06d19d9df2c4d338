"""The rows of a large Dataset are encoded once for all jobs that use them, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.operator_process import Operator

pytestmark = pytest.mark.apiserver
FETCHED = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "c" * 40, "digest": "sha256:" + "6" * 64}
ENCODED = {"kind": "Encode", "digest": "sha256:" + "7" * 64, "splits": 2, "rows": 100, "tokens": 34567}


def jobs_of(namespace: Namespace, component: str) -> list[str]:
    found = namespace.list("Job")
    return sorted(j["metadata"]["name"] for j in found if j["metadata"]["labels"]["hone.dev/component"] == component)


def resolved(namespace: Namespace, run: str) -> dict[str, Any] | None:
    """The status of a run once it has what the first attempt was given; it is written after the Job exists."""
    status = namespace.get("FineTuneJob", run).get("status") or {}
    return status if "resolved" in status else None


def test_jobs_with_equal_rows_share_one_encoding(
    namespace: Namespace, operator: Operator, spec: Callable[..., dict[str, Any]]
) -> None:
    namespace.dataset(digit="5", size=10**9)
    for rate in ("1e-4", "2e-4", "3e-4"):
        wanted = spec(model={"uri": "hf://org/model"}, training={"learningRate": rate})
        namespace.create("FineTuneJob", f"run-{rate}", wanted)
    (fetch,) = namespace.until(lambda: jobs_of(namespace, "fetch"), "the base model is staged")
    namespace.succeed(fetch, FETCHED)
    (encode,) = namespace.until(lambda: jobs_of(namespace, "encode"), "the rows are encoded")
    runs = [f"run-{rate}" for rate in ("1e-4", "2e-4", "3e-4")]
    namespace.until(
        lambda: {namespace.condition("FineTuneJob", run, "RowsEncoded").get("reason") for run in runs} == {"Encoding"},
        "all wait for their rows",
    )
    assert jobs_of(namespace, "training") == []
    namespace.succeed(encode, ENCODED)
    namespace.until(lambda: len(jobs_of(namespace, "training")) == 3, "all train")
    assert jobs_of(namespace, "encode") == [encode]
    for run in runs:
        status = namespace.until(partial(resolved, namespace, run), "the status of the run")
        assert status["resolved"]["encodedRows"]["digest"] == ENCODED["digest"]
        assert status["encoding"]["tokens"] == 34567
    namespace.until(
        lambda: (
            set(status["encoding"]["keys"])
            <= {key.removeprefix("encoded.") for key in namespace.get("ConfigMap", "hone-contents").get("data", {})}
        ),
        "the ledger knows what is encoded",
    )


def test_several_pods_share_the_work(
    namespace: Namespace,
    apiserver: Path,
    start_operator: Callable[[Path, dict[str, str]], Operator],
    spec: Callable[..., dict[str, Any]],
) -> None:
    env = {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name]), "HONE_ENCODING__PODS": "3"}
    start_operator(apiserver, env)
    namespace.dataset(digit="5", size=10**10)
    namespace.create("FineTuneJob", "run", spec(model={"uri": "hf://org/model"}))
    (fetch,) = namespace.until(lambda: jobs_of(namespace, "fetch"), "the base model is staged")
    namespace.succeed(fetch, FETCHED)
    (encode,) = namespace.until(lambda: jobs_of(namespace, "encode"), "the rows are encoded")
    spec_of_job = namespace.get("Job", encode)["spec"]
    assert (spec_of_job["completions"], spec_of_job["backoffLimitPerIndex"]) == (3, 3)
    assert spec_of_job["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    namespace.succeed(encode, ENCODED)
    namespace.until(lambda: jobs_of(namespace, "training"), "the run trains")
    assert jobs_of(namespace, "encode") == [encode]
