"""`hone compare`: runs next to each other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hone_api.words.states import JobPhase
from hone_cli.errors import CommandError
from hone_cli.reach.completing import names_of
from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption
from hone_cli.runs.view import curves, spark

if TYPE_CHECKING:
    from hone_cli.reach.objects import Objects

_WIDTH = 24
"""Columns of a curve."""


def compare(
    jobs: Annotated[
        list[str], typer.Argument(help="Two or more FineTuneJobs.", autocompletion=names_of("FineTuneJob"))
    ],
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Compare runs: settings that differ, curves, numbers.

    Numbers are those of the held-out rows, with their 95 % intervals. Runs whose rows differ are compared all the same,
    and the digests of the rows are among the settings.
    """
    from hone_cli.reach.kube import Kube
    from hone_cli.reach.objects import Objects

    bodies, table = looked_up(Objects(Kube.load(context, namespace)), jobs)
    if output == "json":
        typer.echo(json.dumps(table, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False)
    for name in ("", *(body["metadata"]["name"] for body in bodies)):
        shown.add_column(Text(name), overflow="fold")
    for part, rows in table.items():
        shown.add_row(Text(part.upper(), style="bold"))
        for name, cells in rows.items():
            shown.add_row(*(Text(cell or "-") for cell in (name, *cells)))
    Console().print(shown)


def looked_up(objects: Objects, jobs: Iterable[str]) -> tuple[list[dict[str, Any]], dict[str, dict[str, list[Any]]]]:
    """The runs of these names, each once, and their comparison.

    Raises:
        CommandError: there are fewer than two, or one does not exist.
    """
    names = dict.fromkeys(jobs)
    if len(names) < 2:
        raise CommandError("name at least two runs: hone list shows them")
    bodies = [objects.get("FineTuneJob", name) for name in names]
    versions = [objects.find("ModelVersion", name) if (name := _version(body)) else None for body in bodies]
    return bodies, compared(bodies, versions)


def compared(bodies: list[dict[str, Any]], versions: list[dict[str, Any] | None]) -> dict[str, dict[str, list[Any]]]:
    """Rows by part: a name, and a cell of each run; None where a run has none.

    Args:
        versions: the ModelVersion of each run, as far as there is one.
    """
    settings = [dict(_flat(body["spec"])) | _digests(body) for body in bodies]
    numbers = [dict(_numbers(version)) for version in versions]
    drawn = [
        {
            name: f"{spark(points, _WIDTH)} {points[-1][1]:.4g}".lstrip()
            for name, points in curves(body).items()
            if points
        }
        for body in bodies
    ]
    states = [{"state": (body.get("status") or {}).get("phase") or JobPhase.PENDING} for body in bodies]
    parts = {"run": states, "settings that differ": settings, "curves": drawn, "held-out rows": numbers}
    out = {part: _rows(columns) for part, columns in parts.items()}
    differing = out["settings that differ"]
    out["settings that differ"] = {name: cells for name, cells in differing.items() if len(set(cells)) > 1}
    return out


def _rows(columns: list[dict[str, str]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}


def _version(body: Mapping[str, Any]) -> str | None:
    return (body.get("status") or {}).get("modelVersionName")


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each leaf of a spec with its path; a name says which entry of a list it is."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            key = inner.get("name", number) if isinstance(inner, dict) else number
            yield from _flat(inner, f"{path}[{key}]")
    elif path != "suspend":
        yield path, value if isinstance(value, str) else json.dumps(value)


def _digests(body: Mapping[str, Any]) -> dict[str, str]:
    resolved = (body.get("status") or {}).get("resolved") or {}
    return {f"rows of {name}": text[7:19] for name, text in (resolved.get("datasetDigests") or {}).items()}


def _numbers(version: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    for each in ((version or {}).get("spec") or {}).get("evaluation", {}).get("numbers") or ():
        place = f" ({each['dataset']})" if each.get("dataset") else ""
        interval = f" [{each['low']}, {each['high']}]" if each.get("low") and each.get("high") else ""
        base = f", base {each['base']}" if each.get("base") else ""
        yield f"{each['name']}{place}", f"{each['tuned']}{interval}{base}"
