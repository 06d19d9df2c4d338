"""A chain on real pods: example 11 with a tiny model, and a checkpoint of it exported later."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.live import conditions, reason_becomes, wait

from hone_dev.demo import runs
from hone_dev.models import models
from hone_dev.tools import paths

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]
SMALL = {"maxSteps": 4, "batchSize": 4, "microBatchSize": 4, "learningRate": "5e-3"}


@pytest.fixture(scope="module")
def arc(hone: Any) -> Iterator[None]:
    """Questions in the hub under the name and layout of the data set of lm-eval's task arc_easy."""
    folder = models.hub_root() / "datasets" / "allenai" / "ai2_arc"
    rows = folder / "main" / "ARC-Easy"
    rows.mkdir(parents=True)
    configs = {split: f"ARC-Easy/{split}.jsonl" for split in ("train", "validation", "test")}
    files = [{"split": split, "path": path} for split, path in configs.items()]
    card = yaml.safe_dump({"configs": [{"config_name": "ARC-Easy", "data_files": files}]})
    (folder / "main" / "README.md").write_text(f"---\n{card}---\n")
    for split, path in configs.items():
        asked = [
            {
                "id": f"{split}-{n}",
                "question": f"Which number follows {n}?",
                "choices": {"text": [str(n + i) for i in range(4)], "label": list("ABCD")},
                "answerKey": "B",
            }
            for n in range(6)
        ]
        (folder / "main" / path).write_text("".join(json.dumps(row) + "\n" for row in asked))
    yield
    shutil.rmtree(folder)


def course(tiny: str) -> list[dict[str, Any]]:
    """The objects of the example, small."""
    objects = runs.manifests(paths.SOURCE / "examples" / "11-chain")
    jobs = [body for body in objects if body["kind"] == "FineTuneJob"]
    for job in jobs:
        job["spec"]["training"] = dict(SMALL)
        job["spec"]["resources"] |= {"cpu": "100m", "memory": "2Gi"}
    jobs[0]["spec"]["model"] = {"uri": tiny}
    jobs[0]["spec"]["evaluation"]["harness"] = {"tasks": ["arc_easy"], "limit": 4}
    return objects


@pytest.mark.early
def test_a_chain_keeps_its_lineage_and_its_checkpoints_can_be_exported(kubectl: Any, tiny: str, arc: None) -> None:
    document = {"apiVersion": "v1", "kind": "List", "items": course(tiny)}
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(document))
    reason_becomes(kubectl, "ftj", "course-reader", "Finished", "Succeeded")
    reason_becomes(kubectl, "ftj", "course-tutor", "Finished", "Succeeded")

    reader, tutor = (kubectl.get("mv", f"{name}-v1")["spec"] for name in ("course-reader", "course-tutor"))
    (ancestor,) = tutor["lineage"]["ancestors"]
    assert (ancestor["modelVersion"], ancestor["method"]) == ("course-reader-v1", "DAPT")
    assert ancestor["digest"] in {a["digest"] for a in reader["artifacts"]}
    assert ancestor["baseModel"] == reader["lineage"]["baseModel"]
    assert tutor["lineage"]["baseModel"]["modelVersion"] == "course-reader-v1"
    assert {d["name"] for d in tutor["lineage"]["datasets"]} == {"course-questions", "everyday"}
    kept = [n for n in tutor["evaluation"]["numbers"] if n["purpose"] == "Retention"]
    assert [(n["name"], n["dataset"]) for n in kept] == [("perplexity", "everyday/validation")]
    assert (
        float(kept[0]["changeLow"]) <= float(kept[0]["tuned"]) - float(kept[0]["base"]) <= float(kept[0]["changeHigh"])
    )

    assert conditions(kubectl.get("ftj", "course-reader"))["TasksReady"]["status"] == "True"
    (staged,) = kubectl.get("ftj", "course-reader")["status"]["resolved"]["evaluationTasks"]["dataSets"]
    assert staged.startswith("allenai/ai2_arc@")
    tasks = {n["name"]: n for n in reader["evaluation"]["numbers"] if n["purpose"] == "Harness"}
    assert set(tasks) == {"acc", "acc_norm"}
    assert all((n["dataset"], n["rows"]) == ("arc_easy", 4) and "base" in n for n in tasks.values())

    check_export(kubectl, kubectl.get("ftj", "course-tutor"), tutor)


def check_export(kubectl: Any, job: dict[str, Any], version: dict[str, Any]) -> None:
    """The Job of the guide, for a checkpoint of this run: its adapter is the run's."""
    page = Path(paths.SOURCE, "docs", "guides", "checkpoints.md").read_text()
    body = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    (container,) = body["spec"]["template"]["spec"]["containers"]
    container["image"] = job["status"]["resolved"]["image"]
    folder = f"/store/runs/{job['metadata']['uid']}/checkpoints/step-{version['lineage']['steps']:06d}"
    container["command"][4:6] = [folder, "--output=/store/exports/again"]
    container["resources"] = {"requests": {"cpu": "100m", "memory": "1Gi"}}
    kubectl.apply(body)
    name = body["metadata"]["name"]
    wait(lambda: conditions(kubectl.get("job", name)), lambda: kubectl.get("job", name))
    log = kubectl("logs", f"job/{name}")
    made = {a["format"]: a for a in map(json.loads, (line for line in log.splitlines() if line.startswith("{")))}
    theirs = {a["format"]: a for a in version["artifacts"]}
    assert set(made) == set(theirs) == {"Adapter", "Merged"}, log
