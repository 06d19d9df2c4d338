"""`hone`: the command line."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, NamedTuple

import typer

from hone_api import RELEASE
from hone_cli.errors import CliExit, CommandError, printable


class Command(NamedTuple):
    """Where a command is."""

    module: str
    """Of this package."""
    member: str
    """Its function, or its group of commands."""
    short: str = ""
    """The first sentence of its help: to print all of them, none needs to be imported."""


_HELP = """From a file of rows to a tuned model on your cluster, and to its answers.

\b
hone check FILE            what Hone makes of rows, before an upload
hone init FILE             write a manifest for them
hone upload FILE NAME      copy them into the cluster
hone run FILE...           plan, ask, apply, watch until the model is there
hone list, watch, logs     what runs, how far it is, what it says
hone suspend, resume, cancel
hone sweep FILE...         try settings of a run, and print those to keep
hone chat MODEL            ask a model and its base, side by side
hone download MODEL DIR    copy a trained model out of the cluster
hone serve MODEL...        print the manifests of a server for models
hone approve MODEL:VERSION approve a version, after its gates
"""
_COMMANDS = {
    "check": Command("rows.check", "check", "Look at rows before anything is uploaded."),
    "init": Command("rows.init", "init", "Write a manifest for the rows of a file."),
    "convert": Command("convert.command", "convert", "Print a manifest for the configuration of another tool."),
    "migrate": Command("convert.migrate", "app", "Leave a hosted model: rows, manifest, and a proof of parity."),
    "recipes": Command("runs.recipes", "recipes", "List which model is trained how on which GPU."),
    "upload": Command("rows.upload", "upload", "Upload a file with rows into the cluster."),
    "plan": Command("runs.plan", "plan", "Say what manifests would do, need and cost; nothing is changed."),
    "run": Command("runs.run", "run", "Plan, ask, apply, and watch."),
    "watch": Command("runs.watch", "watch", "Watch a run until it ends."),
    "list": Command("runs.jobs", "list_jobs", "List the runs of a namespace."),
    "logs": Command("runs.logs", "logs", "Print what a run logs."),
    "suspend": Command("runs.jobs", "suspend", "Stop a run for a while, with a checkpoint."),
    "resume": Command("runs.jobs", "resume", "Let a suspended run go on."),
    "cancel": Command("runs.jobs", "cancel", "End a run for good."),
    "compare": Command("runs.compare", "compare", "Compare runs: settings that differ, curves, numbers."),
    "sweep": Command("runs.sweep", "sweep", "Try settings of a job, and print the manifest to keep."),
    "usage": Command("runs.usage", "usage", "Report GPU-hours, costs and goodput of a month by team."),
    "explain": Command("runs.explain", "explain", "Explain a failure code, or a reason of a status."),
    "doctor": Command("health.doctor", "doctor", "Check an installation, and say what to do."),
    "bundle": Command("health.bundle", "bundle", "Pack what others need to help with a run; no Secret."),
    "mcp": Command("clients.agents", "mcp", "Serve tools for agents by the Model Context Protocol."),
    "ui": Command("clients.console", "ui", "Serve a page with runs, rows and models on this machine."),
    "dataset": Command("review.dataset", "app", "Review the rows that a model generated."),
    "download": Command("download", "download", "Copy the files of a model out of the cluster."),
    "report": Command("download", "report", "Copy the report page of a version, without its weights."),
    "chat": Command("chat", "chat", "Converse with a trained model and its base, side by side."),
    "serve-chat": Command("chat", "serve_chat"),
    "serve": Command("serve", "serve", "Print the manifests of a server for models."),
    "mirror": Command("runs.mirror", "mirror", "Print the commands that fill a closed network."),
    "models": Command("lineage", "models", "Show models as trees: rows, job, version, alias."),
    "approve": Command("approve", "approve", "Approve a version of a model, after its gates."),
    "reject": Command("approve", "reject", "Reject a version of a model."),
    "retrain": Command("retrain", "retrain", "Train a model again as soon as a row has changed, however few."),
    "serve-files": Command("download", "serve_files"),
    "serve-upload": Command("rows.upload", "serve_upload"),
}
_OF_PODS = ("serve-chat", "serve-files", "serve-upload")
"""What the pods of `hone` run, and nobody types."""


def application(names: Iterable[str] = tuple(_COMMANDS)) -> typer.Typer:
    """`hone` with these commands.

    What all commands import takes most of the time in which `hone` starts: each module is imported if it is needed.
    """
    app = _empty()
    for name in names:
        module, member, _ = _COMMANDS[name]
        command = getattr(import_module(f"hone_cli.{module}"), member)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, hidden=name in _OF_PODS)(command)
    return app


def listing() -> typer.Typer:
    """`hone` for its own help and for words that are not commands: nothing of a command is imported but its name."""
    app = _empty()
    for name, command in _COMMANDS.items():
        app.command(name, hidden=name in _OF_PODS, help=command.short)(lambda: None)
    return app


def _empty() -> typer.Typer:
    width = max(24, min(shutil.get_terminal_size().columns, 80) - 2)  # click's own least is 50 columns
    settings = {"help_option_names": ["-h", "--help"], "terminal_width": width}
    app = typer.Typer(
        no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, context_settings=settings
    )
    app.callback(help=_HELP)(_options)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hone {RELEASE}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the release of Hone and exit."),
    ] = False,
) -> None:
    """Options without a command."""


def _completed() -> list[str]:
    """The command line that a shell completes."""
    return (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")).split()


def main() -> None:
    """Run one command; an error is printed on one line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # clean-up code runs
    try:
        words = _completed() if "_HONE_COMPLETE" in os.environ else sys.argv
        named = [word for word in words[1:2] if word in _COMMANDS]
        (application(named) if named else listing())(prog_name="hone")
    except CommandError as error:
        print(f"hone: {printable(str(error))}", file=sys.stderr)
        sys.exit(CliExit.FAILED)
    except OSError as error:  # such as a full disk behind stdout, which is not flushed again
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        print(f"hone: {printable(what)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(CliExit.FAILED)


if __name__ == "__main__":
    main()
