"""Rows of mixed quality, curated: example 09 beats the same run on the rows as they are."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from hone_dev.demo import runs
from hone_dev.tools import paths

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]

HANG = 40 * 60.0  # seconds; a guard against hanging on a busy machine, not an expectation


def with_the_raw_rows() -> list[dict[str, Any]]:
    """The example, and next to it the same Dataset without a curation with a run of its own."""
    objects = runs.manifests(paths.SOURCE / "examples" / "09-curated-data")
    (curated,) = (o for o in objects if o["metadata"]["name"] == "help-desk" and o["kind"] == "Dataset")
    runs.job_of(objects)["spec"]["resources"]["cpu"] = "500m"  # both at the same time on two cores
    dataset, job = copy.deepcopy(curated), copy.deepcopy(runs.job_of(objects))
    dataset["metadata"]["name"] = job["metadata"]["name"] = "help-desk-raw"
    del dataset["spec"]["curation"]
    job["spec"]["datasets"] = [{"name": "help-desk-raw"}]
    job["spec"]["output"]["modelName"] = "help-desk-raw"
    return [*objects, dataset, job]


def version_of(kubectl: Any, name: str) -> dict[str, Any]:
    """The ModelVersion of a job, once all its files were verified."""
    deadline = time.monotonic() + HANG
    while not runs.is_finished(job := kubectl.get("ftj", name)):
        assert time.monotonic() < deadline, f"{name} hangs: {job.get('status')}"
        time.sleep(2)
    assert job["status"].get("modelVersionName"), job["status"]
    kubectl("wait", "--for=condition=Ready", f"mv/{job['status']['modelVersionName']}", f"--timeout={HANG:.0f}s")
    return kubectl.get("mv", job["status"]["modelVersionName"])


def exam(version: dict[str, Any]) -> dict[str, Any]:
    """The loss on the rows that nobody trained on."""
    (number,) = (n for n in version["spec"]["evaluation"]["numbers"] if n["name"] == "loss")
    assert number["dataset"] == "help-desk-exam/validation"
    return number


@pytest.mark.long
def test_the_curated_rows_teach_more_than_the_raw_ones_at_equal_steps(kubectl) -> None:
    kubectl.apply(*with_the_raw_rows())
    curated, raw = version_of(kubectl, "help-desk"), version_of(kubectl, "help-desk-raw")
    steps = {step["step"] for step in kubectl.get("dset", "help-desk")["status"]["curation"] if step["removed"]}
    assert steps == {"Length", "Languages", "Quality", "ExactDuplicates", "NearDuplicates", "Contamination"}
    assert (
        kubectl.get("dset", "help-desk-raw")["status"]["rows"] > 2 * kubectl.get("dset", "help-desk")["status"]["rows"]
    )
    assert curated["spec"]["lineage"]["steps"] == raw["spec"]["lineage"]["steps"]
    digests = [{d["digest"] for d in v["spec"]["lineage"]["datasets"]} for v in (curated, raw)]
    assert digests[0] != digests[1]
    assert exam(curated)["base"] == exam(raw)["base"]
    assert exam(curated)["rows"] == exam(raw)["rows"] == 24
    assert float(exam(curated)["tuned"]) < float(exam(raw)["tuned"]) < float(exam(raw)["base"])
