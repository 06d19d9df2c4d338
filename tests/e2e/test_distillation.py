"""Distillation on real pods: from a teacher behind an API, and from a ModelVersion by its distribution."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.cluster import serving
from support.cluster.live import HANG, ROWS, condition, config_map, dataset, job, lines, reason_becomes
from support.servers import teaching

from hone_api.kinds.plan_record import values_of
from hone_dev.models import modelserver

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]
REFUSED = "What is 7 and one?"


def teacher(image: str) -> list[dict[str, Any]]:
    """A teacher with a key, which refuses one of the prompts."""
    programs = {"teaching.py": Path(teaching.__file__), "hone_dev/models/modelserver.py": Path(modelserver.__file__)}
    command = ["python", "/program/teaching.py", REFUSED]
    return serving.server("teacher", image, command, programs, {}, cpu="50m", memory="128Mi")


def distillation(name: str, model: str, **options: Any) -> dict[str, Any]:
    """A FineTuneJob of two steps; keyword arguments are fields of spec.distillation."""
    return job(name, {"uri": model}, method="Distillation", distillation=options)


@pytest.mark.long
def test_a_student_learns_from_an_api_and_is_the_teacher_of_the_next(kubectl: Any, images: Any, tiny: str) -> None:
    """Both begin with the same weights and make two steps: they are near each other, and far from the rows."""
    kubectl.apply(
        *teacher(images["trainer"]),
        config_map("files", {"good.jsonl": lines(ROWS)}),
        dataset("good", "good.jsonl"),
    )
    kubectl("wait", "--for=condition=Ready", "pod/teacher", f"--timeout={HANG:.0f}s")
    endpoint = {"endpoint": "http://teacher:8000/v1", "secretName": "hone-teacher"}
    kubectl.apply(distillation("pupil", tiny, teacherEndpoint=endpoint))
    reason_becomes(kubectl, "ftj", "pupil", "Finished", "Succeeded")
    check_answers(kubectl)
    serving.check_nothing_reveals_the_key(kubectl, "training")

    staged = kubectl.get("ftj", "pupil")["status"]["resolved"]["modelUri"]
    kubectl.apply(distillation("heir", staged, teacherModelVersion="pupil-v1", level="Logits"))
    reason_becomes(kubectl, "ftj", "heir", "Finished", "Succeeded")
    status = kubectl.get("ftj", "heir")["status"]
    assert [model["name"] for model in status["resolved"]["modelVersions"]] == ["pupil-v1"]
    assert float(status["progress"]["loss"]) < 1 < float(status["progress"]["evalLoss"])
    lineage = kubectl.get("mv", "heir-v1")["spec"]["lineage"]
    assert values_of(lineage)["distillation"]["teacherModelVersion"] == "pupil-v1"


def check_answers(kubectl: Any) -> None:
    """The rows are the teacher's own, except for the one that it refuses, which is named."""
    (claim,) = kubectl.get("pvc")["items"]
    store = Path(kubectl.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    folder = store / "runs" / kubectl.get("ftj", "pupil")["metadata"]["uid"] / "teacher"
    answered = [json.loads(line) for file in folder.glob("[01].jsonl") for line in file.read_text().splitlines()]
    asked = {row["prompt"] for row in ROWS} - {REFUSED}
    assert {(row["prompt"], row["completion"]) for row in answered} == {(q, f"You ask: {q}") for q in asked}
    told = condition(kubectl, "ftj", "pupil", "Advised")["message"]
    words = "teacher answers 400"  # its own words are not shown: it is a Service that the platform's list does not name
    assert re.search(rf"good/\w+: 1 of \d+ prompts are left out, .* refuses row \d+ \({words}\)", told), told
