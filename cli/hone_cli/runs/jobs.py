"""`hone list`, `suspend`, `resume` and `cancel`: the runs of a namespace."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from hone_api.words.states import JobPhase
from hone_cli.errors import CliExit, CommandError, printable
from hone_cli.reach.kube import Kube
from hone_cli.reach.objects import Objects
from hone_cli.reach.options import ContextOption, JobArgument, NamespaceOption, OutputOption, confirmed, tell
from hone_cli.runs.view import gpu_hours, is_over, model_of, view


def list_jobs(
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """List the runs of a namespace.

    The newest comes first. GPU-hours are those that its attempts held so far.
    """
    objects = Objects(Kube.load(context, namespace))
    rows = [row_of(job) for job in newest_first(objects)]
    if output == "json":
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows and objects.kube.has_namespace() is False:
        raise CommandError(f"this cluster has no namespace {objects.kube.namespace}")
    if not rows:
        typer.echo(f"namespace {objects.kube.namespace} has no run: hone run FILE starts one", err=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    columns = {
        "name": "NAME",
        "state": "STATE",
        "progress": "PROGRESS",
        "gpuHours": "GPU-HOURS",
        "model": "MODEL",
        "age": "AGE",
    }
    for head in columns.values():
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(row[key] for key in columns))
    console = Console()
    # Programs that read the lines want one for each run.
    console.print(table, markup=False, width=None if console.is_terminal else 1000)


def newest_first(objects: Objects) -> list[dict[str, Any]]:
    """The runs of the namespace."""
    return sorted(objects.list("FineTuneJob"), key=lambda job: job["metadata"]["creationTimestamp"], reverse=True)


def suspend(
    job: JobArgument,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Stop a run for a while, with a checkpoint.

    It saves a checkpoint and releases its GPUs. `hone resume` lets it go on from there.
    """
    objects = Objects(Kube.load(context, namespace))
    set_suspend(objects, job, suspended=True)
    words = f"{job} saves a checkpoint and stops. hone resume {job}{objects.kube.options} lets it go on."
    tell(output, words, {"name": job, "suspended": True})


def resume(
    job: JobArgument,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Let a suspended run go on.

    It continues from its last checkpoint.
    """
    objects = Objects(Kube.load(context, namespace))
    set_suspend(objects, job, suspended=False)
    words = f"{job} goes on. Watch it: hone watch {job}{objects.kube.options}"
    tell(output, words, {"name": job, "suspended": False})


def cancel(
    job: JobArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Cancel without asking.")] = False,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """End a run for good.

    It deletes the FineTuneJob: its pods end, and its checkpoints are removed some time later. Rows, models and versions
    stay. To continue later, use `hone suspend`.
    """
    objects = Objects(Kube.load(context, namespace))
    body = unfinished(objects, job)
    if not yes and not sys.stdin.isatty():
        raise CommandError("nobody can be asked here, and nothing was cancelled: add --yes")
    if not yes and not confirmed(f"End {job} ({printable(view(body).line())}) for good?"):
        typer.echo("Nothing was cancelled.", err=True)
        raise typer.Exit(CliExit.FAILED)
    objects.delete("FineTuneJob", job, body["metadata"]["uid"])
    tell(output, f"{job} is cancelled.", {"name": job, "cancelled": True})


def set_suspend(objects: Objects, name: str, *, suspended: bool) -> None:
    """Stop a run that is not over, or let it go on."""
    unfinished(objects, name)
    objects.merge("FineTuneJob", name, {"spec": {"suspend": suspended}})


def unfinished(objects: Objects, name: str) -> dict[str, Any]:
    """The job.

    Raises:
        CommandError: there is none, or it is over.
    """
    job = objects.get("FineTuneJob", name)
    if is_over(job):
        phase = (job.get("status") or {}).get("phase", "over")
        raise CommandError(f"{name} is {phase}: it has nothing to stop or continue; hone list shows what runs")
    return job


UNKNOWN_FORM = "in a form that this release of hone does not know"


def row_of(job: dict[str, Any]) -> dict[str, str]:
    """What the list says about a run; one that cannot be read does not hide the others."""
    try:
        return _row(job)
    except (AttributeError, LookupError, TypeError, ValueError):
        empty = dict.fromkeys(("progress", "gpuHours", "model", "age"), "")
        return {"name": job["metadata"]["name"], "state": UNKNOWN_FORM, **empty}


def _row(job: dict[str, Any]) -> dict[str, str]:
    status = job.get("status") or {}
    state = " ".join(filter(None, [status.get("phase") or JobPhase.PENDING, status.get("reason")]))
    now = "" if is_over(job) else view(job).line()
    created, hours = datetime.fromisoformat(job["metadata"]["creationTimestamp"]), gpu_hours(job)
    return {
        "name": job["metadata"]["name"],
        "state": printable(state),
        "progress": printable((status.get("progress") or {}).get("summary") or now)[:60],
        "gpuHours": "" if hours is None else f"{hours:.1f}",
        "model": status.get("modelVersionName") or model_of(job),
        "age": _age((datetime.now(UTC) - created).total_seconds()),
    }


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"
