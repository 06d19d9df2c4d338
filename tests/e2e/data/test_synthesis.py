"""Seed rows, a real model in the cluster, two people, a Ready Dataset: example 10 from its first row to its last."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from support.cluster import serving
from support.cluster.live import HANG, condition, wait

from hone_dev.demo import runs
from hone_dev.models import models, modelserver
from hone_dev.tools import paths

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]


def model_server(image: str, hub: str) -> list[dict[str, Any]]:
    """SmolLM2 behind an OpenAI-compatible API, for those who have the key."""
    command = ["python", "/program/modelserver.py", "--model", models.SMOLLM2, "--host", "0.0.0.0"]
    programs = {"modelserver.py": Path(modelserver.__file__)}
    env = {"HF_ENDPOINT": hub, "HF_HOME": "/tmp/hub", "OMP_NUM_THREADS": "1"}
    # With less it starves on a busy node.
    return serving.server("model-server", image, command, programs, env, cpu="300m", memory="1Gi")


def reviewer(kubectl: Any, folder: Path) -> Path:
    """The kubeconfig of somebody who has the rights that the guide names, and no others."""
    guide = (paths.SOURCE / "docs" / "guides" / "synthetic-data.md").read_text()
    (role,) = (yaml.safe_load(t) for t in re.findall(r"```yaml\n(.*?)```", guide, re.S) if "kind: Role\n" in t)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reviewer"}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reviewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "reviewer", "namespace": kubectl.namespace}],
    }
    kubectl.apply(role, account, binding)
    document = yaml.safe_load(kubectl.kubeconfig.read_text())
    document["users"] = [
        {"name": user["name"], "user": {"token": kubectl("create", "token", "reviewer").strip()}}
        for user in document["users"]
    ]
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return file


def test_generated_rows_wait_for_people_and_then_are_a_dataset(kubectl, hone, images, terminal, tmp_path) -> None:
    kubectl.apply(*model_server(images["trainer"], hone.values["huggingFace"]["endpoint"]))
    objects = runs.manifests(paths.SOURCE / "examples" / "10-synthetic-data")
    (dataset,) = (o for o in objects if o["kind"] == "Dataset")
    dataset["spec"]["synthesis"] |= {"rows": 4, "review": {"accepted": 2}}
    kubectl("wait", "--for=condition=Ready", "pod/model-server", f"--timeout={HANG:.0f}s")
    kubectl.apply(*objects)
    name = dataset["metadata"]["name"]

    def seen(type_: str = "Ready", *, kind: str = "dset", of: str = name) -> dict[str, Any]:
        return condition(kubectl, kind, of, type_)

    def state() -> dict[str, Any]:
        return kubectl.get("dset", name)["status"]

    wait(lambda: seen().get("reason") == "AwaitingReview", state)
    assert "4 wait for a person: hone dataset review" in seen()["message"]
    assert seen("DatasetReady", kind="ftj", of="faq")["status"] == "False"
    assert state().get("digest") is None

    # Ann, in a terminal, with the command that the Dataset shows.
    command = re.search(r"hone (dataset review \S+ --namespace \S+?)\.", seen()["message"])[1].split()
    environment = {"KUBECONFIG": str(reviewer(kubectl, tmp_path))}
    ann = terminal(*command, "--reviewer", "ann", columns=160, **environment)
    ann.until("4 wait")
    ann.press("r")
    ann.until("1 rejected · 3 wait")
    ann.press("e")
    ann.until("Save")
    ann.press("\x13")  # saved as it was: accepted
    ann.until("1 of 2 wanted accepted")
    ann.press("q")
    assert ann.end() == 0
    wait(lambda: (state().get("synthetic") or {}).get("accepted") == 1, state)
    assert seen()["reason"] == "AwaitingReview"

    # Bob, on the page; a browser shows it in tests/cli/review/test_page.py.
    bob = terminal(*command, "--web", "--reviewer", "bob", columns=160, **environment)
    url, token = re.search(r"(http://127\.0\.0\.1:\d+)/#token=(\S+)", bob.until("Ctrl-C")).groups()
    assert "Hone: review" in requests.get(url, timeout=600).text
    me = {"Authorization": f"Bearer {token}"}
    shown = requests.post(f"{url}/api/state", json={}, headers=me, timeout=600).json()
    assert shown["counts"]["accepted"] == 1
    decision = {"id": shown["candidate"]["id"], "verdict": "Accept"}
    assert requests.post(f"{url}/api/decide", json=decision, headers=me, timeout=600).status_code == 200
    bob.press("\x03")
    assert bob.end() == 0
    assert "The review is complete." in bob.text

    wait(lambda: seen().get("status") == "True", state)
    synthetic = state()["synthetic"]
    assert (synthetic["accepted"], synthetic["rejected"], synthetic["wanted"]) == (2, 1, 2)
    assert state()["rows"] == 2
    wait(lambda: seen("DatasetReady", kind="ftj", of="faq").get("status") == "True", state)
    assert {p["metadata"]["name"] for p in kubectl.get("pods")["items"] if "-review-" in p["metadata"]["name"]} == set()
    check_provenance(kubectl, state())
    serving.check_nothing_reveals_the_key(kubectl, "materialize")


def check_provenance(kubectl: Any, status: dict[str, Any]) -> None:
    """A file next to the rows says where each comes from, and who accepted it when."""
    claim, _, folder = status["uri"].removeprefix("pvc://").partition("/")
    volume = kubectl.get("pv", kubectl.get("pvc", claim)["spec"]["volumeName"])
    root = Path(volume["spec"]["local"]["path"]) / folder
    rows = [json.loads(line) for line in (root / "train.jsonl").read_text().splitlines()]
    records = [json.loads(line) for line in (root / "synthetic.jsonl").read_text().splitlines()]
    assert [record["row"] for record in records] == rows
    user = f"system:serviceaccount:{kubectl.namespace}:reviewer"
    assert {record["decision"]["reviewer"] for record in records} == {f"ann (as {user})", f"bob (as {user})"}
    for record in records:
        assert record["synthetic"] is True
        assert record["decision"]["time"] > record["provenance"]["time"]
        assert record["provenance"]["endpoint"] == "model-server"
        assert len(record["provenance"]["seeds"]) == 1
