"""Servers next to the cluster, on real pods: models come from a volume and a bucket, runs and versions go to MLflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import (
    ROWS,
    approve,
    config_map,
    dataset,
    job,
    lines,
    reason_becomes,
    secret,
    wait,
)
from support.servers.mlflow_server import PASSWORD, USER, RealMlflow, real_mlflow

from hone_api.blocks.tracking import PASSWORD_KEY, USER_KEY
from hone_dev.cluster import cluster, objectstore
from hone_dev.demo import runs
from hone_dev.life.places import port_of, service
from hone_dev.models import models
from hone_dev.tools import paths

pytestmark = [pytest.mark.e2e, pytest.mark.early]
EXAMPLE = paths.SOURCE / "examples" / "14-import"
BUCKET, TUTOR, FROM_BUCKET, TRACKED = "foreign", "imported-tutor", "from-bucket", "tracked"


@dataclass(frozen=True)
class Team:
    """A namespace, and the servers that are Services of it."""

    kubectl: Any
    store: objectstore.ObjectStore
    mlflow: RealMlflow
    adapter: Path
    """Of the base of the example, as PEFT saved it."""

    def bucket_keys(self, key: str) -> dict[str, Any]:
        """The Secret with the keys of the S3 server."""
        keys = {"AWS_ACCESS_KEY_ID": self.store.access_key, "AWS_SECRET_ACCESS_KEY": key}
        return {**secret("hone-bucket-keys", "", ""), "stringData": keys}


@pytest.fixture(scope="module")
def team(new_namespace, hone, tiny, tmp_path_factory) -> Iterator[Team]:
    """Everything begins at once: two imports, and a run that is tracked."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "mlflow").mkdir()
    with (
        objectstore.serve(folder / "s3", host=cluster.ADDRESS) as store,
        real_mlflow(folder / "mlflow", cluster.ADDRESS, "mlflow") as mlflow,
        new_namespace("outside") as kubectl,
    ):
        team = Team(kubectl, store, mlflow, _adapter(folder / "adapter"))
        shutil.copytree(team.adapter, store.bucket(BUCKET) / "tutor")
        s3 = {"endpoint": f"http://bucket:{port_of(store.endpoint)}"}
        base = {"uri": f"hf://{models.SMOLLM2}"}
        imports = [{"uri": f"s3://{BUCKET}/tutor", "secretName": "hone-bucket-keys", "s3": s3, "base": base}]
        login = {USER_KEY: USER, PASSWORD_KEY: PASSWORD}
        place = {"uri": f"http://mlflow:{port_of(mlflow.uri)}", "secretName": "hone-mlflow"}
        kubectl.apply(
            *service("bucket", port_of(store.endpoint)),
            *service("mlflow", port_of(mlflow.uri)),
            team.bucket_keys("not-the-key"),
            {**secret("hone-mlflow", "", ""), "stringData": login},
            *runs.manifests(EXAMPLE),
            _model(FROM_BUCKET, imports=imports),
            config_map("files", {"good.jsonl": lines(ROWS)}),
            dataset("good", "good.jsonl"),
            job(TRACKED, {"uri": tiny}, tracking=[{"type": "MLflow", **place}]),
            _model(
                TRACKED,
                registry={"mlflow": place},
                promotion={"policy": "Automatic", "aliases": ["champion"]},
            ),
        )
        yield team


def _model(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "Model", "metadata": {"name": name}, "spec": spec}


def _adapter(folder: Path) -> Path:
    """What PEFT saves of an adapter of the example's base."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(models.hub_root() / "models" / models.SMOLLM2 / "main")
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    network = get_peft_model(base, config)
    network.peft_config["default"].base_model_name_or_path = models.SMOLLM2
    network.save_pretrained(folder, save_embedding_layers=False)  # or PEFT looks for the base on the hub
    for file in folder.iterdir():
        file.chmod(0o644)  # for pods, which have another user
    return folder


def imported(kubectl: Any, model: str) -> dict[str, Any]:
    """The version that an import has made, once it is Ready."""
    reason_becomes(kubectl, "mdl", model, "Imported", "Imported")
    [entry] = kubectl.get("mdl", model)["status"]["imports"]
    reason_becomes(kubectl, "mv", entry["modelVersion"], "Ready", "Verified")
    return kubectl.get("mv", entry["modelVersion"])


def test_the_example_imports_what_is_copied_to_its_volume_later(team) -> None:
    reason_becomes(team.kubectl, "mdl", TUTOR, "Imported", "SourceNotFound")
    claim = team.kubectl.get("pvc", "foreign-models")
    volume = Path(team.kubectl.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    shutil.copytree(team.adapter, volume / "tutor")
    spec = imported(team.kubectl, TUTOR)["spec"]
    assert spec["lineage"]["imported"]["uri"] == "pvc://foreign-models/tutor"
    assert spec["lineage"]["baseModel"]["uri"] == f"hf://{models.SMOLLM2}"
    assert len(spec["lineage"]["baseModel"]["commit"]) == 40
    assert spec["artifacts"][0]["format"] == "Adapter"


def test_a_bucket_that_refuses_the_keys_is_asked_again_with_others(team) -> None:
    message = reason_becomes(team.kubectl, "mdl", FROM_BUCKET, "Imported", "SourceNotFound")["message"]
    assert "the credentials do not open it" in message
    assert "keys of that Secret" in message
    assert "not-the-key" not in message
    team.kubectl.apply(team.bucket_keys(team.store.secret_key))
    version = imported(team.kubectl, FROM_BUCKET)
    assert version["spec"]["lineage"]["imported"]["uri"] == f"s3://{BUCKET}/tutor"
    everything = team.kubectl("get", "mdl,mv,jobs,pods,configmaps,events", "--output=yaml")
    assert team.store.secret_key not in everything


def test_a_run_and_its_version_are_in_mlflow(team) -> None:
    kubectl, mlflow = team.kubectl, team.mlflow
    reason_becomes(kubectl, "ftj", TRACKED, "Finished", "Succeeded")
    body = kubectl.get("ftj", TRACKED)
    tracked = body["status"]["tracking"]
    run = mlflow.run(tracked["runId"])
    assert (run["info"]["status"], run["tags"]["hone.job_uid"]) == ("FINISHED", body["metadata"]["uid"])
    assert [step for step, _ in mlflow.history(tracked["runId"], "loss")] == [1, 2]

    version = body["status"]["modelVersionName"]
    reason_becomes(kubectl, "mv", version, "Ready", "Verified")
    assert kubectl.get("mv", version)["spec"]["lineage"]["tracking"]["runId"] == tracked["runId"]
    approve(kubectl, version)
    alias = {"alias": "champion", "version": "1"}

    def listed() -> list[Any]:
        answer = mlflow.client.call("GET", "registered-models/search", filter=f"name='{TRACKED}'")
        return [model.get("aliases") for model in answer.get("registered_models", ())]

    wait(lambda: listed() == [[alias]], lambda: f"{listed()}: {kubectl('describe', 'mdl', TRACKED)}")
    registered = mlflow.client.call("GET", "model-versions/get", name=TRACKED, version="1")["model_version"]
    artifact = kubectl.get("mv", version)["spec"]["artifacts"][0]
    assert (registered["source"], registered["run_id"]) == (artifact["uri"], tracked["runId"])
    reason_becomes(kubectl, "mdl", TRACKED, "Registered", "Registered")
    assert PASSWORD not in kubectl("get", "ftj,mdl,mv,jobs,pods,configmaps,events", "--output=yaml")


@pytest.mark.long
def test_the_version_is_measured_again_as_its_run_measured_it(team) -> None:
    kubectl = team.kubectl
    reason_becomes(kubectl, "ftj", TRACKED, "Finished", "Succeeded")
    name = kubectl.get("ftj", TRACKED)["status"]["modelVersionName"]
    entry = {"dataset": "good", "cpu": "100m", "memory": "2Gi"}
    patch = json.dumps({"spec": {"evaluations": [entry]}})
    kubectl("patch", "modelversions.hone.dev", name, "--type=merge", "--patch", patch)
    reason_becomes(kubectl, "mv", name, "Measured", "Measured")
    version = kubectl.get("mv", name)
    [measurement] = version["status"]["evaluations"]
    assert measurement["digest"] == kubectl.get("dset", "good")["status"]["digest"]
    of_the_run = {number["name"]: number for number in version["spec"]["evaluation"]["numbers"]}
    for number in measurement["numbers"]:
        assert number["dataset"] == of_the_run[number["name"]]["dataset"] == "good/validation"
        for value in ("base", "tuned"):
            assert float(number[value]) == pytest.approx(float(of_the_run[number["name"]][value]), abs=1e-3)
