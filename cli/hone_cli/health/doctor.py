"""`hone doctor`: whether Hone works here for the person who asks."""

from __future__ import annotations

import json

import typer

from hone_cli.errors import CliExit, CommandError
from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption


def doctor(
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Check an installation, and say what to do.

    One line for each check: the definitions, the operator, your rights, the store, GPUs, images, the hub, Kueue,
    monitoring and admission policies. It asks with your own rights and changes nothing; what you may not read is
    unknown.

    Exit codes: 0 nothing is wrong (warnings and unknowns count as well), 7 a check failed, 1 other errors.

    \b
    hone doctor
    hone doctor -n team -o json
    """
    from hone_cli.health.checks import run
    from hone_cli.reach.kube import Kube

    kube = Kube.load(context, namespace)
    if kube.has_namespace() is False:
        raise CommandError(f"this cluster has no namespace {kube.namespace}")
    found = []
    for check in run(kube):
        found.append(check)
        if output == "text":
            typer.echo(f"{check.state:8} {check.name:12} {check.found}")
            typer.echo(f"{'':22}{check.way}" if check.way else "", nl=bool(check.way))
    if output == "json":
        typer.echo(json.dumps([check._asdict() for check in found], indent=2))
    raise typer.Exit(CliExit.UNHEALTHY if any(check.state == "failed" for check in found) else CliExit.DONE)
