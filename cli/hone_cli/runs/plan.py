"""`hone plan`: what manifests would do, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption, PricesOption

if TYPE_CHECKING:
    from hone_cli.runs.planning import ApplyPlan, NumberRange, PlannedJob

_ACTIONS = {"create": "is new", "change": "changes", "keep": "stays", "refused": "is refused"}


def plan(
    files: Annotated[list[Path], typer.Argument(help="Manifests; - reads standard input.")],
    prices: PricesOption = None,
    spot: Annotated[bool, typer.Option("--spot", help="Use the prices of spotGpuHour.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no cluster.")] = False,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Say what manifests would do, need and cost; nothing is changed.

    The API server checks all objects (a dry run with your own rights), and Hone adds what it knows: what a job would
    wait for, the memory of a rank, the time of the training steps, GPU-hours, the price, and the disk. Time, and so
    the price, is a range: it comes from operations and the share of a GPU's peak that published runs reach, without
    queue, staging and evaluation.

    Exit codes: 0 all is well, 3 an object is refused, 4 a job does not fit, or needs more than
    its budget, 1 other errors.

    \b
    hone plan support.yaml
    hone plan support.yaml --prices prices.yaml -o json
    hone plan support.yaml --offline          without a cluster
    """
    from hone_api.base.wording import visible
    from hone_cli.runs import manifests, planning
    from hone_cli.runs.prices import read

    table = read(prices)
    if offline:
        objects, bodies = None, manifests.read(files, namespace or "default")
    else:
        from hone_cli.reach.kube import Kube
        from hone_cli.reach.objects import Objects

        objects = Objects(Kube.load(context, namespace, "Set KUBECONFIG, name a --context, or use --offline."))
        bodies = manifests.read(files, objects.kube.namespace)
    planned = planning.plan(bodies, objects, table, spot=spot)
    text = visible("\n".join(lines(planned))) if output == "text" else planned.model_dump_json(by_alias=True, indent=2)
    typer.echo(text)
    raise typer.Exit(planned.exit_code)


def lines(planned: ApplyPlan) -> Iterator[str]:
    """The plan for people."""
    from hone_cli.errors import printable

    for each in planned.objects:
        yield f"{each.kind} {each.name} {_ACTIONS[each.action]}"
        yield from (f"  refused: {printable(words)}" for words in each.problems)
        yield from (f"  {printable(words)}" for words in each.warnings)
    for job in planned.jobs:
        way = "of all weights" if job.adapter == "None" else f"by {job.adapter}"
        yield f"\n{job.name}: {job.method} {way} on {job.model}"
        yield from (f"  {name:9} {words}" for name, words in _needs(job))
        yield from (f"  now       {printable(words)}" for words in job.now)
        yield from (f"  serve     {words}" for words in job.servable)
        yield from (f"  advice    {words}" for words in job.advice)


def _needs(job: PlannedJob) -> Iterator[tuple[str, str]]:
    from hone_api.base.wording import counted
    from hone_api.estimate.memory import gib

    if job.tokens:
        yield "rows", f"{job.rows:,} to train on, about {job.tokens:,} tokens in all epochs"
    else:
        yield "rows", "not counted yet: hone check FILE"
    if job.memory_bytes is None:
        yield "memory", "known once the model is staged: it is not one of the models that Hone knows without"
        return
    room = f" of {gib(job.room_bytes)}" if job.room_bytes else ""
    unknown = "with rows of up to 2,048 tokens" if job.room_bytes else "resources.gpuProducts names no GPU of the table"
    fits = {True: "fits", False: "does NOT fit", None: unknown}
    yield "memory", f"{gib(job.memory_bytes)}{room} on {job.device}: {fits[job.fits]}"
    if job.misfit:
        yield "", job.misfit
    if job.seconds:
        on = counted(job.ranks, "GPU") if job.gpu_hours else "CPUs"
        yield "time", f"{_duration(job.seconds.low)} to {_duration(job.seconds.high)} of training on {on}"
    if job.gpu_hours:
        yield "GPU-hours", _span(job.gpu_hours)
    if job.budget_gpu_hours is not None:
        yield "budget", f"{job.budget_gpu_hours:g} GPU-hours: {_budget(job)}"
    if job.price:
        yield "price", f"{_span(job.price)} {job.currency}"
    elif job.seconds:
        yield "price", "unknown: name a table that has it by --prices"
    if job.disk_bytes:
        parts = ", ".join(f"{name} {gib(size)}" for name, size in job.disk_bytes.items())
        yield "disk", f"{gib(sum(job.disk_bytes.values()))} in the store: {parts}"


def _budget(job: PlannedJob) -> str:
    if job.gpu_hours is None or job.budget_gpu_hours is None:
        return "the run stops once they are used"
    if job.over_budget:
        return "NOT enough even for the shortest likely time; raise spec.budget, or train less"
    return "enough" if job.gpu_hours.high <= job.budget_gpu_hours else "the run may need more, and then stops"


def _span(span: NumberRange) -> str:
    return f"{span.low:.2g} to {span.high:.2g}"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
