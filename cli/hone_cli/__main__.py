"""`hone`: the command line."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from hone_api import RELEASE
from hone_cli import approve, chat, dataset, download, lineage, retrain, serve
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
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(dataset.app, name="dataset")
app.command()(download.download)
app.command()(chat.chat)
app.command("serve-chat", hidden=True)(chat.serve_chat)
app.command()(serve.serve)
app.command()(lineage.models)
app.command()(approve.approve)
app.command()(approve.reject)
app.command()(retrain.retrain)
app.command("serve-files", hidden=True)(download.serve_files)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hone {RELEASE}")
        raise typer.Exit


@app.callback(help=_HELP)
def options(
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
        app(prog_name="hone")
    except CommandError as error:
        print(f"hone: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
