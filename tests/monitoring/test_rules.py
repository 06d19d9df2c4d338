"""Every alert fires when it should and is silent when it should be, by promtool's own rule tests."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest
import yaml

from hone_api.words.failures import FixedBy
from hone_cli.runs import usage
from hone_dev.tools import paths, tools

pytestmark = pytest.mark.pure
RULES = paths.SOURCE / "charts" / "hone" / "files" / "rules" / "hone.yaml"
RUNBOOKS = paths.SOURCE / "docs" / "guides" / "runbooks"
ALL = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
JOB = 'namespace="ml",finetunejob="a"'


@dataclass(frozen=True)
class Case:
    """Series, and the labels of the alert that fires at `minute`; None: it must be silent."""

    alert: str
    minute: int
    series: dict[str, str]
    labels: dict[str, str] | None = None
    value: str = ""
    """What the annotations say of `$value`."""


def phase(name: str) -> str:
    return f'hone_job_phase{{{JOB},phase="{name}"}}'


def why(reason: str, cause: str) -> str:
    return f'hone_job_reason{{{JOB},reason="{reason}",cause="{cause}"}}'


def not_verified(reason: str, cause: str) -> str:
    return series("hone_modelversion_reason", {**VERSION, "reason": reason, "cause": cause})


def unserved(cause: str) -> str:
    return series("hone_serve_problem", {"namespace": "ml", "pod": "a", "name": "m", "cause": cause})


def restarted(*parts: tuple[str, str, str], at: int) -> dict[str, str]:
    """Series of an operator whose new pod is seen from a minute on: what both say, as two instances."""
    return {
        name.replace("{", f'{{instance="{instance}",', 1): values
        for name, before, after in parts
        for instance, values in (("old", before), ("new", f"_x{at - 1} {after}"))
    }


def series(metric: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{pairs}}}"


def api_errors(reason: str) -> str:
    return f'hone_operator_api_errors_total{{reason="{reason}"}}'


def is_not(alert: str, metric: str, labels: dict[str, str]) -> tuple[Case, Case]:
    """Of a metric that is 0 for half an hour, and of one that becomes 1 in time."""
    name = series(metric, labels)
    return Case(alert, 31, {name: "0x40"}, labels), Case(alert, 31, {name: "0x20 1x20"})


def is_carried(alert: str, metric: str, labels: dict[str, str], moving: str, there: str) -> Iterator[Case]:
    """Of files on their way: given up, and taking longer than six hours, waiting included."""

    def state(name: str) -> str:
        return series(metric, {**labels, "state": name})

    failed, slow = f"{alert}Failed", f"{alert}TakesTooLong"
    yield Case(failed, 10, {state("Failed"): "0x2 1x20"}, labels)
    # Somebody has changed the entry.
    yield Case(failed, 10, {state("Failed"): "1x4 0x20", state(moving): "0x4 1x20"})
    yield Case(slow, 361, {state("Pending"): "1x99 0x300", state(moving): "0x99 1x300"}, labels)
    yield Case(slow, 361, {state(moving): "1x300 0x99", state(there): "0x300 1x99"})


VERSION, MODEL = {"namespace": "ml", "modelversion": "m-v1"}, {"namespace": "ml", "model": "m"}
NAME = {"namespace": "ml", "name": "m"}
ROWS = {"namespace": "ml", "dataset": "rows"}
BAD_ROWS = {**ROWS, "reason": "TooManyBadRows", "cause": "data"}
TO_S3, FROM_HUB = {**VERSION, "scheme": "s3"}, {**MODEL, "scheme": "hf"}
QUEUE = {f'hone_job_info{{namespace="ml",finetunejob="{name}",queue="gpus"}}': "1x80" for name in ("a", "b")}
BLOCKED = {"namespace": "ml", "queue": "gpus"}
REF = {"namespace": "ml", "finetunejob": "a"}
QUEUED = {**REF, "cause": "platform"}
HELD, STEPS, ROWS_DONE = (f"hone_job_{name}{{{JOB}}}" for name in ("gpus_held", "steps", "rows"))
PLATFORMS, USERS = {"cause": "platform", "severity": "warning"}, {"cause": "user", "severity": "info"}
STARTED, REPORTED = (f"hone_job_{event}_timestamp_seconds{{{JOB}}}" for event in ("start", "last_progress"))
MODELS, RUNS = (f'hone_store_bytes{{namespace="ml",content="{content}"}}' for content in ("models", "runs"))
SIZE = (
    "kube_persistentvolumeclaim_resource_requests_storage_bytes"
    '{namespace="ml",persistentvolumeclaim="hone-store",job="kube-state-metrics"}'
)
BUSY = 'DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{namespace="ml",pod="a-1-0",gpu="0"}'
PLACED = {
    'hone_pod_info{namespace="ml",pod="a-1-0",finetunejob="a",rank="0"}': "1x99",
    HELD: "8x99",
}
ENDS = 'hone_operator_certificate_expiry_timestamp_seconds{certificate="serving"}'
COMPLETED = f"hone_job_completion_timestamp_seconds{{{JOB}}}"
CREATED = {f"hone_job_created_timestamp_seconds{{{JOB}}}": "0x420"}
CASES = [
    *(
        Case(
            "FineTuneJobFailed",
            30,
            {phase("Failed"): "1x200", why(reason, cause): "1x200", COMPLETED: "0x200"},
            {**REF, "reason": reason, "cause": cause, "severity": severity},
        )
        # A typing mistake wakes nobody, nor does a bad row.
        for reason, cause, severity in (
            ("InvalidValue", "user", "info"),
            ("TooManyBadRows", "data", "info"),
            ("StorageError", "platform", "warning"),
        )
    ),
    # An old failure is history, not news; a run that waits after the failure of an attempt has not failed.
    Case(
        "FineTuneJobFailed",
        61,
        {phase("Failed"): "1x200", why("StorageError", "platform"): "1x200", COMPLETED: "0x200"},
    ),
    Case("FineTuneJobFailed", 30, {phase("Restarting"): "1x200", why("StorageError", "platform"): "1x200"}),
    *(
        Case("FineTuneJobStalled", 25, {phase("Running"): "1x40", STARTED: "0x40", **reported}, REF)
        # The second has never reported: it hangs while it loads, or a network policy keeps every report out.
        for reported in ({REPORTED: "60x40"}, {})
    ),
    Case("FineTuneJobStalled", 25, {phase("Running"): "1x40", STARTED: "0x40", REPORTED: "0+60x40"}),
    # Suspended on purpose: no progress is expected.
    Case("FineTuneJobStalled", 25, {phase("Running"): "0x40", STARTED: "0x40", REPORTED: "60x40"}),
    # Its pods waited for nodes, and now they load; or it has just begun.
    Case("FineTuneJobStalled", 40, {phase("Running"): "0x30 1x20", STARTED: "0x50"}),
    Case("FineTuneJobStalled", 25, {phase("Running"): "_x19 1x20", STARTED: "_x19 1200x20"}),
    # The operator restarts while it runs and says nothing, and a minute after it began to run.
    Case(
        "FineTuneJobStalled",
        25,
        {**restarted((phase("Running"), "1x9 stale", "1x30"), at=10), STARTED: "0x40"},
        REF,
    ),
    Case(
        "FineTuneJobStalled",
        189,
        {**restarted((phase("Running"), "0x179 1 stale", "1x30"), at=182), STARTED: "0x220"},
    ),
    Case(
        "FineTuneJobStalled",
        189,
        {**restarted((phase("Running"), "1x180 stale", "1x30"), at=182), STARTED: "0x220"},
        REF,
    ),
    *(
        Case("FineTuneJobHeldWithoutStep", 75, {HELD: "8x99", **more}, REF | who, "8")
        for more, who in (
            ({phase("Running"): "1x99", STEPS: "0x99"}, PLATFORMS),
            ({phase("Starting"): "1x99"}, PLATFORMS),
            # It evaluates the base, a task without rows among others; or it encoded rows, and hangs since.
            ({phase("Running"): "1x99", STEPS: "0x99", ROWS_DONE: "_x20 0+9x20 _x9 0+9x50"}, USERS),
            ({phase("Running"): "1x99", STEPS: "0x99", ROWS_DONE: "0+9x10 stale"}, PLATFORMS),
            (
                restarted((phase("Running"), "1x40 stale", "1x60"), (ROWS_DONE, "0+9x40 stale", "360+9x60"), at=42),
                USERS,
            ),
        )
    ),
    Case(
        "FineTuneJobHeldWithoutStep",
        75,
        {phase("Running"): "1x99", HELD: "8x99", STEPS: "0x40 1x50", ROWS_DONE: "0+9x40 stale"},
    ),
    # It holds none: it trains on CPUs, or waits.
    Case("FineTuneJobHeldWithoutStep", 75, {phase("Running"): "1x99", STEPS: "0x99"}),
    *(
        Case("FineTuneJobIdleGpus", 60, {**PLACED, BUSY: "0x99", **more}, REF | who)
        for more, who in (
            ({}, PLATFORMS),
            ({STEPS: "7x99"}, PLATFORMS),
            ({STEPS: "0+1x10 10x89"}, PLATFORMS),  # it hangs since
            ({STEPS: "0+1x99"}, USERS),  # it trains in 32 bits
            ({STEPS: "7x99", ROWS_DONE: "0+9x99"}, USERS),
            (restarted((STEPS, "0+1x40 stale", "40+1x60"), at=42), USERS),
        )
    ),
    Case(
        "FineTuneJobIdleGpus", 60, {**PLACED, BUSY: "0x20 0.3 0x78", STEPS: "0+1x99"}
    ),  # it worked within the last half hour
    Case("FineTuneJobIdleGpus", 60, {**PLACED, BUSY.replace('"ml"', '"other"'): "0x99"}),
    Case(
        "FineTuneJobLossNaN", 5, {phase("Running"): "1x10", f"hone_job_loss{{{JOB}}}": "1.5 1.4 NaN NaN NaN NaN"}, REF
    ),
    Case("FineTuneJobLossNaN", 5, {phase("Running"): "1x10", f"hone_job_loss{{{JOB}}}": "1.5-0.1x10"}),
    *(
        Case(
            "FineTuneJobPendingTooLong",
            80,
            {phase("Preparing"): "1x100", **reasons, f"hone_job_created_timestamp_seconds{{{JOB}}}": "0x100"},
            {**REF, "cause": cause},
        )
        # A name with a typing mistake is its user's; what takes time for a reason that nobody knows is the platform's.
        for reasons, cause in (
            ({}, "platform"),
            ({why("Fetching", ""): "1x100"}, "platform"),
            ({why("Unschedulable", "platform"): "1x100"}, "platform"),
            ({why("DatasetNotFound", "user"): "1x100"}, "user"),
            ({why("DatasetNotReady", "data"): "1x100"}, "data"),
            (
                restarted(
                    (why("ImagePullFailed", "platform"), "1x72", "_x30"), (why("Pending", ""), "_x72", "1x30"), at=71
                ),
                "platform",
            ),
        )
    ),
    Case(
        "FineTuneJobPendingTooLong",
        80,
        {
            phase("Preparing"): "1x70 0x30",
            phase("Running"): "0x70 1x30",
            why("DatasetNotFound", "user"): "1x70 stale",
            f"hone_job_created_timestamp_seconds{{{JOB}}}": "0x100",
        },
    ),
    # The operator's new pod is seen before its old one is forgotten, and in another of the phases.
    Case(
        "FineTuneJobPendingTooLong",
        80,
        {
            **restarted((phase("Preparing"), "1x72", "0x30"), (phase("Starting"), "0x72", "1x30"), at=71),
            f"hone_job_created_timestamp_seconds{{{JOB}}}": "0x100",
        },
        {**REF, "cause": "platform"},
    ),
    Case(
        "FineTuneJobPendingTooLong",
        80,
        {
            **restarted((phase("Preparing"), "1x72", "0x30"), (phase("Running"), "0x72", "1x30"), at=71),
            f"hone_job_created_timestamp_seconds{{{JOB}}}": "0x100",
        },
    ),
    *(
        Case(
            "FineTuneJobQueuedTooLong",
            400,
            {phase("Queued"): "1x100 0x320", phase("Requeued"): "0x100 1x320", **CREATED, **more},
            {**REF, "cause": cause},
        )
        for more, cause in (
            ({}, "platform"),
            ({why("Other", ""): "1x420"}, "platform"),
            ({why("QueueNotFound", "user"): "1x420"}, "user"),
            ({f"hone_job_line_position{{{JOB}}}": "3x300 2x120"}, "user"),
            (restarted((f"hone_job_line_position{{{JOB}}}", "3x300 stale", "2x120"), at=302), "user"),
        )
    ),
    # It is admitted again and again, for five minutes each time.
    Case("FineTuneJobQueuedTooLong", 400, {phase("Requeued"): "1x100 0x5 1x150 0x5 1x160", **CREATED}, QUEUED),
    Case("FineTuneJobQueuedTooLong", 400, {phase("Queued"): "1x100 0x90 1x300", **CREATED}),
    # The operator restarts in the middle of the wait, and at the end of a short one.
    Case(
        "FineTuneJobQueuedTooLong",
        400,
        {**restarted((phase("Queued"), "0x5 1x194 stale", "1x220"), at=201), **CREATED},
        QUEUED,
    ),
    Case(
        "FineTuneJobQueuedTooLong",
        361,
        {**restarted((phase("Queued"), "1x10 stale", "0x400"), (phase("Running"), "0x10 stale", "1x400"), at=12)}
        | CREATED,
    ),
    # A young job, and one that has ended since.
    Case(
        "FineTuneJobQueuedTooLong",
        400,
        {phase("Queued"): "_x99 1x310", f"hone_job_created_timestamp_seconds{{{JOB}}}": "_x99 6000x310"},
    ),
    Case("FineTuneJobQueuedTooLong", 400, {phase("Queued"): "1x390 0x30", phase("Failed"): "0x390 1x30", **CREATED}),
    *(
        Case("FineTuneQueueBlocked", 70, {**QUEUE, phase("Queued"): "1x80", **reasons}, BLOCKED | who)
        for reasons, who in (
            ({}, PLATFORMS),
            ({why("Other", ""): "1x30 stale", why("QuotaExceeded", "platform"): "_x30 1x50"}, PLATFORMS),
            ({why("QueueNotFound", "user"): "1x80"}, USERS),
            (restarted((why("QueueNotFound", "user"), "1x20 stale", "1x70"), at=22), USERS),
        )
    ),
    # A typing mistake that was corrected after half an hour.
    Case(
        "FineTuneQueueBlocked", 70, {**QUEUE, phase("Queued"): "1x30 0x50", why("QueueNotFound", "user"): "1x30 stale"}
    ),
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
    # The operator restarts between failures, and after many that are long ago.
    Case(
        "FineTuneJobRestartsOften",
        60,
        {
            f'hone_job_restarts_total{{instance="{instance}",{JOB}}}': values
            for instance, values in (("1", "0x9 1x9 stale"), ("2", "_x20 1x9 2x9 stale"), ("3", "_x42 2x9 3x20"))
        },
        REF,
    ),
    Case(
        "FineTuneJobRestartsOften",
        100,
        restarted((f"hone_job_restarts_total{{{JOB}}}", "4x33 stale", "4x20 5x60"), at=35),
    ),
    Case(
        "DatasetNotReady",
        31,
        {series("hone_dataset_ready", ROWS): "0x40", series("hone_dataset_reason", BAD_ROWS): "1x40"},
        {**BAD_ROWS, "severity": "info"},
    ),
    Case(
        "DatasetNotReady",
        31,
        {
            series("hone_dataset_ready", ROWS): "0x40",
            series("hone_dataset_reason", {**ROWS, "reason": "Materializing"}): "1x40",
        },
        {**ROWS, "reason": "Materializing", "cause": "platform", "severity": "info"},
    ),
    Case(
        "DatasetNotReady",
        31,
        {series("hone_dataset_ready", ROWS): "0x20 1x20", series("hone_dataset_reason", BAD_ROWS): "1x20"},
    ),
    *(
        Case("ModelVersionNotReady", 31, {series("hone_modelversion_ready", VERSION): "0x40", **reasons}, VERSION | who)
        for reasons, who in (
            ({}, PLATFORMS),
            (
                {not_verified("Verifying", ""): "1x20", not_verified("ManifestMismatch", "platform"): "_x20 1x20"},
                PLATFORMS,
            ),
            ({not_verified("InvalidValue", "user"): "1x40"}, USERS),
            (restarted((not_verified("InvalidValue", "user"), "1x20 stale", "1x20"), at=22), USERS),
        )
    ),
    Case(
        "ModelVersionNotReady",
        31,
        {series("hone_modelversion_ready", VERSION): "0x20 1x20", not_verified("InvalidValue", "user"): "1x20 stale"},
    ),
    *is_not("ModelVersionNotSigned", "hone_modelversion_signed", VERSION),
    *is_not("ModelNotRegistered", "hone_model_registered", MODEL),
    *is_not("ModelAliasesNotResolved", "hone_model_ready", MODEL),
    *(
        Case("ModelNotServed", 11, {unserved(cause): "1x20"}, NAME | who)
        for cause, who in (("user", USERS), ("platform", PLATFORMS))
    ),
    # The sidecar of an earlier release.
    Case("ModelNotServed", 11, {unserved(""): "1x20"}, NAME | PLATFORMS),
    Case("ModelNotServed", 11, {unserved("user"): "1x5 stale", unserved(""): "_x6 0x20"}),
    *is_carried("ModelDelivery", "hone_modelversion_deliveries", TO_S3, "Delivering", "Delivered"),
    *is_carried("ModelImport", "hone_model_imports", FROM_HUB, "Importing", "Imported"),
    Case("HoneStoreFillingUp", 20, {MODELS: "30x40", RUNS: "60x40", SIZE: "100x40"}, {"namespace": "ml"}, "90%"),
    Case("HoneStoreFillingUp", 20, {MODELS: "30x40", RUNS: "50x40", SIZE: "100x40"}),
    # The claim of something else, and the store of another namespace.
    Case("HoneStoreFillingUp", 20, {MODELS: "30x40", RUNS: "60x40", SIZE.replace("hone-store", "data"): "1x40"}),
    Case("HoneStoreFillingUp", 20, {MODELS: "30x40", RUNS: "60x40", SIZE.replace('"ml"', '"other"'): "1x40"}),
    Case("HoneOperatorDown", 20, {'hone_operator_build_info{version="1"}': "1x5 _x30"}, {"cluster": ""}),
    Case("HoneOperatorDown", 20, {"up": "1x40"}, {"cluster": ""}),  # it was never there
    # Of two clusters, one: nothing is absent.
    Case(
        "HoneOperatorDown",
        20,
        {'hone_operator_build_info{cluster="east"}': "1x5 _x30", 'hone_operator_build_info{cluster="west"}': "1x40"},
        {"cluster": "east"},
    ),
    # A new pod has the same metric with another instance.
    Case(
        "HoneOperatorDown",
        20,
        {'hone_operator_build_info{instance="a"}': "1x5 _x30", 'hone_operator_build_info{instance="b"}': "_x5 1x40"},
    ),
    Case(
        "HoneCertificateEndsSoon", 70, {ENDS: f"{13 * 86400 + 70 * 60}x90"}, {"certificate": "serving"}, "13d 0h 0m 0s"
    ),
    Case("HoneCertificateEndsSoon", 70, {ENDS: f"{31 * 86400}x90"}),
    Case("HoneWebhookFails", 40, {api_errors("Webhook"): "0x20 1+1x30"}, {}),
    # An error every eight minutes, also from a new pod, and a single one.
    Case("HoneWebhookFails", 40, {api_errors("Webhook"): "0x7 1x7 2x7 3x7 4x7 5x7"}, {}),
    Case(
        "HoneWebhookFails",
        40,
        restarted((api_errors("Webhook"), "0x7 1x7 2x7 stale", "0x2 1x7 2x7 3x7"), at=25),
        {},
    ),
    *(Case("HoneWebhookFails", minute, {api_errors("Webhook"): "0x20 1x40"}) for minute in range(30, 40)),
    Case("HoneWebhookFails", 40, {api_errors("Webhook"): "7x50", api_errors("ServerError"): "0+1x50"}),
    Case("HoneApiServerErrors", 40, {api_errors("Throttled"): "0+2x50"}, {"reason": "Throttled"}),
    Case("HoneApiServerErrors", 32, {api_errors("Throttled"): "0x20 40x40"}),  # it is over since
    Case("HoneApiServerErrors", 40, {api_errors("Throttled"): "0+0.2x50", api_errors("Webhook"): "0+2x50"}),
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
        "16.67%",
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
    cluster = case.labels.get("cluster")

    def fill(text: str) -> str:
        text = re.sub(r"\{\{ with \$labels.cluster \}\}.*\{\{ end \}\}", f" of {cluster}" if cluster else "", text)
        text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda m: case.labels[m[1]], text)
        return re.sub(r"\{\{ \$value.*?\}\}", case.value, text)

    annotations = {key: fill(value) for key, value in rule["annotations"].items()}
    labels = {**rule["labels"], **case.labels}
    return [{"exp_labels": {name: value for name, value in labels.items() if value}, "exp_annotations": annotations}]


def of_cluster(name: str, case: Case) -> Case:
    """The case as a Prometheus has it that sees several clusters."""

    def labelled(metric: str) -> str:
        bare, _, labels = metric.partition("{")
        return f'{bare}{{cluster="{name}",{labels or "}"}'

    series = {labelled(metric): values for metric, values in case.series.items()}
    return replace(case, series=series, labels=None if case.labels is None else {**case.labels, "cluster": name})


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


def try_all(folder: Path, rules: Sequence[object], tests: Sequence[dict[str, object]]) -> None:
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "these", "rules": rules}]}))
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "test.yaml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", folder / "test.yaml")


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_by_promtool(tmp_path: Path, alert):
    """In one cluster, and where one Prometheus sees two, whose objects have the same names."""
    cases = [case for case in CASES if case.alert == alert]
    fires, silent = ([each for each in cases if (each.labels is None) == quiet] for quiet in (False, True))
    both = [
        replace(east, series=east.series | west.series)
        for east, west in product((of_cluster("east", f) for f in fires), (of_cluster("west", s) for s in silent))
        if east.minute == west.minute
    ]
    assert both or alert == "HoneOperatorDown"
    try_all(tmp_path, [ALERTS[alert]], [unit_test(case) for case in [*cases, *both[:1]]])


def test_recorded_costs(tmp_path: Path):
    """By queue, for what holds GPUs; a product without a price costs nothing that anybody could tell."""
    info = 'hone_job_info{namespace="ml",finetunejob="%s",queue="%s",gpu_product="%s"}'
    held = 'hone_job_gpus_held{namespace="ml",finetunejob="%s",instance="x"}'
    given = {
        info % ("a", "q", "H100"): "1x10",
        info % ("b", "q", ""): "1x10",
        info % ("c", "r", "T4"): "1x10",
        info % ("d", "q", ""): "1x10",
        held % "a": "8x10",
        held % "b": "2x10",
        held % "c": "1x10",
        'hone:gpu_hour_price{gpu_product="H100"}': "4x10",
        'hone:gpu_hour_price{gpu_product=""}': "0.5x10",
    }

    def samples(record: str, *expected: tuple[str, float]) -> dict[str, object]:
        wanted = [{"labels": f'{record}{{namespace="ml",{labels}}}', "value": value} for labels, value in expected]
        return {"expr": record, "eval_time": "5m", "exp_samples": wanted}

    gpus = [('queue="q",gpu_product="H100"', 8.0), ('queue="q"', 2.0), ('queue="r",gpu_product="T4"', 1.0)]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [
            samples("namespace_queue:hone_gpus_held:sum", *gpus),
            samples("namespace_queue:hone_cost_per_hour:sum", ('queue="q"', 33.0)),
        ],
    }
    try_all(tmp_path, [rule for rule in ALL if "record" in rule], [test])


def test_goodput_of_a_month_across_restarts(tmp_path: Path):
    """The newest value of a job counts, whichever pod of the operator said it; one that is not a number is none."""
    info = 'hone_job_info{namespace="ml",finetunejob="%s",queue="%s"}'
    held = 'hone_job_gpus_held{namespace="ml",finetunejob="%s"}'
    ratio = 'hone_job_goodput_ratio{namespace="ml",finetunejob="%s"}'
    given = restarted(
        (info % ("a", "q"), "1x30 stale", "1x30"),
        (held % "a", "8x30 stale", "8x30"),
        (ratio % "a", "0.9x30 stale", "0.3x30"),
        (info % ("b", "idle"), "1x30 stale", "1x30"),
        (held % "b", "0x30 stale", "0x30"),
        (ratio % "b", "0.5x30 stale", "0.5x30"),
        at=32,
    )
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [
            {
                "expr": usage.expressions("3600s")["goodput"],
                "eval_time": "60m",
                "exp_samples": [{"labels": '{namespace="ml",queue="q"}', "value": 0.3}],
            }
        ],
    }
    try_all(tmp_path, [], [test])


def test_rules_are_well_formed():
    promtool("check", "rules", RULES)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_has_both_cases_and_a_runbook(alert):
    fires = {case.labels is not None for case in CASES if case.alert == alert}
    assert fires == {True, False}
    rule = ALERTS[alert]
    severity, cause = rule["labels"]["severity"], rule["labels"]["cause"]
    if cause == '{{ or $labels.cause "platform" }}':  # it is that of the reason
        assert severity in (
            '{{ if eq $labels.cause "platform" }}warning{{ else }}info{{ end }}',
            '{{ if eq $labels.cause "user" "data" }}info{{ else }}warning{{ end }}',
            "info",
        )
    else:
        assert severity in ({"info", "warning", "critical"} if cause == FixedBy.PLATFORM else {"info"})
        assert cause in set(FixedBy)
    assert rule["annotations"]["runbook_url"].rpartition("/")[2] == alert
    page = (RUNBOOKS / f"{alert}.md").read_text()
    for heading in (f"# {alert}", "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"):
        assert heading in page
    commands = re.findall(r"^(?:```\w*\n)?(?:kubectl|helm|hone) \S.*", page.split("## Mitigation")[1], re.MULTILINE)
    assert commands, "its mitigation is no command"


def test_no_runbook_without_its_alert():
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"index"} == set(ALERTS)
