"""Every alert fires when it should and is silent when it should be, by promtool's own rule tests."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hone_dev.tools import paths, tools

pytestmark = pytest.mark.pure
RULES = paths.SOURCE / "charts" / "hone" / "files" / "rules" / "hone.yaml"
RUNBOOKS = paths.SOURCE / "docs" / "guides" / "runbooks"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
JOB = 'namespace="ml",finetunejob="a"'


@dataclass(frozen=True)
class Case:
    """Series, and the labels of the alert that fires at `minute`; None: it must be silent."""

    alert: str
    minute: int
    series: dict[str, str]
    labels: dict[str, str] | None = None


def phase(name: str) -> str:
    return f'hone_job_phase{{{JOB},phase="{name}"}}'


def series(metric: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{pairs}}}"


def is_not(alert: str, metric: str, labels: dict[str, str]) -> tuple[Case, Case]:
    """Of a metric that is 0 for half an hour, and of one that becomes 1 in time."""
    name = series(metric, labels)
    return Case(alert, 31, {name: "0x40"}, labels), Case(alert, 31, {name: "0x20 1x20"})


def is_carried(alert: str, metric: str, labels: dict[str, str], moving: str, there: str) -> Iterator[Case]:
    """Of files on their way: given up, and taking longer than six hours, waiting included."""

    def state(name: str) -> str:
        return series(metric, {**labels, "state": name})

    failed, slow = f"{alert}Failed", f"{alert}TakesTooLong"
    yield Case(failed, 10, {state("Failed"): "0x2 1x20"}, {**labels, "state": "Failed"})
    # Somebody has changed the entry.
    yield Case(failed, 10, {state("Failed"): "1x4 0x20", state(moving): "0x4 1x20"})
    yield Case(slow, 361, {state("Pending"): "1x99 0x300", state(moving): "0x99 1x300"}, labels)
    yield Case(slow, 361, {state(moving): "1x300 0x99", state(there): "0x300 1x99"})


VERSION, MODEL = {"namespace": "ml", "modelversion": "m-v1"}, {"namespace": "ml", "model": "m"}
NAME = {"namespace": "ml", "name": "m"}
TO_S3, FROM_HUB = {**VERSION, "scheme": "s3"}, {**MODEL, "scheme": "hf"}
QUEUE = {f'hone_job_info{{namespace="ml",finetunejob="{name}",queue="gpus"}}': "1x80" for name in ("a", "b")}
REF = {"namespace": "ml", "finetunejob": "a"}
REF_RUNNING = {**REF, "phase": "Running"}
STARTED, REPORTED = (f"hone_job_{event}_timestamp_seconds{{{JOB}}}" for event in ("start", "last_progress"))
MODELS, RUNS = (f'hone_store_bytes{{namespace="ml",content="{content}"}}' for content in ("models", "runs"))
SIZE = (
    "kube_persistentvolumeclaim_resource_requests_storage_bytes"
    '{namespace="ml",persistentvolumeclaim="hone-store",job="kube-state-metrics"}'
)
CREATED = {f"hone_job_created_timestamp_seconds{{{JOB}}}": "0x420"}
CASES = [
    Case(
        "FineTuneJobFailed",
        30,
        {phase("Failed"): "1x200", f"hone_job_completion_timestamp_seconds{{{JOB}}}": "0x200"},
        {**REF, "phase": "Failed"},
    ),
    # An old failure is history, not news.
    Case(
        "FineTuneJobFailed",
        61,
        {phase("Failed"): "1x200", f"hone_job_completion_timestamp_seconds{{{JOB}}}": "0x200"},
    ),
    *(
        Case("FineTuneJobStalled", 25, {phase("Running"): "1x40", STARTED: "0x40", **reported}, REF_RUNNING)
        # The second has never reported: it hangs while it loads, or a network policy keeps every report out.
        for reported in ({REPORTED: "60x40"}, {})
    ),
    Case("FineTuneJobStalled", 25, {phase("Running"): "1x40", STARTED: "0x40", REPORTED: "0+60x40"}),
    # Suspended on purpose: no progress is expected.
    Case("FineTuneJobStalled", 25, {phase("Running"): "0x40", STARTED: "0x40", REPORTED: "60x40"}),
    # Its pods waited for nodes, and now they load; or it has just begun.
    Case("FineTuneJobStalled", 40, {phase("Running"): "0x30 1x20", STARTED: "0x50"}),
    Case("FineTuneJobStalled", 25, {phase("Running"): "_x19 1x20", STARTED: "_x19 1200x20"}),
    Case(
        "FineTuneJobLossNaN", 5, {phase("Running"): "1x10", f"hone_job_loss{{{JOB}}}": "1.5 1.4 NaN NaN NaN NaN"}, REF
    ),
    Case("FineTuneJobLossNaN", 5, {phase("Running"): "1x10", f"hone_job_loss{{{JOB}}}": "1.5-0.1x10"}),
    Case(
        "FineTuneJobPendingTooLong",
        80,
        {phase("Preparing"): "1x100", f"hone_job_created_timestamp_seconds{{{JOB}}}": "0x100"},
        REF,
    ),
    Case(
        "FineTuneJobPendingTooLong",
        80,
        {
            phase("Preparing"): "1x70 0x30",
            phase("Running"): "0x70 1x30",
            f"hone_job_created_timestamp_seconds{{{JOB}}}": "0x100",
        },
    ),
    Case(
        "FineTuneJobQueuedTooLong",
        400,
        {phase("Queued"): "1x100 0x320", phase("Requeued"): "0x100 1x320", **CREATED},
        REF,
    ),
    # It is admitted again and again, for five minutes each time.
    Case("FineTuneJobQueuedTooLong", 400, {phase("Requeued"): "1x100 0x5 1x150 0x5 1x160", **CREATED}, REF),
    Case("FineTuneJobQueuedTooLong", 400, {phase("Queued"): "1x100 0x90 1x300", **CREATED}),
    # A young job, and one that has ended since.
    Case(
        "FineTuneJobQueuedTooLong",
        400,
        {phase("Queued"): "_x99 1x310", f"hone_job_created_timestamp_seconds{{{JOB}}}": "_x99 6000x310"},
    ),
    Case("FineTuneJobQueuedTooLong", 400, {phase("Queued"): "1x390 0x30", phase("Failed"): "0x390 1x30", **CREATED}),
    Case("FineTuneQueueBlocked", 70, {**QUEUE, phase("Queued"): "1x80"}, {"namespace": "ml", "queue": "gpus"}),
    # Another job of the queue runs.
    Case(
        "FineTuneQueueBlocked", 70, {**QUEUE, phase("Queued"): "1x80", phase("Running").replace('"a"', '"b"'): "1x80"}
    ),
    Case("FineTuneQueueBlocked", 70, {**QUEUE, phase("Queued"): "1x50 0x30"}),
    # It waits for tenants.maxActiveJobs: Kueue has not seen it, or is not enabled.
    Case(
        "FineTuneQueueBlocked", 70, {**QUEUE, phase("Queued"): "1x80", f"hone_job_line_position{{{JOB}}}": "3x40 2x40"}
    ),
    Case(
        "FineTuneJobQuotaExceeded",
        31,
        {f'hone_job_reason{{{JOB},reason="QuotaExceeded"}}': "1x40"},
        {**REF, "reason": "QuotaExceeded"},
    ),
    Case("FineTuneJobQuotaExceeded", 31, {f'hone_job_reason{{{JOB},reason="Unschedulable"}}': "1x40"}),
    Case("FineTuneJobRestartsOften", 60, {f"hone_job_restarts_total{{{JOB}}}": "0x20 1x10 2x10 3x10 4x20"}, REF),
    Case("FineTuneJobRestartsOften", 60, {f"hone_job_restarts_total{{{JOB}}}": "0x30 1x40"}),
    *is_not("DatasetNotReady", "hone_dataset_ready", {"namespace": "ml", "dataset": "rows"}),
    *is_not("ModelVersionNotReady", "hone_modelversion_ready", VERSION),
    *is_not("ModelVersionNotSigned", "hone_modelversion_signed", VERSION),
    *is_not("ModelNotRegistered", "hone_model_registered", MODEL),
    *is_not("ModelAliasesNotResolved", "hone_model_ready", MODEL),
    Case("ModelNotServed", 11, {'hone_serve_problem{namespace="ml",pod="a",name="m"}': "1x20"}, NAME),
    Case("ModelNotServed", 11, {'hone_serve_problem{namespace="ml",pod="a",name="m"}': "1x5 0x20"}),
    *is_carried("ModelDelivery", "hone_modelversion_deliveries", TO_S3, "Delivering", "Delivered"),
    *is_carried("ModelImport", "hone_model_imports", FROM_HUB, "Importing", "Imported"),
    Case("HoneStoreFillingUp", 20, {MODELS: "30x40", RUNS: "60x40", SIZE: "100x40"}, {"namespace": "ml"}),
    Case("HoneStoreFillingUp", 20, {MODELS: "30x40", RUNS: "50x40", SIZE: "100x40"}),
    # The claim of something else, and the store of another namespace.
    Case("HoneStoreFillingUp", 20, {MODELS: "30x40", RUNS: "60x40", SIZE.replace("hone-store", "data"): "1x40"}),
    Case("HoneStoreFillingUp", 20, {MODELS: "30x40", RUNS: "60x40", SIZE.replace('"ml"', '"other"'): "1x40"}),
    Case("HoneOperatorDown", 20, {'hone_operator_build_info{version="1"}': "1x5 _x30"}, {}),
    Case("HoneOperatorDown", 20, {'hone_operator_build_info{version="1"}': "1x40"}),
    Case(
        "HoneObjectsUnreadable",
        30,
        {'hone_operator_unreadable_objects_total{kind="FineTuneJob",reason="TooDeep"}': "0x20 1x20"},
        {"kind": "FineTuneJob"},
    ),
    Case(
        "HoneObjectsUnreadable",
        30,
        {'hone_operator_unreadable_objects_total{kind="FineTuneJob",reason="TooDeep"}': "7x40"},
    ),
    Case(
        "HoneOperatorInternalErrors",
        30,
        {
            'hone_operator_internal_errors_total{kind="Dataset"}': "0x20 1+1x20",
            'hone_operator_status_refused_total{kind="Dataset"}': "0x40",
        },
        {"kind": "Dataset"},
    ),
    Case(
        "HoneOperatorInternalErrors",
        30,
        {
            'hone_operator_internal_errors_total{kind="Dataset"}': "5x40",
            'hone_operator_status_refused_total{kind="Dataset"}': "2x40",
        },
    ),
    Case(
        "HoneOperatorErrors",
        40,
        {
            'hone_operator_reconcile_errors_total{kind="Dataset"}': "0+2x60",
            'hone_operator_reconcile_duration_seconds_count{kind="Dataset"}': "0+10x60",
        },
        {"kind": "Dataset"},
    ),
    Case(
        "HoneOperatorErrors",
        40,
        {
            'hone_operator_reconcile_errors_total{kind="Dataset"}': "0+1x60",
            'hone_operator_reconcile_duration_seconds_count{kind="Dataset"}': "0+20x60",
        },
    ),
]


def expected(case: Case) -> list[dict[str, object]]:
    if case.labels is None:
        return []
    rule = ALERTS[case.alert]

    def fill(text: str) -> str:
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda m: case.labels[m[1]], text)

    annotations = {key: fill(value) for key, value in rule["annotations"].items()}
    return [{"exp_labels": {**rule["labels"], **case.labels}, "exp_annotations": annotations}]


def unit_test(case: Case) -> dict[str, object]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{case.minute}m", "alertname": case.alert, "exp_alerts": expected(case)},
        ],
    }


def promtool(*arguments: object) -> None:
    result = subprocess.run([tools.promtool(), *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_by_promtool(tmp_path: Path):
    tests = [unit_test(case) for case in CASES]
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(document))
    promtool("test", "rules", file)


def test_rules_are_well_formed():
    promtool("check", "rules", RULES)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_has_both_cases_and_a_runbook(alert):
    fires = {case.labels is not None for case in CASES if case.alert == alert}
    assert fires == {True, False}
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"]["runbook_url"].rpartition("/")[2] == alert
    page = (RUNBOOKS / f"{alert}.md").read_text()
    for heading in (f"# {alert}", "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"):
        assert heading in page


def test_no_runbook_without_its_alert():
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"index"} == set(ALERTS)
