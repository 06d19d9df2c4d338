"""What people see with kubectl: columns, field selectors, explanations."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hone_api.words.failures import FAILURES
from hone_api.words.states import CONDITIONS_OF
from hone_dev.generate.troubleshooting import page
from hone_dev.tools.tools import kubectl

pytestmark = pytest.mark.apiserver

GUARD_SECONDS = 600.0
KINDS = ("FineTuneJob", "Dataset", "ModelVersion", "Model")
NOW = "2026-01-01T00:00:00Z"
READY: dict[str, Any] = {
    "type": "Ready",
    "status": "True",
    "reason": "Verified",
    "message": "",
    "lastTransitionTime": NOW,
}
READY |= {"observedGeneration": 1}
OTHERS = [str(t) for t in CONDITIONS_OF["FineTuneJob"] if t != "Ready"]
LONGEST_DESCRIPTION, LONGEST_RECORD = 180, 260
"""Lines of `kubectl describe` without events: of a job that trains, with every condition, progress and curves; and of
one that has ended after an attempt, with where its time and memory went. A field more for everybody costs one here."""
PHASES = (
    "queued",
    "scheduled",
    "image",
    "loading",
    "encoding",
    "evaluatingBase",
    "firstStep",
    "training",
    "evaluating",
)
RECORD = {
    "attempts": [
        {
            "number": 1,
            "jobName": "seen-1",
            "startTime": NOW,
            "endTime": NOW,
            "outcome": "Succeeded",
            "startStep": 0,
            "endStep": 1000,
            "lostSteps": 0,
            "phaseSeconds": {name: 9 for name in (*PHASES, "saving", "exporting", "other")},
            "heldSecondsBeforeFirstStep": 9,
        }
    ],
    "goodput": {
        "ratio": "0.7",
        "scheduling": "0.9",
        "runtime": "0.8",
        "seconds": 9,
        "productiveSeconds": 7,
        "badputSeconds": {
            "queue": 1,
            "image": 1,
            "loading": 1,
            "firstStep": 1,
            "evaluation": 1,
            "saving": 1,
            "other": 1,
        },
    },
    "memory": {"estimated": 9, "peak": 8, "terms": [{"name": f"term-{n}", "bytes": n} for n in range(8)]},
    "resolved": {
        "modelCommit": "0" * 40,
        "modelUri": "pvc://hone-store/base-models/owner--model/0",
        "datasetDigests": {"rows": f"sha256:{'0' * 64}"},
        "evaluationDatasets": ["rows/validation"],
        "learningRate": "0.0002",
        "microBatchSize": 8,
        "gradientAccumulationSteps": 1,
        "worldSize": 1,
        "maxLength": 512,
        "adapterRank": 16,
        "adapterAlpha": 32,
        "image": "trainer:1",
    },
}
LONG_CURVE = " ".join(f"{step}:0.98765" for step in range(100_000, 100_064))
STATUS: dict[str, Any] = {
    "FineTuneJob": {
        "phase": "Restarting",
        "reason": "BackOff",
        "conditions": [{**READY, "status": "False", "reason": "BackOff"}, *({**READY, "type": t} for t in OTHERS)],
        "metrics": [{"name": name, "curve": LONG_CURVE} for name in ("loss", "eval_loss", "learning_rate")],
        "startTime": NOW,
        "completionTime": NOW,
        "progress": {
            "step": 412,
            "totalSteps": 1000,
            "summary": "412/1000 41%",
            "loss": "1.204",
            "eta": "8m",
            "checkpointBytes": 9,
        },
        "modelVersionName": "tutor-v1",
    },
    "Dataset": {
        "phase": "Ready",
        "formatDetected": "PromptCompletion",
        "rows": 90,
        "rejected": 2,
        "digest": f"sha256:{'0' * 64}",
        "sizeBytes": 4096,
        "conditions": [{**READY, "reason": "Materialized"}],
    },
    "ModelVersion": {
        "base": "owner/model",
        "evalLoss": "0.981",
        "baseEvalLoss": "2.5",
        "sizeBytes": 7,
        "aliases": "champion",
        "conditions": [
            READY,
            *({**READY, "type": t, "status": "False"} for t in ("Servable", "Delivered")),
            {**READY, "type": "Signed"},
        ],
    },
    "Model": {
        "versions": 3,
        "latest": 4,
        "summary": "production=v3",
        "conditions": [{**READY, "reason": "Resolved"}],
    },
}

Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def run(api: Any, manifest: Any) -> Iterator[Kubectl]:
    """kubectl against an API server with one object of each kind, its status written as the operator does."""
    for kind in KINDS:
        assert api.create(manifest(kind, name="seen"), dry_run=False).code == 201
        assert api.merge(kind, "seen", {"status": STATUS[kind]}, "status", dry_run=False).code == 200
    assert api.create(manifest("FineTuneJob", name="waiting"), dry_run=False).code == 201

    def call(*argv: str) -> str:
        env = {**os.environ, "KUBECONFIG": str(api.kubeconfig)}
        done = subprocess.run([str(kubectl()), *argv], env=env, capture_output=True, text=True, timeout=GUARD_SECONDS)
        return done.stdout if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr}"

    yield call
    for kind in KINDS:
        api.call("DELETE", api.path(kind, "seen"))
    api.call("DELETE", api.path("FineTuneJob", "waiting"))


def table(text: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows; columns are cut where the head's words begin."""
    head, *rows = text.rstrip("\n").split("\n")
    words = head.split()
    starts = [match.start() for match in re.finditer(r"\S+", head)]  # one word may begin with another: BASE, BASE-LOSS
    ends: list[int | None] = [*starts[1:], None]
    return words, [[row[a:b].strip() for a, b in zip(starts, ends, strict=True)] for row in rows]


@pytest.mark.parametrize(
    ("short", "columns", "row"),
    [
        (
            "ftj",
            ["NAME", "PHASE", "REASON", "PROGRESS", "LOSS", "ETA", "MODEL"],
            ["seen", "Restarting", "BackOff", "412/1000 41%", "1.204", "8m", "tutor-v1"],
        ),
        (
            "dset",
            ["NAME", "FORMAT", "ROWS", "REJECTED", "READY", "REASON"],
            ["seen", "PromptCompletion", "90", "2", "True", "Materialized"],
        ),
        (
            "mv",
            [
                "NAME",
                "MODEL",
                "VERSION",
                "ALIAS",
                "APPROVAL",
                "READY",
                "SERVABLE",
                "DELIVERED",
                "BASE-LOSS",
                "EVAL-LOSS",
            ],
            ["seen", "tutor", "1", "champion", "Candidate", "True", "False", "False", "2.5", "0.981"],
        ),
        (
            "mdl",
            ["NAME", "VERSIONS", "LATEST", "ALIASES", "READY"],
            ["seen", "3", "4", "production=v3", "True"],
        ),
    ],
)
def test_columns(run: Kubectl, short: str, columns: list[str], row: list[str]) -> None:
    head, rows = table(run("get", short, "seen"))
    assert head == [*columns, "AGE"]
    assert rows[0][:-1] == row
    assert rows[0][-1], "the age"


def test_a_job_without_status_also_has_a_row(run: Kubectl) -> None:
    head, rows = table(run("get", "ftj", "waiting"))
    assert head[1] == "PHASE"
    assert rows[0][:7] == ["waiting", "", "", "", "", "", ""]


@pytest.mark.parametrize(
    ("short", "more"),
    [
        (
            "ftj",
            {
                "METHOD": "SFT",
                "BASE": "hf://owner/model",
                "NODES": "1",
                "GPUS": "0",
                "BYTES": "9",
            },
        ),
        ("dset", {"SOURCE": "pvc://data/rows.jsonl", "DIGEST": f"sha256:{'0' * 64}", "BYTES": "4096"}),
        ("mv", {"BASE": "owner/model", "SIGNED": "True", "REASON": "Verified", "BYTES": "7"}),
    ],
)
def test_wide_columns(run: Kubectl, short: str, more: dict[str, str]) -> None:
    head, rows = table(run("get", short, "seen", "-o", "wide"))
    shown = dict(zip(head, rows[0], strict=True))
    assert more.items() <= shown.items()


def test_a_description_is_short_and_begins_with_what_matters(run: Kubectl) -> None:
    """Of a long run, with all curves full and every condition there; events come after it."""
    lines = run("describe", "ftj", "seen").splitlines()
    status = lines[lines.index("Status:") :]
    assert next(line for line in status if "Type:" in line).split() == ["Type:", "Ready"]
    curves = status[next(n for n, line in enumerate(status) if "Metrics:" in line) :]
    assert len(curves) < 30, "an entry is a name and a line"
    assert any("Name:" in line and "learning_rate" in line for line in curves)
    assert len(lines) <= LONGEST_DESCRIPTION


def test_the_description_of_a_job_that_has_ended_is_also_bounded(api: Any, run: Kubectl) -> None:
    assert api.merge("FineTuneJob", "seen", {"status": RECORD}, "status", dry_run=False).code == 200
    lines = run("describe", "ftj", "seen").splitlines()
    assert api.merge("FineTuneJob", "seen", {"status": dict.fromkeys(RECORD)}, "status", dry_run=False).code == 200
    assert any("Productive Seconds:" in line for line in lines)
    assert any("Gradient Accumulation Steps:" in line for line in lines)
    assert len(lines) <= LONGEST_RECORD


def test_all_kinds_by_short_name_and_by_category(run: Kubectl) -> None:
    for names in (run("get", "ftj,dset,mv,mdl", "-o", "name"), run("get", "hone", "-o", "name")):
        assert set(names.split()) == {
            "finetunejob.hone.dev/seen",
            "finetunejob.hone.dev/waiting",
            "dataset.hone.dev/seen",
            "modelversion.hone.dev/seen",
            "model.hone.dev/seen",
        }


@pytest.mark.parametrize(
    ("short", "selector", "names"),
    [
        ("ftj", "status.phase=Restarting", ["seen"]),
        ("ftj", "status.phase!=Restarting", ["waiting"]),
        ("ftj", "status.phase=Failed", []),
        ("ftj", "spec.method=SFT", ["seen", "waiting"]),
        ("ftj", "spec.output.modelName=tutor,status.phase=Restarting", ["seen"]),
        ("ftj", "spec.output.modelName=other", []),
        ("dset", "status.phase=Ready", ["seen"]),
        ("dset", "spec.format=Alpaca", []),
        ("mv", "spec.modelName=tutor", ["seen"]),
        ("mv", "spec.approval.state=Candidate", ["seen"]),
        ("mv", "spec.approval.state=Approved", []),
    ],
)
def test_field_selectors(run: Kubectl, short: str, selector: str, names: list[str]) -> None:
    out = run("get", short, "--field-selector", selector, "-o", "jsonpath={.items[*].metadata.name}")
    assert out.split() == names


def test_a_field_that_cannot_be_selected_is_named(run: Kubectl) -> None:
    assert "field label not supported: spec.suspend" in run("get", "ftj", "--field-selector", "spec.suspend=true")


@pytest.mark.parametrize(
    ("field", "told"),
    [
        (
            "ftj.spec.training.learningRate",
            "Peak learning rate, e.g. '2e-4'; default: the method's, e.g. of SFT 2e-4 for adapters",
        ),
        ("ftj.spec.training.epochs", "Passes over the rows, e.g. 3 or '0.5'; default 1."),
        ("ftj.spec.adapter.type", "ENUM: None LoRA QLoRA DoRA"),
        ("ftj.status.failure.hint", "What to do."),
        ("dset.spec.source.uri", "configmap://name/key"),
        ("mv.spec.lineage.baseModel.commit", "Commit of the hub"),
        # what tests/api/test_immutable.py finds to be mutable
        ("ftj.spec", "Immutable except for suspend, scheduling.priorityClassName and cleanup."),
        ("mv.spec", "immutable except for approval, deliveries, evaluations and deletionPolicy."),
    ],
)
def test_explain(run: Kubectl, field: str, told: str) -> None:
    end = time.monotonic() + GUARD_SECONDS  # the OpenAPI document follows the definition a little later
    while told not in (out := " ".join(run("explain", field).split())) and time.monotonic() < end:
        time.sleep(0.5)
    assert told in out


COMMANDS = sorted(
    {c for f in FAILURES.values() for c in f.command.split("; ") if c.startswith(("kubectl get", "kubectl desc"))}
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_troubleshooting_guide_work(run: Kubectl, command: str) -> None:
    said = run(*command.replace("NAME ", "seen ").replace("node NODE", "nodes").removesuffix(" NAME").split()[1:])
    assert "exit code" not in said


def test_every_cause_in_a_configuration_has_a_command() -> None:
    causes = ("InvalidValue", "UnknownField", "ConflictingFields", "CircularReference", "UnusableModelVersion")
    causes += ("HardwareUnsuitable", "ModelUnsuitable", "HeldOutRowsMissing")
    causes += ("PlatformUnsuitable", "FileNotFound", "InvalidArgument", "InvalidConfiguration", "NotSupportedYet")
    assert [code for code in causes if not FAILURES[code].command] == []


def test_wait_for_a_condition(run: Kubectl) -> None:
    assert "condition met" in run("wait", "--for=condition=Ready", "mv/seen", "--timeout=20s")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec.training.learningrate": "1e-4"}, 'unknown field "spec.training.learningrate"'),
        ({"spec.training.learningRate": 2e-4}, 'must be of type integer,string: "number"'),
        ({"spec.training.epochs": 0.5}, 'must be of type integer,string: "number"'),
        ({"spec.resources": {"cpu": 1.5}}, 'must be of type integer,string: "number"'),
        ({"spec.training.learningRate": 2e-4}, "some validation rules were not checked"),
        ({"spec.output.version": 3}, "is not supported yet"),
    ],
)
def test_the_guide_has_the_words_of_the_api_server(api: Any, manifest: Any, changes: Any, words: str) -> None:
    assert f"| `{words}` |" in page()
    assert words in api.create(manifest("FineTuneJob", changes)).message


def test_the_guide_has_the_words_for_a_field_that_cannot_change(api: Any, run: Kubectl) -> None:
    assert "| `is immutable` |" in page()
    assert "is immutable" in api.merge("FineTuneJob", "seen", {"spec": {"method": "DPO"}}).message


def test_strict_validation_is_what_kubectl_asks_for(run: Kubectl, tmp_path: Any) -> None:
    """As people meet it: an unknown field is an error, not a warning."""
    file = tmp_path / "job.yaml"
    file.write_text(
        """\
apiVersion: hone.dev/v1alpha1
kind: FineTuneJob
metadata: {name: typo}
spec:
  model: {uri: hf://owner/model}
  datasets: [{name: rows}]
  output: {modelName: tutor}
  training: {learningrate: '1e-4'}
"""
    )
    out = run("apply", "-f", str(file))
    assert 'unknown field "spec.training.learningrate"' in out
    assert "NotFound" in run("get", "ftj", "typo")


def test_a_job_whose_rows_are_encoded_is_shown_as_the_guide_says(api: Any, manifest: Any, run: Kubectl) -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/troubleshooting.md").read_text()
    head, row = guide.partition("$ kubectl get ftj support-bot\n")[2].splitlines()[:2]
    progress = {"step": 0, "percent": 46, "summary": "rows 40000/86700 46%", "eta": "8m", "stage": "Encoding"}
    status = {"phase": "Preparing", "reason": "Encoding", "progress": progress}
    assert api.create(manifest("FineTuneJob", name="support-bot"), dry_run=False).code == 201
    try:
        assert api.merge("FineTuneJob", "support-bot", {"status": status}, "status", dry_run=False).code == 200
        shown = run("get", "ftj", "support-bot").splitlines()
    finally:
        api.call("DELETE", api.path("FineTuneJob", "support-bot"))
    assert shown[0] == head
    assert shown[1].rpartition(" ")[0] == row.rpartition(" ")[0], "all but the age"
