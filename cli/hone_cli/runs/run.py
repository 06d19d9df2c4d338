"""`hone run`: from manifests to the end of the run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hone_cli.errors import CliExit, CommandError
from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption, PricesOption, confirmed, tell

if TYPE_CHECKING:
    from hone_cli.reach.objects import Objects


def run(
    files: Annotated[list[Path], typer.Argument(help="Manifests; - reads standard input.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply without asking.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not watch the run.")] = False,
    prices: PricesOption = None,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Plan, ask, apply, and watch.

    It prints what `hone plan` prints. If nothing is refused and every job fits, it asks once, applies the objects by
    server-side apply, and shows the run until it ends, several one after the other. Ctrl-C ends the watching; the run
    goes on. With -o json, all of this is on standard error, and one document on standard output: the plan, whether it
    was applied, and how each run ended.

    Exit codes: 0 each model is there, or with --detach all is applied, 3 an object is refused, 4 a job does not fit or
    needs more than its budget, 5 a run failed, 1 other errors.

    \b
    hone run support.yaml
    hone run support.yaml --yes --detach      in a script
    """
    from hone_api.base.wording import visible
    from hone_cli.reach.kube import Kube
    from hone_cli.reach.objects import Objects
    from hone_cli.runs import manifests, planning
    from hone_cli.runs.plan import lines
    from hone_cli.runs.prices import read
    from hone_cli.runs.watch import INTERRUPTED, end_of, follow

    def answer(*, applied: bool, ends: Sequence[Mapping[str, Any]] = ()) -> None:
        if as_json:
            tell(output, "", {"plan": planned.model_dump(mode="json", by_alias=True), "applied": applied, "runs": ends})

    as_json = output == "json"
    objects = Objects(Kube.load(context, namespace))
    bodies = manifests.read(files, objects.kube.namespace)
    planned = planning.plan(bodies, objects, read(prices), spot=False)
    typer.echo(visible("\n".join(lines(planned))), err=as_json)
    if planned.exit_code:
        answer(applied=False)
        typer.echo("Nothing was applied.", err=True)
        raise typer.Exit(planned.exit_code)
    if not yes and not sys.stdin.isatty():
        raise CommandError("nobody can be asked here, and nothing was applied: add --yes")
    if not yes and not confirmed(f"\nApply to namespace {objects.kube.namespace}?"):
        typer.echo("Nothing was applied.", err=True)
        raise typer.Exit(CliExit.FAILED)
    apply(objects, bodies)
    jobs = [body["metadata"]["name"] for body in bodies if body["kind"] == "FineTuneJob"]
    if detach or not jobs:
        watch = (f"Watch it: hone watch {job}{objects.kube.options}" for job in jobs)
        typer.echo("\n".join(["Applied.", *watch]), err=as_json)
        answer(applied=True)
        return
    codes: list[int] = []
    for job in jobs:  # all of them run; each is shown until it ends
        codes.append(follow(objects, job, to_stderr=as_json))
        if codes[-1] == INTERRUPTED:
            break
    answer(applied=True, ends=[end_of(objects, job, code) for job, code in zip(jobs, codes, strict=False)])
    raise typer.Exit(max(codes))


def apply(objects: Objects, bodies: Sequence[Mapping[str, Any]]) -> None:
    """Apply all of them, in this order.

    Raises:
        CommandError: one is refused; those before it are named.
    """
    from hone_cli.reach import rights
    from hone_cli.reach.objects import KINDS

    rights.require(objects.kube, *(("patch", KINDS[body["kind"]][2]) for body in bodies))
    done: list[str] = []
    for body in bodies:
        try:
            objects.apply(body)
        except CommandError as error:
            applied = f"applied before: {', '.join(done)}" if done else "nothing was applied"
            raise CommandError(f"{error} ({applied})") from None
        done.append(f"{body['kind']} {body['metadata']['name']}")
