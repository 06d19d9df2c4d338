"""docs/guides/air-gapped.md: what `hone mirror` has copied is all that a closed installation asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy
import pytest
import yaml
from safetensors.numpy import save_file
from support.cluster import quick_yaml
from support.cluster.chart_documents import template
from support.servers.harness_hub import ARC, SPLITS, card, write

from hone_cli.runs.mirror import needs
from hone_dev import hub
from hone_dev.cluster import binaries, imageregistry

pytestmark = pytest.mark.trainer
HARNESS = {"tasks": ["arc_easy"]}
JOB = {
    "apiVersion": "hone.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "run"},
    "spec": {
        "model": {"uri": "hf://acme/tiny"},
        "datasets": [{"name": "rows"}],
        "evaluation": {"harness": HARNESS},
        "output": {"modelName": "m"},
    },
}
CLOSED = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "localhost,127.0.0.1"}
"""Nobody listens there: an address outside this machine cannot be reached."""


def push(oras: Path, image: str, folder: Path) -> None:
    (folder / "layer").write_text(image)
    subprocess.run([oras, "push", image, "layer"], cwd=folder, check=True, capture_output=True)


def test_a_closed_installation_finds_what_was_copied(tmp_path: Path) -> None:
    oras = binaries.program("oras")
    outside = tmp_path / "outside" / "models" / "acme" / "tiny" / "main"
    outside.mkdir(parents=True)
    (outside / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (outside / "pytorch_model.bin").write_bytes(b"pickle")
    save_file({"w": numpy.arange(6.0)}, outside / "model.safetensors")
    arc = tmp_path / "outside" / "datasets" / "allenai" / "ai2_arc" / "main"
    for (config, split), rows in ARC.items():
        write(arc / config / f"{split}-00000-of-00001.parquet", rows)
    (arc / "README.md").write_text(card(**{config: {s: f"{config}/{s}-*" for s in SPLITS} for config, _ in ARC}))
    with imageregistry.serve(tmp_path / "a") as first, imageregistry.serve(tmp_path / "b") as second:
        public, own = (each.host.replace("127.0.0.1", "localhost") for each in (first, second))
        values = {"global": {"imageRegistry": public}}
        files = {"hone.yaml": template(json.dumps(values)), "job.yaml": yaml.safe_dump(JOB)}
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        mirror = ["mirror", *files, "--registry", f"{own}/mirror", "--hub", "inside"]
        command = [sys.executable, "-m", "hone_cli", *mirror]
        commands = subprocess.check_output(command, cwd=tmp_path, text=True)
        for image in needs(quick_yaml.documents(files["hone.yaml"])).images:
            push(oras, image, tmp_path)
        path = os.pathsep.join([str(oras.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
        with hub.serve(tmp_path / "outside") as url:
            environment = {**os.environ, "PATH": path, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0"}
            subprocess.run(["sh", "-e"], input=commands, cwd=tmp_path, text=True, check=True, env=environment)

        inside = {"global": {"imageRegistry": f"{own}/mirror"}}
        asked = needs(quick_yaml.documents(template(json.dumps(inside)))).images
        for image in asked:
            name, _, tag = image.removeprefix(f"{own}/mirror/").rpartition(":")
            accepted = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
            manifest = urllib.request.Request(f"http://{own}/v2/mirror/{name}/manifests/{tag}", headers=accepted)
            with urllib.request.urlopen(manifest) as answer:
                assert answer.status == 200, image
    assert len(asked) == 3
    plans = {
        "fetch": {"kind": "Fetch", "model": JOB["spec"]["model"], "store": "store", "limits": {}},
        "tasks": {"kind": "Tasks", "harness": HARNESS, "store": "store"},
    }
    with hub.serve(tmp_path / "inside") as url:
        closed = {**os.environ, **CLOSED, "HF_ENDPOINT": url, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        closed["HONE_TERMINATION_LOG"] = str(tmp_path / "log")
        for command, plan in plans.items():
            (tmp_path / "plan.json").write_text(json.dumps(plan))
            run = [sys.executable, "-m", "hone_trainer", command, "plan.json"]
            subprocess.run(run, cwd=tmp_path, env=closed, check=True)
    assert [file.name for file in tmp_path.glob("store/base-models/acme--tiny/*/*.safetensors")] == [
        "model.safetensors"
    ]
    assert not list(tmp_path.rglob("inside/**/*.bin"))
    assert len(list(tmp_path.glob("store/evaluation-tasks/*/tasks.json"))) == 1
