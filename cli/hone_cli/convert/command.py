"""`hone convert`: a manifest from the configuration of another tool."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hone_cli.errors import CliExit, CommandError
from hone_cli.rows import place

if TYPE_CHECKING:
    from hone_cli.convert.engine import Converted, Fate

_WORDS = {
    "differs": "What is learned differs from the source in these keys:",
    "unknown": "No table of hone convert knows these keys:",
    "dropped": "Not needed here, without an effect on what is learned:",
}


def convert(
    source: Annotated[Path, typer.Argument(help="The configuration, YAML or JSON; - reads standard input.")],
    tool: Annotated[
        str | None, typer.Option("--from", help="The tool it is of, e.g. axolotl; default: detected by its keys.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Base model, where the source names none of a hub.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Method, where the source does not name it, e.g. DPO.")] = None,
    gpus: Annotated[int, typer.Option(min=0, max=64, help="GPUs of the run; a batch per GPU is multiplied.")] = 1,
    judge: Annotated[
        str | None, typer.Option(help="Server of a model that grades answers, where the source asks one.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the objects; default: the file's.")] = None,
    output: Annotated[
        Literal["yaml", "json"], typer.Option("--output", "-o", help="Form of what is printed: yaml or json.")
    ] = "yaml",
) -> None:
    """Print a manifest for the configuration of another tool.

    Tools: axolotl, automodel (NeMo), kaito (Workspace), llamafactory, openai (fine-tuning job as JSON), torchtune,
    trainjob (Kubeflow), trl. Each key of the source is in the manifest, or its comments say why not. Nothing in a
    cluster is read or changed; the guide "Come from another tool" has the tables.

    Exit codes: 0 each key is accounted for, 6 keys are not known (the manifest is printed), 3 no job does this.

    \b
    hone convert config.yaml > job.yaml && hone plan job.yaml
    hone convert job.json --model Qwen/Qwen3-8B
    """
    from hone_cli.convert import engine, reading, tables

    document = reading.read(source)
    found = tool or tables.detected(key for key, _ in engine.flat(document))
    known = tables.tables()
    if found not in known or not known[found].detect:
        offered = ", ".join(each for each, table in known.items() if table.detect)
        raise CommandError(f"{source} is of no tool that hone convert knows: name one by --from: {offered}")
    request = engine.ConvertRequest(place.checked(name or place.suggested(str(source))), model, method, gpus, judge)
    try:
        converted = engine.Conversion(known[found], request).convert(document)
    except engine.NoJobError as error:
        typer.echo(f"hone: {source}: {error}", err=True)
        raise typer.Exit(CliExit.REFUSED) from None
    title = f"{known[found].title}, {source.name}"
    typer.echo(manifest(converted, title) if output == "yaml" else _json(converted, found), nl=False)
    fates = [key.fate for key in converted.keys.values()]
    counts = ", ".join(f"{fates.count(fate)} {fate}" for fate in engine.Fate)
    typer.echo(f"{len(fates)} keys: {counts}. Next: hone plan", err=True)
    raise typer.Exit(CliExit.UNKNOWN_KEYS if engine.Fate.UNKNOWN in fates else CliExit.DONE)


def manifest(converted: Converted, title: str) -> str:
    """The objects as YAML; comments have the origin of each field, and the keys that are in none."""
    head = [f"Made by hone convert from {title}. hone plan shows what it needs; hone run starts it."]
    head += [
        f"First: {command}; if it prints another address than source.uri, write it there"
        for command in converted.uploads
    ]
    lines = [f"# {line}" for line in head]
    for fate, words in _WORDS.items():
        reasons = by_reason(converted, fate)
        lines += [f"# {words}"] if reasons else []
        for reason, keys in reasons.items():
            text = f"{', '.join(keys)}: {reason}"
            lines += textwrap.wrap(text, 116, initial_indent="#   ", subsequent_indent="#     ", break_on_hyphens=False)
    documents = [
        "\n".join(_yaml(body, origins)) for body, origins in zip(converted.objects, converted.origins, strict=True)
    ]
    return "\n".join([*lines, "\n---\n".join(documents)]) + "\n"


def by_reason(converted: Converted, fate: Fate | str) -> dict[str, list[str]]:
    """The keys of one fate by their reason."""
    reasons: dict[str, list[str]] = {}
    for key, (each, words) in converted.keys.items():
        if each == fate:
            reasons.setdefault(" ".join(words.split()), []).append(key)
    return reasons


def _json(converted: Converted, tool: str) -> str:
    keys = {key: {"fate": fate, "words": words} for key, (fate, words) in converted.keys.items()}
    body = {"tool": tool, "objects": converted.objects, "keys": keys, "uploads": converted.uploads}
    return json.dumps(body, indent=2) + "\n"


def _yaml(node: Mapping[str, Any], origins: Mapping[str, str], path: str = "", indent: str = "") -> Iterator[str]:
    for name, value in node.items():
        here = f"{path}.{name}" if path else name
        label = f"{indent}{_scalar(name)}:"
        if isinstance(value, Mapping):
            yield label
            yield from _yaml(value, origins, here, f"{indent}  ")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield label
            for item in value:
                first, *rest = _yaml(item, origins, f"{here}[]", f"{indent}  ")
                yield f"{indent}- {first.strip()}"
                yield from rest
        elif isinstance(value, str) and "\n" in value and not value.startswith(" "):
            yield f"{label} |{'' if value.endswith(chr(10)) else '-'}"
            yield from (f"{indent}  {line}".rstrip() for line in value.removesuffix("\n").split("\n"))
        else:
            comment = f"  # {origins[here]}" if here in origins else ""
            yield f"{label} {_scalar(value)}{comment}"


def _scalar(value: Any) -> str:
    """A value that every parser of YAML reads as this type."""
    words = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if (
        isinstance(value, str)
        and re.fullmatch(r"[A-Za-z][-\w./]*(://[-\w./@]+)?", value)
        and value.lower() not in words
    ):
        return value
    return json.dumps(value, ensure_ascii=False)
