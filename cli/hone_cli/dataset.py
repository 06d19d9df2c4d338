"""`hone dataset`: what people do to the data."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from hone_api.synthesis import SyntheticRows
from hone_cli import folder, local
from hone_cli.reviews import ReviewError, Reviews

app = typer.Typer(no_args_is_help=True, help="Data: review generated rows.")


@app.command()
def review(
    name: Annotated[str, typer.Argument(help="Dataset whose generated rows wait.")],
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Default: the context's.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig; default: the current one.")] = None,
    path: Annotated[Path | None, typer.Option(help="A store or batch in a local folder; no cluster is asked.")] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve a page on loopback instead of the terminal.")] = False,
    port: Annotated[int, typer.Option(help="Port of the page; default: a free one.")] = 0,
    reviewer: Annotated[str | None, typer.Option(help="Your name in the decisions; default: your user.")] = None,
    row: Annotated[str | None, typer.Option(help="Begin with this row, also one that was decided on.")] = None,
) -> None:
    """Accept, edit or reject the rows of a Dataset that a model generated."""
    if path is not None:
        reviews = folder.Folder(folder.find(path, name), reviewer or getpass.getuser())
        counts = local.serve(reviews, port) if web else _in_terminal(reviews, row)
        _tell(counts)
        return
    raise ReviewError("name the store in --path")


def _in_terminal(reviews: Reviews, row: str | None) -> SyntheticRows | None:
    from hone_cli.terminal import Terminal

    reviews.state(row=row)  # what is wrong is said before the screen is taken
    return Terminal(reviews, row).run()


def _tell(counts: SyntheticRows | None) -> None:
    if counts is None:
        return
    from hone_cli.terminal import words

    typer.echo(words(counts))
    if counts.complete:
        typer.echo("The review is complete.")
    elif not counts.pending:
        typer.echo(
            f"Every row is decided on, and fewer are accepted than wanted ({counts.wanted}): raise synthesis.rows."
        )
