"""`hone dataset`: work of people on the data."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer

from hone_api.dataset.synthesis import SyntheticRows
from hone_cli.errors import CommandError
from hone_cli.reach import pod
from hone_cli.reach.completing import names_of
from hone_cli.reach.options import ContextOption, NamespaceOption
from hone_cli.review import folder
from hone_cli.review.reviews import Reviews, words

app = typer.Typer(no_args_is_help=True, help="Review the rows that a model generated.")
_IDLE_SECONDS = 2 * 3600.0
"""Seconds after which an unused review pod ends by itself."""


@app.command()
def review(
    name: Annotated[str, typer.Argument(help="Dataset whose generated rows wait.", autocompletion=names_of("Dataset"))],
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    path: Annotated[Path | None, typer.Option(help="A store or batch in a local folder; no cluster is asked.")] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve a page on loopback instead of the terminal.")] = False,
    port: Annotated[int, typer.Option(help="Port of the page; default: a free one.")] = 0,
    reviewer: Annotated[
        str | None, typer.Option(help="Your name in the decisions; in a cluster your user name is added.")
    ] = None,
    row: Annotated[str | None, typer.Option(help="Begin with this row, also one that was decided on.")] = None,
) -> None:
    """Accept, edit or reject the rows of a Dataset that a model generated.

    \b
    Keys:  a accept   e edit   r reject   s skip   u undo   c next conflict   q quit
    Each decision is saved at once; you or another person can continue later.

    \b
    hone dataset review answers                   in the terminal, as your kubeconfig
    hone dataset review answers --web             on a page of your own browser
    hone dataset review answers --path ./store    without a cluster
    """
    if path is not None:
        reviews = folder.Folder(folder.find(path, name), reviewer or getpass.getuser())
        counts = _on_a_page(reviews, port) if web else _in_terminal(reviews, row)
        _print_counts(counts)
        return
    from hone_cli.review import cluster

    with cluster.session(name, namespace, context, reviewer, port) as session:
        if web:
            session.wait_for_page()
        else:
            _in_terminal(session.reviews, row)
        _print_counts(session.finish())


@app.command("serve-review", hidden=True)
def serve_review(batch: Path) -> None:
    """Run in the review pod; the token's digest and the reviewer come from its environment."""
    from hone_cli import local
    from hone_cli.review import server

    try:
        token_digest, reviewer = os.environ[pod.DIGEST_ENV], os.environ[pod.REVIEWER_ENV]
    except KeyError as error:
        raise CommandError(f"{error} is not set: the hone that started this pod is older than the image") from None
    reviews = folder.Folder(batch, reviewer)
    reviews.state()  # report what is wrong with the batch before serving it
    local.serve_in_pod(lambda asked: server.application(reviews, token_digest, asked), pod.PORT, _IDLE_SECONDS)


def _on_a_page(reviews: Reviews, port: int) -> SyntheticRows:
    """Serve the page on loopback until Ctrl-C or SIGTERM; returns the final counts."""
    from hone_cli import local  # a terminal needs no server
    from hone_cli.review import server

    reviews.state()  # errors are reported first
    local.serve_page(lambda token_digest: server.application(reviews, token_digest), port, local.REVIEW)
    return reviews.state().counts


def _in_terminal(reviews: Reviews, row: str | None) -> SyntheticRows | None:
    from hone_cli.review.terminal import Terminal

    reviews.state(row=row)  # errors are printed before the screen changes
    return Terminal(reviews, row).run()


def _print_counts(counts: SyntheticRows | None) -> None:
    if counts is None:
        return
    typer.echo(words(counts))
    if counts.complete:
        typer.echo("The review is complete.")
    elif not counts.pending:
        typer.echo(
            f"Every row is decided on, and fewer are accepted than wanted ({counts.wanted}): raise synthesis.rows."
        )
