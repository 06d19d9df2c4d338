"""vLLM's build for CPUs in the pod that `hone serve` prints."""

from __future__ import annotations

from collections import Counter

import pytest

from hone_dev.models import vllm_pod

pytestmark = pytest.mark.pure


def test_every_variable_is_there_once() -> None:
    """Server-side apply refuses a container with a name twice."""
    rendered = [{"name": "PYTHONPATH", "value": "/adapters/.guard"}, {"name": "HOME", "value": "/tmp"}]
    container = {"name": "vllm", "args": ["--model", "/base"], "env": rendered, "volumeMounts": []}
    deployment = {"spec": {"template": {"spec": {"containers": [container], "volumes": []}}}}
    [made] = vllm_pod.on_cpus(deployment)["spec"]["template"]["spec"]["containers"]
    variables = {entry["name"]: entry["value"] for entry in made["env"]}
    assert set(Counter(entry["name"] for entry in made["env"]).values()) == {1}
    assert variables["PYTHONPATH"] == "/vllm:/adapters/.guard", "the packages, and what the server follows"
    assert variables["HOME"] == "/tmp"
