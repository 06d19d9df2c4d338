"""Options that many commands have, each with one name and one sentence."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hone_cli.reach.completing import context_names, names_of

NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: the context's.")]
ContextOption = Annotated[
    str | None,
    typer.Option(help="Context of the kubeconfig; default: the current one.", autocompletion=context_names),
]
OutputOption = Annotated[
    Literal["text", "json"], typer.Option("--output", "-o", help="Form of what is printed: text or json.")
]
JobArgument = Annotated[str, typer.Argument(help="A FineTuneJob.", autocompletion=names_of("FineTuneJob"))]
PricesOption = Annotated[
    Path | None, typer.Option(envvar="HONE_PRICES", help="YAML with currency, gpuHour, spotGpuHour and coreHour.")
]


def tell(output: str, text: str, facts: Any) -> None:
    """Print the answer of a command: the text for people, or the facts as one JSON document."""
    typer.echo(json.dumps(facts, indent=2) if output == "json" else text)


def confirmed(question: str) -> bool:
    """Ask at the terminal. Nothing of it goes to standard output, which may be a file: click writes a space there."""
    with contextlib.redirect_stdout(sys.stderr):
        return typer.confirm(question)
