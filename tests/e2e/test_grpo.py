"""The example of GRPO in the cluster with a tiny model and one more reward: a program from a ConfigMap, in the sandbox
of the pod."""

import json
from typing import Any

import pytest
from support.cluster import live

from hone_dev.demo import runs
from hone_dev.tools import paths

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]

SHORT = "def reward(completion, **_):\n    return 1 / (1 + len(completion))\n"
SMALL = {
    "training": {"maxSteps": 2, "batchSize": 4},
    "grpo": {"generations": 4, "maxCompletionLength": 8, "constantSteps": 100},
    "evaluation": {"maxRows": 4, "everySteps": 2},
}


def test_a_model_is_tuned_by_rewards(kubectl: Any, tiny: str) -> None:
    objects = runs.manifests(paths.SOURCE / "examples" / "08-grpo")
    job = runs.job_of(objects)
    for block, fields in SMALL.items():
        job["spec"][block] |= fields
    job["spec"]["model"] = {"uri": tiny}
    job["spec"]["grpo"]["rewards"].append({"type": "Python", "name": "short", "python": {"configMapName": "mine"}})
    objects.append(live.config_map("mine", {"reward.py": SHORT}))
    document = {"apiVersion": "v1", "kind": "List", "items": objects}
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(document))
    live.reason_becomes(kubectl, "ftj", "sums", "Finished", "Succeeded")
    status = kubectl.get("ftj", "sums")["status"]
    assert {"reward", "reward_std", "masked_samples", "reward_short"} <= status["progress"]["metrics"].keys()
    kubectl("wait", "--for=condition=Ready", f"mv/{status['modelVersionName']}", f"--timeout={live.HANG:.0f}s")
    spec = kubectl.get("mv", status["modelVersionName"])["spec"]
    (reward,) = [n for n in spec["evaluation"]["numbers"] if n["name"] == "reward"]
    assert {"base", "tuned"} <= reward.keys()
    assert spec["lineage"]["method"] == "GRPO"
