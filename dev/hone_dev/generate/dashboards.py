"""The Grafana dashboard of the chart, made from code: `python -m hone_dev.generate.dashboards` writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import ScaleDistributionConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from hone_dev.tools import paths

FILE = paths.SOURCE / "charts" / "hone" / "files" / "dashboards" / "hone.json"
UID = "hone-fine-tuning"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
JOBS = 'namespace=~"$namespace",finetunejob=~"$finetunejob"'
FIVE_MINUTES = 5 * 60_000.0
"""Gaps of a curve up to this, in milliseconds, are bridged."""
ONE_JOB = "{{namespace}}/{{finetunejob}}"


@dataclass(frozen=True)
class Query:
    """An expression and how its series are called."""

    expr: str
    legend: str = ONE_JOB


@dataclass(frozen=True)
class Board:
    """One panel."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int = 8
    height: int = 8
    log_scale: bool = False
    shows: Literal["curves", "number", "table"] = field(default="curves", kw_only=True)
    columns: Sequence[str] = field(default=(), kw_only=True)
    """Labels that a table shows."""


ROWS: dict[str, Sequence[Board]] = {
    "Jobs": (
        Board(
            "Running",
            "FineTuneJobs whose pods train now.",
            "none",
            [Query('sum(hone_job_phase{namespace=~"$namespace",phase="Running"}) or vector(0)', "")],
            4,
            5,
            shows="number",
        ),
        Board(
            "Waiting",
            "FineTuneJobs that wait for data, their base model, quota or nodes.",
            "none",
            [
                Query(
                    'sum(hone_job_phase{namespace=~"$namespace",'
                    'phase=~"Pending|Preparing|Queued|Starting|Requeued|Restarting"}) or vector(0)',
                    "",
                )
            ],
            4,
            5,
            shows="number",
        ),
        Board(
            "Ended, by result",
            "FineTuneJobs that ended, in an hour.",
            "none",
            [Query('sum by (result) (increase(hone_jobs_finished_total{namespace=~"$namespace"}[1h]))', "{{result}}")],
            8,
            5,
        ),
        Board(
            "Failed, by reason",
            "FineTuneJobs that failed, in an hour. The page Troubleshooting has each reason.",
            "none",
            [
                Query(
                    'sum by (reason) (increase(hone_jobs_finished_total{namespace=~"$namespace",result="Failed"}[1h]))',
                    "{{reason}}",
                )
            ],
            8,
            5,
        ),
        Board(
            "All jobs",
            "Phase of each FineTuneJob, and why it waits or has failed.",
            "none",
            [
                Query(
                    "max by (namespace, finetunejob, phase, reason) ("
                    f"(hone_job_phase{{{JOBS}}} == 1)"
                    f" * on (namespace, finetunejob) group_left (reason) hone_job_reason{{{JOBS}}}"
                    f" or on (namespace, finetunejob) hone_job_phase{{{JOBS}}} == 1)"
                )
            ],
            24,
            shows="table",
            columns=("namespace", "finetunejob", "phase", "reason"),
        ),
        Board(
            "Progress",
            "Optimiser steps done, as a share of the run.",
            "percentunit",
            [Query(f"hone_job_progress_ratio{{{JOBS}}}")],
        ),
        Board("Time left", "The trainer's own estimate.", "s", [Query(f"hone_job_eta_seconds{{{JOBS}}}")]),
        Board(
            "Since the last report",
            "Grows when a run hangs; alert FineTuneJobStalled fires after 15 minutes.",
            "s",
            [
                Query(
                    f"(time() - hone_job_last_progress_timestamp_seconds{{{JOBS}}})"
                    f' and on (namespace, finetunejob) hone_job_phase{{{JOBS},phase="Running"}} == 1'
                )
            ],
        ),
    ),
    "GPUs": (
        Board(
            "GPUs held, by job",
            "GPUs of the pods that have a node, whether they train already or not.",
            "none",
            [Query(f"hone_job_gpus_held{{{JOBS}}}")],
            12,
        ),
        Board(
            "Activity of the GPUs, by job",
            "Share of the time in which the tensor cores work, mean over the GPUs of a job. Needs NVIDIA's DCGM "
            "exporter, scraped with honorLabels, so that its labels namespace and pod name the pod that uses the GPU.",
            "percentunit",
            [
                Query(
                    "avg by (namespace, finetunejob) (DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"
                    f" * on (namespace, pod) group_left (finetunejob) hone_pod_info{{{JOBS}}})"
                )
            ],
            12,
        ),
    ),
    "Learning": (
        Board("Training loss", "Nats per token.", "none", [Query(f"hone_job_loss{{{JOBS}}}")]),
        Board(
            "Held-out loss",
            "Nats per token, on rows never trained on.",
            "none",
            [Query(f"hone_job_eval_loss{{{JOBS}}}")],
        ),
        Board(
            "Gradient norm",
            "Before clipping; spikes come before divergence.",
            "none",
            [Query(f"hone_job_grad_norm{{{JOBS}}}")],
            log_scale=True,
        ),
        Board("Learning rate", "After warm-up and decay.", "none", [Query(f"hone_job_learning_rate{{{JOBS}}}")]),
        Board(
            "Throughput", "Tokens per second over all ranks.", "cps", [Query(f"hone_job_tokens_per_second{{{JOBS}}}")]
        ),
        Board(
            "Restarts and preemptions",
            "Attempts that failed, and attempts that ended by a disruption.",
            "none",
            [
                Query(f"hone_job_restarts_total{{{JOBS}}}", f"restarts {ONE_JOB}"),
                Query(f"hone_job_preemptions_total{{{JOBS}}}", f"preemptions {ONE_JOB}"),
            ],
        ),
    ),
    "Models": (
        Board(
            "Deliveries, by state",
            "Copies of models to registries, buckets and volumes; a failed one waits for a change of its entry.",
            "none",
            [
                Query(
                    'sum by (scheme, state) (hone_modelversion_deliveries{namespace=~"$namespace"})',
                    "{{scheme}} {{state}}",
                )
            ],
        ),
        Board(
            "Uploaded",
            "Bytes that deliveries uploaded; what a target had already does not count.",
            "bytes",
            [Query('sum by (scheme) (hone_modelversion_uploaded_bytes{namespace=~"$namespace"})', "{{scheme}}")],
        ),
        Board(
            "Imports, by state",
            "Foreign adapters and models that become versions; a failed one waits for a change of its entry.",
            "none",
            [
                Query(
                    'sum by (scheme, state) (hone_model_imports{namespace=~"$namespace"})',
                    "{{scheme}} {{state}}",
                )
            ],
        ),
        Board(
            "Not to be used",
            "Versions that are not verified or not signed; Models with an alias that points elsewhere than it should, "
            "or whose registry lags behind.",
            "none",
            [
                Query('count(hone_modelversion_ready{namespace=~"$namespace"} == 0) or vector(0)', "not Ready"),
                Query('count(hone_modelversion_signed{namespace=~"$namespace"} == 0) or vector(0)', "not signed"),
                Query('count(hone_model_ready{namespace=~"$namespace"} == 0) or vector(0)', "alias not resolved"),
                Query('count(hone_model_registered{namespace=~"$namespace"} == 0) or vector(0)', "not registered"),
            ],
        ),
    ),
    "Waiting and duration": (
        Board(
            "Wait until the pods are scheduled",
            "From the creation of a job to its first attempt's pods having nodes.",
            "s",
            [
                Query(
                    f"histogram_quantile({share}, sum by (le)"
                    ' (increase(hone_job_queue_wait_seconds_bucket{namespace=~"$namespace"}[1d])))',
                    f"{name} of a day",
                )
                for share, name in ((0.5, "half"), (0.95, "95 %"))
            ],
            12,
        ),
        Board(
            "Duration of runs",
            "From the first attempt to the end.",
            "s",
            [
                Query(
                    f"histogram_quantile({share}, sum by (le)"
                    ' (increase(hone_job_duration_seconds_bucket{namespace=~"$namespace"}[1d])))',
                    f"{name} of a day",
                )
                for share, name in ((0.5, "half"), (0.95, "95 %"))
            ],
            12,
        ),
    ),
    "Operator": (
        Board(
            "Reconciles",
            "Successful and failed reconciles in a second.",
            "ops",
            [
                Query(
                    "sum by (kind) (rate(hone_operator_reconcile_duration_seconds_count[$__rate_interval]))", "{{kind}}"
                ),
                Query(
                    "sum by (kind) (rate(hone_operator_reconcile_errors_total[$__rate_interval]))", "{{kind}} failed"
                ),
            ],
        ),
        Board(
            "Time of a reconcile",
            "99 of 100 are faster.",
            "s",
            [
                Query(
                    "histogram_quantile(0.99, sum by (le, kind)"
                    " (rate(hone_operator_reconcile_duration_seconds_bucket[$__rate_interval])))",
                    "{{kind}}",
                )
            ],
        ),
        Board("Queue", "Objects that wait to be reconciled.", "none", [Query("hone_operator_queue_depth", "waiting")]),
        Board(
            "Memory",
            "Resident memory of the operator.",
            "bytes",
            [Query("process_resident_memory_bytes and on (instance) hone_operator_build_info", "{{instance}}")],
        ),
    ),
}


def build() -> str:
    """The dashboard as JSON."""
    board = (
        dashboard.Dashboard("Hone: fine-tuning")
        .uid(UID)
        .description("FineTuneJobs of the cluster: where they are, what they learn, and how the operator does.")
        .tags(["hone", "fine-tuning"])
        .editable()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("namespace", "Namespace", "label_values(hone_job_info, namespace)"))
        .with_variable(
            _variable("finetunejob", "FineTuneJob", 'label_values(hone_job_info{namespace=~"$namespace"}, finetunejob)')
        )
    )
    for title, boards in ROWS.items():
        board.with_row(dashboard.Row(title))
        for each in boards:
            board.with_panel(_panel(each))
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(board.build())), indent=2) + "\n"


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _panel(board: Board) -> stat.Panel | table.Panel | timeseries.Panel:
    panel: stat.Panel | table.Panel | timeseries.Panel
    if board.shows == "number":
        panel = stat.Panel()
    elif board.shows == "table":
        shown = {"include": {"names": list(board.columns)}}
        panel = table.Panel().with_transformation(models.DataTransformerConfig("filterFieldsByName", options=shown))
    else:
        panel = timeseries.Panel().show_points(common.VisibilityMode.NEVER).span_nulls(FIVE_MINUTES)
        if board.log_scale:
            panel.scale_distribution(ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))
    panel.title(board.title).description(board.description).unit(board.unit).datasource(SOURCE)
    panel.span(board.width).height(board.height)
    for query in board.queries:
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).datasource(SOURCE)
        if board.shows == "table":
            target.format(PromQueryFormat.TABLE)
        panel.with_target(target.range() if board.shows == "curves" else target.instant())
    return panel


def main() -> None:
    """Write the file."""
    FILE.write_text(build())
    print(f"wrote {Path(FILE).relative_to(paths.SOURCE)}")


if __name__ == "__main__":
    main()
