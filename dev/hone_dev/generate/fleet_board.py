"""The dashboard of everything: who holds what, who waits, what fails, what it costs, and how the operator does."""

from __future__ import annotations

from hone_dev.generate.panels import RUNBOOK, TO_JOB, Board, Query, areas, curves, logs, number, rows

NS = 'cluster=~"$cluster",namespace=~"$namespace"'
CLUSTER = 'cluster=~"$cluster"'
JOB = "cluster, namespace, finetunejob"
QUEUE = "cluster, namespace, queue"
OPERATOR = "and on (cluster, instance) hone_operator_build_info"
WAITING = "Pending|Preparing|Queued|Starting|Requeued|Restarting"
INFO = f'max by ({JOB}, queue) (hone_job_info{{{NS},queue=~"$queue"}})'
HELD = f"{INFO} * on ({JOB}) group_left () max by ({JOB}) (hone_job_gpus_held{{{NS}}})"
OF_QUEUE = "{{namespace}} {{queue}} {{cluster}}"
OF_TEAM = "{{namespace}} {{cluster}}"
REASON = f"group_left (reason, cause) max by ({JOB}, reason, cause) (hone_job_reason{{{NS}}})"


def phase(phases: str) -> str:
    """The jobs in one of these phases."""
    return f'(max by ({JOB}, phase) (hone_job_phase{{{NS},phase=~"{phases}"}}) == 1)'


def once(metric: str, by: str) -> str:
    """What several pods of the operator say about the same thing, as while it restarts."""
    return f"max by (cluster, namespace, {by}) ({metric}{{{NS}}})"


def of_training(metric: str) -> str:
    """The average over a team's jobs that train now."""
    return f"avg by (cluster, namespace) ({once(metric, 'finetunejob')} and on ({JOB}) {phase('Running')})"


def seconds(match: str, kind: str) -> str:
    """GPU-seconds of queues."""
    labels = f'{NS},queue=~"$queue",kind{match}"{kind}"'
    return f"max by (cluster, namespace, queue, kind) (hone_queue_goodput_seconds{{{labels}}})"


def share(metric: str) -> list[Query]:
    """Half and 95 % of what a histogram has seen in a day."""
    bucket = f"sum by (le) (increase({metric}_bucket{{{NS}}}[1d]))"
    return [Query(f"histogram_quantile({q}, {bucket})", name) for q, name in ((0.5, "half"), (0.95, "95 %"))]


def by_kind(metric: str, legend: str, **labels: str) -> Query:
    """What a counter of the operator has grown by in an hour."""
    by = ", ".join(("cluster", *labels.values()))
    return Query(f"sum by ({by}) (increase({metric}{{{CLUSTER}}}[1h]))", legend)


def ended(by: str, **labels: str) -> Query:
    """Jobs that ended in an hour. `increase` would miss the first of its kind: a series that was not there before."""
    chosen = ",".join([NS, *(f'{name}="{value}"' for name, value in labels.items())])
    total = f"last_over_time(hone_jobs_finished_total{{{chosen}}}[1h])"  # also of a pod of the operator that is gone
    before = f"(hone_jobs_finished_total{{{chosen}}} offset 1h or {total} * 0)"
    return Query(f"sum by ({by}) (clamp_min({total} - {before}, 0))", f"{{{{{by}}}}}")


def in_the_chosen_time(record: str) -> str:
    """What a recorded sum was worth, hour by hour."""
    samples = f'sum_over_time({record}{{{NS},queue=~"$queue"}}[$__range:5m])'
    return f"sum by ({QUEUE}) ({samples}) / 12"


BOARD = Board(
    title="Hone: fleet",
    uid="hone-fleet",
    about="Who holds what, who waits, what fails, what it costs, and how the operator does.",
    hours=6,
    variables=(
        ("cluster", "Cluster", "label_values(hone_operator_build_info, cluster)", True),
        ("namespace", "Namespace", 'label_values(hone_job_info{cluster=~"$cluster"}, namespace)', True),
        ("queue", "Queue", f"label_values(hone_job_info{{{NS}}}, queue)", True),
    ),
    links={
        "One job": "/d/hone-job",
        "Logs of the operator": logs('{container="operator"} |= ``'),
    },
    annotations={
        "The operator started": (
            f"time() - process_start_time_seconds{{{CLUSTER}}} < 120 {OPERATOR}",
            "orange",
        )
    },
    rows={
        "Now": (
            number("Running", "FineTuneJobs whose pods train.", "none", f"count({phase('Running')}) or vector(0)"),
            number(
                "Waiting",
                "FineTuneJobs that wait for data, quota or nodes.",
                "none",
                f"count({phase(WAITING)}) or vector(0)",
            ),
            number("GPUs held", "By pods that have a node.", "none", f"sum({HELD}) or vector(0)"),
            number(
                "Failed in a day",
                "FineTuneJobs, by the time of their end.",
                "none",
                f"count({phase('Failed')} and on ({JOB})"
                " (time() - hone_job_completion_timestamp_seconds < 86400)) or vector(0)",
            ),
            number(
                "Goodput",
                "Share of the GPU-seconds of jobs that still exist in steps that count.",
                "percentunit",
                f"sum({seconds('=', 'productive')}) / sum({seconds('=~', '.+')})",
            ),
            number(
                "Operators", "Operators that Prometheus sees.", "none", f"sum(hone_operator_build_info{{{CLUSTER}}})"
            ),
            rows(
                "Firing alerts",
                "What fires now. The name leads to its runbook, the job to its dashboard.",
                "max by (alertname, severity, cause, cluster, namespace, finetunejob, reason) ("
                'ALERTS{alertstate="firing",cause=~"user|data|platform",cluster=~"$cluster"})',
                "alertname",
                "severity",
                "cause",
                "namespace",
                "finetunejob",
                "reason",
                width=24,
                alertname=RUNBOOK,
                finetunejob=TO_JOB,
            ),
            rows(
                "All jobs",
                "Phase of each FineTuneJob, why it waits or has failed, and who can fix a failure.",
                f"{phase('.+')} * on ({JOB}) {REASON} or on ({JOB}) {phase('.+')}",
                "namespace",
                "finetunejob",
                "phase",
                "reason",
                "cause",
                width=24,
                finetunejob=TO_JOB,
            ),
        ),
        "Who holds what, and what it costs": (
            areas(
                "GPUs held, by team",
                "GPUs of pods that have a node.",
                "none",
                Query(f"sum by ({QUEUE}) ({HELD})", OF_QUEUE),
            ),
            areas(
                "Costs of an hour",
                "By the prices in prometheusRule.gpuHourPrices of the chart.",
                "none",
                Query(
                    f'sum by ({QUEUE}) (namespace_queue:hone_cost_per_hour:sum{{{NS},queue=~"$queue"}})',
                    OF_QUEUE,
                ),
            ),
            curves(
                "Activity of held GPUs",
                "Share of the time in which tensor cores work. Needs NVIDIA's DCGM exporter, scraped with honorLabels.",
                "percentunit",
                Query(
                    "avg by (cluster, namespace)"
                    " (DCGM_FI_PROF_PIPE_TENSOR_ACTIVE * on (cluster, namespace, pod) group_left ()"
                    f" max by (cluster, namespace, pod) (hone_pod_info{{{NS}}}))",
                    OF_TEAM,
                ),
            ),
            curves(
                "Useful tokens",
                "Tokens of rows rather than padding in what the GPUs compute, on average over the jobs that train.",
                "percentunit",
                Query(of_training("hone_job_useful_tokens"), OF_TEAM),
                width=12,
            ),
            curves(
                "Model FLOPs utilisation",
                "Share of the GPUs' peak, on average over the jobs that train and whose GPU has a known peak.",
                "percentunit",
                Query(of_training("hone_job_mfu"), OF_TEAM),
                width=12,
            ),
            rows(
                "GPU-hours in the chosen time",
                "By namespace and queue, counted every 5 minutes.",
                in_the_chosen_time("namespace_queue:hone_gpus_held:sum"),
                "namespace",
                "queue",
                "Value",
            ),
            rows(
                "Costs in the chosen time",
                "By namespace and queue, counted every 5 minutes.",
                in_the_chosen_time("namespace_queue:hone_cost_per_hour:sum"),
                "namespace",
                "queue",
                "Value",
            ),
        ),
        "Waiting": (
            areas(
                "Jobs that wait, by queue",
                "Without a queue, the name is empty.",
                "none",
                Query(f"count by ({QUEUE}) ({INFO} and on ({JOB}) {phase(WAITING)})", OF_QUEUE),
            ),
            curves(
                "Place in the line",
                "In the line of tenants.maxActiveJobs; 1 is the next.",
                "none",
                Query(f"max by ({JOB}) (hone_job_line_position{{{NS}}})"),
            ),
            curves(
                "Evictions",
                "How often Kueue took the quota back.",
                "none",
                Query(f"max by ({JOB}) (hone_job_evictions{{{NS}}} > 0)"),
            ),
            curves(
                "Wait until the pods are scheduled",
                "From creation to the nodes of the first attempt, over a day.",
                "s",
                *share("hone_job_queue_wait_seconds"),
                width=12,
            ),
            curves(
                "Duration of runs",
                "From the first attempt to the end, over a day.",
                "s",
                *share("hone_job_duration_seconds"),
                width=12,
            ),
        ),
        "Failures": (
            areas(
                "Ended, by result",
                "In an hour.",
                "none",
                ended("result"),
            ),
            areas(
                "Failed, by who can fix it",
                "In an hour: who wrote the job, who owns the rows, or who runs the platform.",
                "none",
                ended("cause", result="Failed"),
            ),
            areas(
                "Failed, by reason",
                "In an hour. The page Troubleshooting has each reason.",
                "none",
                ended("reason", result="Failed"),
            ),
        ),
        "Goodput": (
            curves(
                "Goodput, by queue",
                "Share of GPU-seconds in steps that count.",
                "percentunit",
                Query(
                    f"sum by ({QUEUE}) ({seconds('=', 'productive')}) / sum by ({QUEUE}) ({seconds('=~', '.+')})",
                    OF_QUEUE,
                ),
            ),
            areas(
                "Badput, by kind",
                "GPU-seconds of jobs that still exist and trained no step that counts.",
                "s",
                Query(f"sum by (kind) ({seconds('!=', 'productive')})", "{{kind}}"),
            ),
            curves(
                "GPUs before the first step",
                "GPU-seconds that attempts held before their first step.",
                "s",
                Query(f"topk(10, max by ({JOB}) (hone_job_held_seconds_before_first_step{{{NS}}}))"),
            ),
        ),
        "Data and models": (
            areas(
                "Stores, by namespace",
                "Bytes, measured at least once a day.",
                "bytes",
                Query(
                    f"sum by (cluster, namespace) (max by (cluster, namespace, content) (hone_store_bytes{{{NS}}}))",
                    "{{namespace}} {{cluster}}",
                ),
            ),
            areas(
                "Stores, by folder",
                "Bytes.",
                "bytes",
                Query(
                    f"sum by (content) (max by (cluster, namespace, content) (hone_store_bytes{{{NS}}}))", "{{content}}"
                ),
            ),
            rows(
                "Datasets that are not Ready",
                "With the reason, and who can fix a failure.",
                f"max by (cluster, namespace, dataset, reason, cause) (hone_dataset_reason{{{NS}}})"
                f" and on (cluster, namespace, dataset) (hone_dataset_ready{{{NS}}} == 0)",
                "namespace",
                "dataset",
                "reason",
                "cause",
                width=8,
            ),
            rows(
                "Rows of Datasets",
                "Valid rows of each split.",
                f"max by (cluster, namespace, dataset, split) (hone_dataset_rows{{{NS}}})",
                "cluster",
                "namespace",
                "dataset",
                "split",
                "Value",
                width=8,
            ),
            curves(
                "Not to be used",
                "Versions that are not verified or not signed; Models with an alias that points elsewhere than it "
                "should, or whose registry lags behind; servers that do not serve what an alias says.",
                "none",
                *(
                    Query(f"count(max by ({by}) ({metric}{{{NS}}}) == {bad}) or vector(0)", name)
                    for metric, by, bad, name in (
                        ("hone_modelversion_ready", "cluster, namespace, modelversion", 0, "not Ready"),
                        ("hone_modelversion_signed", "cluster, namespace, modelversion", 0, "not signed"),
                        ("hone_model_ready", "cluster, namespace, model", 0, "alias not resolved"),
                        ("hone_model_registered", "cluster, namespace, model", 0, "not registered"),
                        ("hone_serve_problem", "cluster, namespace, name", 1, "not served"),
                    )
                ),
            ),
            rows(
                "Aliases",
                "The version that each points to.",
                f"max by (cluster, namespace, model, alias, version) (hone_model_alias_info{{{NS}}})",
                "cluster",
                "namespace",
                "model",
                "alias",
                "version",
                width=8,
            ),
            rows(
                "Served",
                "What servers that follow an alias serve under its name.",
                f"max by (cluster, namespace, pod, name, version) (hone_served{{{NS}}})",
                "cluster",
                "namespace",
                "pod",
                "name",
                "version",
                width=8,
            ),
            curves(
                "Versions",
                "ModelVersions, by namespace.",
                "none",
                Query(
                    f"count by (cluster, namespace) ({once('hone_modelversion_info', 'modelversion')})",
                    "{{namespace}} {{cluster}}",
                ),
            ),
            curves(
                "Deliveries, by state",
                "Copies of models to registries, buckets and volumes.",
                "none",
                Query(
                    f"sum by (scheme, state) ({once('hone_modelversion_deliveries', 'modelversion, scheme, state')})",
                    "{{scheme}} {{state}}",
                ),
            ),
            curves(
                "Uploaded",
                "Bytes that deliveries uploaded.",
                "bytes",
                Query(
                    f"sum by (scheme) ({once('hone_modelversion_uploaded_bytes', 'modelversion, scheme')})",
                    "{{scheme}}",
                ),
            ),
            curves(
                "Imports, by state",
                "Foreign adapters and models that become versions.",
                "none",
                Query(
                    f"sum by (scheme, state) ({once('hone_model_imports', 'model, scheme, state')})",
                    "{{scheme}} {{state}}",
                ),
            ),
        ),
        "Operator": (
            curves(
                "Reconciles",
                "Successful and failed reconciles in a second.",
                "ops",
                Query(
                    "sum by (kind)"
                    f" (rate(hone_operator_reconcile_duration_seconds_count{{{CLUSTER}}}[$__rate_interval]))",
                    "{{kind}}",
                ),
                Query(
                    f"sum by (kind) (rate(hone_operator_reconcile_errors_total{{{CLUSTER}}}[$__rate_interval]))",
                    "{{kind}} failed",
                ),
            ),
            curves(
                "Time of a reconcile",
                "99 of 100 are faster. The goal is less than a second.",
                "s",
                Query(
                    "histogram_quantile(0.99, sum by (le, kind)"
                    f" (rate(hone_operator_reconcile_duration_seconds_bucket{{{CLUSTER}}}[$__rate_interval])))",
                    "{{kind}}",
                ),
            ),
            curves(
                "Queue",
                "Objects that wait to be reconciled.",
                "none",
                Query(f"max by (cluster) (hone_operator_queue_depth{{{CLUSTER}}})", "{{cluster}}"),
            ),
            curves(
                "Errors",
                "In an hour: of the API server, of the operator itself, of objects, and of watches that were silent.",
                "none",
                by_kind("hone_operator_api_errors_total", "API server {{reason}}", by="reason"),
                by_kind("hone_operator_internal_errors_total", "internal {{kind}}", by="kind"),
                by_kind("hone_operator_status_refused_total", "status refused {{kind}}", by="kind"),
                by_kind(
                    "hone_operator_unreadable_objects_total", "unreadable {{kind}} {{reason}}", by="kind", why="reason"
                ),
                by_kind("hone_operator_deaf_watches_total", "silent watch {{kind}}", by="kind"),
            ),
            curves(
                "Refused reports",
                "Connections and reports that the progress port refused, in an hour.",
                "none",
                by_kind("hone_operator_progress_refused_total", "{{reason}}", by="reason"),
            ),
            curves(
                "Memory",
                "Resident memory of the operator.",
                "bytes",
                Query(f"process_resident_memory_bytes {OPERATOR}", "{{instance}}"),
            ),
            curves(
                "Processor",
                "Cores that the operator uses.",
                "none",
                Query(
                    f"rate(process_cpu_seconds_total[$__rate_interval]) {OPERATOR}",
                    "{{instance}}",
                ),
            ),
            curves(
                "Time since the start",
                "A fall is a restart of the operator.",
                "s",
                Query(
                    f"time() - process_start_time_seconds {OPERATOR}",
                    "{{instance}}",
                ),
            ),
            curves(
                "Certificates",
                "Days until they end. They are renewed by themselves.",
                "d",
                Query(
                    "(min by (cluster, certificate)"
                    f" (hone_operator_certificate_expiry_timestamp_seconds{{{CLUSTER}}}) - time()) / 86400",
                    "{{certificate}}",
                ),
            ),
        ),
    },
)
