"""Options that many commands have, each with one name and one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hone_cli.reach.completing import context_names, names_of

NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: the context's.")]
ContextOption = Annotated[
    str | None,
    typer.Option(help="Context of the kubeconfig; default: the current one.", autocompletion=context_names),
]
JobArgument = Annotated[str, typer.Argument(help="A FineTuneJob.", autocompletion=names_of("FineTuneJob"))]
PricesOption = Annotated[
    Path | None, typer.Option(envvar="HONE_PRICES", help="YAML with currency, gpuHour, spotGpuHour and coreHour.")
]
