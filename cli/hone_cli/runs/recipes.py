"""`hone recipes`: which model is trained how on which GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from hone_cli.errors import CommandError
from hone_cli.reach.options import OutputOption


def recipes(
    model: Annotated[str, typer.Argument(help="A part of the name of a base model, e.g. llama; default: all.")] = "",
    gpu: Annotated[str, typer.Option(help="A part of a GPU's name, e.g. L4; default: all.")] = "",
    length: Annotated[int, typer.Option(min=1, help="Tokens of the longest row.")] = 2048,
    output: OutputOption = "text",
) -> None:
    """List which model is trained how on which GPU.

    For each known model and GPU it names the first of LoRA, LoRA with gradient checkpointing, and QLoRA that fits on
    one GPU, as `hone init` chooses. Memory is estimated, by the formulas that the operator uses; none of it was
    measured on a GPU, and each line says so.

    \b
    hone recipes
    hone recipes llama --gpu L4
    """
    found = list(table(model, gpu, length))
    if not found:
        raise CommandError("no model and GPU of the table has such a name: hone recipes lists all")
    if output == "json":
        typer.echo(json.dumps(found, indent=2))
        return
    for each in found:
        way = f"{each['adapter']}{', gradientCheckpointing' if each['gradientCheckpointing'] else ''}"
        typer.echo(f"{each['model']:40} {each['gpu']:24} {way if each['fits'] else 'does not fit':28} {each['basis']}")
    typer.echo("\nA manifest: hone init FILE --model MODEL --gpu GPU", err=True)


def table(model: str, gpu: str, length: int) -> Iterator[dict[str, Any]]:
    """A row for each pair."""
    from hone_api.estimate.gpus import TABLE
    from hone_api.estimate.known_models import MODELS
    from hone_cli.rows.init import ManifestRequest, choose

    for name in MODELS:
        for card in TABLE:
            if model.lower() in name.lower() and gpu.lower() in card.name.lower():
                choice = choose(ManifestRequest("rows", "", f"hf://{name}", 1, card.name), "SFT", length)
                yield {
                    "model": name,
                    "gpu": card.name,
                    "fits": choice.fits,
                    "adapter": choice.adapter,
                    "gradientCheckpointing": choice.checkpointing,
                    "length": length,
                    "basis": "estimated",
                }
