"""`hone`: the command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from hone_api import RELEASE
from hone_cli.errors import CommandError, printable

_HELP = """Review data, and approve, download, ask and serve trained models. For everything else, use kubectl.

\b
kubectl get dset                  which Datasets wait for a review
hone dataset review NAME          decide on the rows that a model generated
hone download MODEL FOLDER        copy a trained model out of the cluster
hone chat MODEL                   ask a model and its base, side by side
hone models                       show models as trees, from rows to aliases
hone approve MODEL:VERSION        approve a version, after its gates
hone reject MODEL:VERSION         reject it: nothing uses it any more
hone retrain MODEL                train a model again on its new rows
hone serve MODEL...               print the manifests of a server for models
"""
_COMMANDS = {
    "dataset": ("dataset", "app"),
    "download": ("download", "download"),
    "chat": ("chat", "chat"),
    "serve-chat": ("chat", "serve_chat"),
    "serve": ("serve", "serve"),
    "models": ("lineage", "models"),
    "approve": ("approve", "approve"),
    "reject": ("approve", "reject"),
    "retrain": ("retrain", "retrain"),
    "serve-files": ("download", "serve_files"),
}
"""Module of this package, and the function or group of commands in it."""
_OF_PODS = ("serve-chat", "serve-files")
"""What the pods of `hone` run, and nobody types."""


def application(names: Iterable[str] = tuple(_COMMANDS)) -> typer.Typer:
    """`hone` with these commands.

    What all commands import takes most of the time in which `hone` starts: each module is imported if it is needed.
    """
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback(help=_HELP)(_options)
    for name in names:
        module, member = _COMMANDS[name]
        command = getattr(import_module(f"hone_cli.{module}"), member)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, hidden=name in _OF_PODS)(command)
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


def main() -> None:
    """Run one command; an error is printed on one line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # clean-up code runs
    try:
        # Of any other first word, help and errors name all commands.
        named = [word for word in sys.argv[1:2] if word in _COMMANDS]
        application(named or _COMMANDS)(prog_name="hone")
    except CommandError as error:
        print(f"hone: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
