"""The commands of `python -m hone_dev` that concern the cluster."""

from pathlib import Path
from typing import Annotated

import typer

from hone_dev.cluster import binaries
from hone_dev.cluster import cluster as embedded
from hone_dev.cluster import images as image
from hone_dev.tools import tools as tool

cluster = typer.Typer(no_args_is_help=True, help="Real Kubernetes on this machine, without Docker.")


@cluster.command()
def up(
    addons: Annotated[
        list[str] | None, typer.Option("--with", help=f"Add {', '.join(embedded.ADDONS)}; repeatable.")
    ] = None,
) -> None:
    """Bring the cluster up, or repair it."""
    wanted = addons or []
    if unknown := sorted(set(wanted) - set(embedded.ADDONS)):
        raise typer.BadParameter(f"unknown add-on {', '.join(unknown)}; use one of: {', '.join(embedded.ADDONS)}")
    embedded.up(addons=wanted)


@cluster.command()
def down() -> None:
    """Stop it and remove everything but caches."""
    embedded.down()


@cluster.command()
def clean() -> None:
    """Remove the caches: programs, images, models."""
    embedded.clean()


@cluster.command()
def programs() -> None:
    """Compile the programs of Kubernetes, the cluster's DNS and the servers of the tests, if absent."""
    binaries.kubernetes()
    binaries.coredns()
    binaries.kueue()
    binaries.versitygw()
    for name in binaries.GO_INSTALL:
        binaries.program(name)


@cluster.command()
def status() -> None:
    """Show each component; exit code 1 if the cluster is not up."""
    for name, state in embedded.status().items():
        typer.echo(f"{name:24} {state}")
    if not embedded.is_up():
        raise typer.Exit(1)


@cluster.command()
def kubeconfig() -> None:
    """Print the path of the administrator's kubeconfig."""
    typer.echo(embedded.kubeconfig_path())


images = typer.Typer(no_args_is_help=True, help="The images of Hone.")


@images.command()
def prepare() -> None:
    """Build the images of the present sources without pushing them: no cluster is needed."""
    image.prepare()


@images.command()
def build(target: str = typer.Argument("all", help="operator, trainer, trainer-vllm, or all: the first two")) -> None:
    """Build and push what the registry lacks; print the references."""
    if target != "all" and target not in image.TARGETS:
        raise typer.BadParameter(f"choose one of: {', '.join(image.TARGETS)}, all")
    for ref in image.ensure(*(() if target == "all" else (target,))).values():
        typer.echo(ref)


def tools() -> None:
    """Make helm, kubectl, promtool and prometheus available; print their paths."""
    for name, find in tool.TOOLS.items():
        typer.echo(f"{name:12} {find()}")


def hub(
    root: Annotated[Path | None, typer.Option(help="Folder of repositories; default: SmolLM2, made if absent.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
) -> None:
    """Serve models and datasets by the Hugging Face Hub protocol, until interrupted."""
    from aiohttp import web

    from hone_dev.hub import application
    from hone_dev.models import models

    folder = root or models.hub_root()
    typer.echo(f"export HF_ENDPOINT=http://{host}:{port}")
    web.run_app(application(folder), host=host, port=port, print=None, access_log=None)


def demo(
    cluster: Annotated[str, typer.Option(help="embedded, current (kubectl's context) or kind.")] = "embedded",
) -> None:
    """From nothing to a first fine-tuned model."""
    from hone_dev.demo.command import demo as run_demo

    run_demo(cluster)


def ask(
    question: Annotated[str, typer.Argument(help="What a user would write.")],
    cluster: Annotated[str, typer.Option(help="As of the demo.")] = "embedded",
) -> None:
    """Ask the newest model of the demo; print its answer."""
    from hone_dev.demo import ask as demo_ask
    from hone_dev.demo.command import TENANT, target_of

    typer.echo(demo_ask.ask(target_of(cluster), TENANT, question))


def faults(
    only: Annotated[list[str] | None, typer.Option(help="Faults by number, e.g. O7; repeatable. Default: all.")] = None,
    sample: Annotated[bool, typer.Option(help="Only the sample that `make test` runs: minutes, not hours.")] = False,
    write: Annotated[bool, typer.Option(help="Write their rows in docs/reliability.md.")] = False,
    fresh: Annotated[bool, typer.Option(help="Forget what earlier runs saw of these files.")] = False,
) -> None:
    """Break what operator and trainer rely on, and see whether every life of a job ends the same.

    A run that was stopped goes on where it was, as long as no file was edited.
    """
    from hone_dev.campaigns import faults as matrix

    if unknown := sorted(set(only or ()) - set(matrix.FAULTS)):
        raise typer.BadParameter(f"unknown fault {', '.join(unknown)}; use {', '.join(matrix.FAULTS)}")
    if write and sample:
        raise typer.BadParameter("--write needs all cases of a fault: leave out --sample")
    if not matrix.run(only or [], sample, write, fresh):
        raise typer.Exit(1)


def life() -> None:
    """Train, sign, approve, deliver, serve, train again and roll back example 13 on real pods; check each stage."""
    from hone_dev.life import command

    command.run()


def release(
    registry: Annotated[str, typer.Option(help="Where to publish, e.g. registry.example.internal.")] = "",
    key: Annotated[Path | None, typer.Option(help="Private key (EC, PEM) that signs the files.")] = None,
) -> None:
    """Make a release in dist/VERSION. Without a registry it is a rehearsal: its own one ends with the command."""
    from hone_dev.release import command

    command.run_all(registry, key)


def audit() -> None:
    """Ask linters of others about images, chart, code, workflows and licences."""
    from hone_dev.release import audit as tools_of_others

    tools_of_others.run()
