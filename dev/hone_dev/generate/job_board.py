"""The dashboard of one FineTuneJob: what it learns, how fast, where its time goes, and what interrupted it."""

from __future__ import annotations

from hone_dev.generate.panels import Board, Query, areas, curves, logs, number, rows

JOB = 'cluster=~"$cluster",namespace=~"$namespace",finetunejob="$finetunejob"'
TRAINER = JOB
"""The same labels: those of pods come from discovery."""
OF_JOB = "cluster, namespace, finetunejob"
PHASE = f"(max by ({OF_JOB}, phase) (hone_job_phase{{{JOB}}}) == 1)"


def value(metric: str) -> str:
    """A number of the job."""
    return f"max(hone_job_{metric}{{{JOB}}})"


def curve(title: str, about: str, unit: str, **metrics: str) -> tuple[str, str, str, list[Query]]:
    """The job's own numbers, as the operator has them."""
    return title, about, unit, [Query(value(metric), name.replace("_", " ")) for name, metric in metrics.items()]


def of_ranks(metric: str, legend: str) -> Query:
    """What the trainer itself says, at every step."""
    return Query(f"max(hone_trainer_{metric}{{{TRAINER}}})", legend)


def event(counter: str) -> str:
    """There when a counter of the job grew."""
    return f"increase((max by ({OF_JOB}) ({counter}{{{JOB}}}))[5m:1m]) > 0"


BOARD = Board(
    title="Hone: one job",
    uid="hone-job",
    about="What a FineTuneJob learns, how fast, where its time goes, and what interrupted it.",
    hours=6,
    variables=(
        ("cluster", "Cluster", "label_values(hone_operator_build_info, cluster)", True),
        ("namespace", "Namespace", 'label_values(hone_job_info{cluster=~"$cluster"}, namespace)', True),
        (
            "finetunejob",
            "FineTuneJob",
            'label_values(hone_job_info{cluster=~"$cluster",namespace=~"$namespace"}, finetunejob)',
            False,
        ),
    ),
    links={
        "Fleet": "/d/hone-fleet",
        "Logs of the job": logs('{namespace=~"${namespace:regex}",pod=~"${finetunejob}-[0-9]+-.+"}'),
    },
    annotations={
        "Created": (f"time() - hone_job_created_timestamp_seconds{{{JOB}}} < 120", "blue"),
        "Started": (f"time() - hone_job_start_timestamp_seconds{{{JOB}}} < 120", "green"),
        "Ended": (f"time() - hone_job_completion_timestamp_seconds{{{JOB}}} < 120", "purple"),
        "Restart": (event("hone_job_restarts_total"), "red"),
        "Preemption": (event("hone_job_preemptions_total"), "orange"),
        "Eviction": (f"delta((max by ({OF_JOB}) (hone_job_evictions{{{JOB}}}))[5m:1m]) > 0", "yellow"),
    },
    rows={
        "State": (
            number("Progress", "Optimiser steps done, as a share of the run.", "percentunit", value("progress_ratio")),
            number("Time left", "The trainer's own estimate.", "s", value("eta_seconds")),
            number(
                "Since the last report",
                "FineTuneJobStalled fires after 15 minutes.",
                "s",
                f"time() - {value('last_progress_timestamp_seconds')}",
            ),
            number("GPUs held", "By its pods that have a node.", "none", value("gpus_held")),
            number("Goodput", "Share of its time in steps that count.", "percentunit", value("goodput_ratio")),
            number("Age", "Since it was created.", "s", f"time() - {value('created_timestamp_seconds')}"),
            rows(
                "What it is",
                "Method, base model and queue.",
                f"max by ({OF_JOB}, method, base_model, queue, gpu_product) (hone_job_info{{{JOB}}})",
                "namespace",
                "finetunejob",
                "method",
                "base_model",
                "queue",
                "gpu_product",
            ),
            rows(
                "Phase",
                "With the reason, and who can fix a failure.",
                f"{PHASE} * on ({OF_JOB}) group_left (reason, cause)"
                f" max by ({OF_JOB}, reason, cause) (hone_job_reason{{{JOB}}}) or on ({OF_JOB}) {PHASE}",
                "cluster",
                "finetunejob",
                "phase",
                "reason",
                "cause",
            ),
        ),
        "Learning": (
            curves(
                "Loss",
                "Nats per token; held out: on rows never trained on. At every step if the pods are scraped.",
                "none",
                Query(value("loss"), "training"),
                Query(value("eval_loss"), "held out"),
                of_ranks("loss", "training, each step"),
                of_ranks("eval_loss", "held out, each evaluation"),
                width=12,
            ),
            curves(
                "Gradient norm",
                "Before clipping; spikes come before divergence.",
                "none",
                Query(value("grad_norm"), "operator"),
                of_ranks("grad_norm", "each step"),
                width=6,
                log_scale=True,
            ),
            curves(
                "Learning rate",
                "After warm-up and decay.",
                "none",
                Query(value("learning_rate"), "operator"),
                of_ranks("learning_rate", "each step"),
                width=6,
            ),
            curves(
                "Steps",
                "Done, of the whole run, and those up to which a loss was measured or a checkpoint is complete.",
                "none",
                Query(value("steps"), "done"),
                Query(value("steps_target"), "of the run"),
                of_ranks("steps", "done, by the trainer"),
                of_ranks("steps_target", "of the run, by the trainer"),
                of_ranks("loss_step", "training loss"),
                of_ranks("eval_step", "held-out loss"),
                of_ranks("checkpoint_step", "checkpoint"),
                width=12,
            ),
            curves(
                "Epochs",
                "Passes over the rows.",
                "none",
                Query(value("epoch"), "operator"),
                of_ranks("epoch", "trainer"),
                width=6,
            ),
            curves(
                "Rows of the stage",
                "E.g. of an evaluation; absent in other stages.",
                "none",
                Query(value("rows"), "done"),
                Query(value("rows_target"), "of the stage"),
                of_ranks("rows", "done, by the trainer"),
                of_ranks("rows_target", "of the stage, by the trainer"),
                width=6,
            ),
        ),
        "Speed": (
            curves(
                "Tokens per second",
                "Over all ranks.",
                "cps",
                Query(value("tokens_per_second"), "operator"),
                of_ranks("tokens_per_second", "trainer"),
            ),
            curves(
                "Use of the hardware",
                "Tokens of rows rather than padding, and model FLOPs utilisation where the peak of the GPU is known.",
                "percentunit",
                Query(value("useful_tokens"), "useful tokens"),
                Query(value("mfu"), "MFU"),
                of_ranks("useful_tokens", "useful tokens, by the trainer"),
                of_ranks("mfu", "MFU, by the trainer"),
            ),
            curves(
                "Rows per second",
                "Of the stage.",
                "cps",
                Query(value("rows_per_second"), "operator"),
                of_ranks("rows_per_second", "trainer"),
            ),
            curves(
                "Slowest rank",
                "Time of its forward passes, divided by the median of the others.",
                "none",
                Query(value("slowest_rank_ratio"), "ratio"),
                of_ranks("slowest_rank_ratio", "ratio, by the trainer"),
            ),
            curves(
                "Which rank is slowest",
                "Its number.",
                "none",
                Query(value("slowest_rank"), "rank"),
                of_ranks("slowest_rank", "rank, by the trainer"),
            ),
            curves(
                "Silence",
                "Since the trainer's numbers last changed.",
                "s",
                Query(f"time() - max(hone_trainer_last_progress_timestamp_seconds{{{TRAINER}}})", "trainer"),
            ),
        ),
        "Where the time goes": (
            areas(
                "Phases of its attempts",
                "Seconds of all attempts.",
                "s",
                Query(f"max by (phase) (hone_job_attempt_phase_seconds{{{JOB}}})", "{{phase}}"),
            ),
            areas(
                "Phases of this attempt",
                "As the trainer measures them.",
                "s",
                Query(f"max by (phase) (hone_trainer_phase_seconds{{{TRAINER}}})", "{{phase}}"),
            ),
            areas(
                "Badput",
                "Seconds without a step that counts, by kind.",
                "s",
                Query(f"max by (kind) (hone_job_badput_seconds{{{JOB}}})", "{{kind}}"),
            ),
            curves(
                "Goodput over time",
                "Share of its time in steps that count.",
                "percentunit",
                Query(value("goodput_ratio"), "goodput"),
            ),
            curves(
                "Held before the first step",
                "GPU-seconds of all attempts.",
                "s",
                Query(value("held_seconds_before_first_step"), "GPU-seconds"),
            ),
            curves(
                "Interruptions",
                "Attempts that failed, attempts that were disrupted, evictions by Kueue, and its place in the line.",
                "none",
                Query(value("restarts_total"), "restarts"),
                Query(value("preemptions_total"), "preemptions"),
                Query(value("evictions"), "evictions"),
                Query(value("line_position"), "place in the line"),
            ),
        ),
        "Pods": (
            rows(
                "Ranks",
                "The pods that have a node.",
                f"max by (cluster, pod, rank, node) (hone_pod_info{{{JOB}}})",
                "pod",
                "rank",
                "node",
                width=8,
            ),
            curves(
                "Activity of its GPUs",
                "Share of the time in which tensor cores work. Needs NVIDIA's DCGM exporter, scraped with honorLabels.",
                "percentunit",
                Query(
                    "avg by (cluster, pod)"
                    " (DCGM_FI_PROF_PIPE_TENSOR_ACTIVE * on (cluster, namespace, pod) group_left ()"
                    f" max by (cluster, namespace, pod) (hone_pod_info{{{JOB}}}))",
                    "{{pod}}",
                ),
            ),
            curves(
                "Memory of its GPUs",
                "Mebibytes that are used, of the fullest GPU. Needs the DCGM exporter.",
                "mbytes",
                Query(
                    "max by (cluster, pod) (DCGM_FI_DEV_FB_USED * on (cluster, namespace, pod) group_left ()"
                    f" max by (cluster, namespace, pod) (hone_pod_info{{{JOB}}}))",
                    "{{pod}}",
                ),
            ),
            curves(
                "Memory that its first rank reserved",
                "The most GPU memory that torch has taken so far, and what was estimated before.",
                "bytes",
                Query(value("gpu_memory_bytes"), "bytes"),
                of_ranks("gpu_memory_bytes", "bytes, by the trainer"),
                Query(value("estimated_memory_bytes"), "estimated"),
            ),
            curves(
                "Memory of its pods",
                "Working set, by the kubelet's cAdvisor.",
                "bytes",
                Query(
                    "sum by (cluster, pod)"
                    ' (container_memory_working_set_bytes{container!=""} * on (cluster, namespace, pod)'
                    f" group_left () max by (cluster, namespace, pod) (hone_pod_info{{{JOB}}}))",
                    "{{pod}}",
                ),
            ),
            curves("Checkpoints", "Bytes in the store.", "bytes", of_ranks("checkpoint_bytes", "bytes")),
        ),
    },
)
