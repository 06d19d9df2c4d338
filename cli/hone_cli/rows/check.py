"""`hone check`: the data check of the trainer, in a process of its own, since the command line imports no trainer."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from hone_cli.errors import CommandError
from hone_cli.reach.options import OutputOption

_NEEDED = ("duckdb", "jinja2", "jmespath", "py3langid", "pyarrow", "re2", "rensa")
"""Packages of the extra `data`, by the names of their modules."""
_CHECK = (sys.executable, "-m", "hone_trainer", "validate")


def check(
    sources: Annotated[
        list[str], typer.Argument(help="Files, one folder, globs, or one https://, hf:// or s3:// address.")
    ],
    column: Annotated[
        list[str] | None, typer.Option(help="A column and its role, e.g. prompt=question; may be repeated.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="Format of the rows, e.g. Chat or Preference.")] = "Auto",
    dataset: Annotated[Path | None, typer.Option(help="Manifest of a Dataset whose settings are used.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="An evaluation set whose rows are removed; may be repeated.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the whole report as a page.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the rows by split, and the rejected ones.")] = None,
    output: OutputOption = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as -o json.")] = False,
) -> None:
    """Look at rows before anything is uploaded.

    It prints their format, splits and lengths, and each kind of rejected row with what to do. Nothing leaves this
    machine, and torch is not needed. The exit codes are those of the trainer, e.g. 65 for rows that cannot be used.
    `python -m hone_trainer validate --help` lists further options.

    \b
    hone check rows.jsonl
    hone check rows.csv --column prompt=question --column completion=answer
    """
    _require()
    words = [*sources, "--format", form, *(["--json"] if as_json or output == "json" else [])]
    for name, values in (
        ("--column", column),
        ("--against", against),
        ("--dataset", dataset and [dataset]),
        ("--html", html and [html]),
        ("--out", out and [out]),
    ):
        words += [f"{name}={value}" for value in values or ()]
    raise typer.Exit(subprocess.run([*_CHECK, *words]).returncode)


def looked_at(source: str, columns: Sequence[str] = ()) -> dict[str, Any]:
    """What the check finds, as `hone_api.contract.report.DatasetResult` has it.

    Raises:
        CommandError: the rows cannot be used, in the words of the check.
    """
    _require()
    words = [source, "--json", *(f"--column={column}" for column in columns)]
    done = subprocess.run([*_CHECK, *words], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line and " INFO " not in line]
        said = " ".join(f"{line.rstrip('.')}." for line in lines[-2:])
        raise CommandError(f"{said} To see all of it: hone check {shlex.quote(source)}")
    return dict(json.loads(done.stdout))


def _require() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"the data check needs packages that are not installed ({', '.join(missing)}): in a clone of the "
            "repository, pip install '.[cli,data]'"
        )
