"""`hone mirror`: the commands that copy what an installation needs into a network that is closed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

import typer
import yaml

from hone_cli.errors import CommandError
from hone_cli.reach.options import OutputOption, tell
from hone_cli.runs.manifests import documents

_HUB = re.compile(r"hf://([^/@]+)/([^/@]+)(?:@(.+))?")
_DESTINATIONS = ("deliveries", "push")
"""Fields whose addresses are written to."""
_IMAGES = ("image", "vllmImage", "servingImage")
_UNUSED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.tflite")
"""Other forms of the weights, which no pod of Hone reads."""


class Mirrored(NamedTuple):
    """What manifests name, each once, in their order."""

    images: list[str]
    models: list[str]
    datasets: list[str]
    tasks: list[str]
    """Names of evaluation.harness."""
    others: list[str]
    """Addresses that no command here copies."""


def mirror(
    files: Annotated[
        list[Path], typer.Argument(help="The rendered chart, and manifests of Datasets and jobs; - is standard input.")
    ],
    registry: Annotated[str, typer.Option(help="Registry of your own, as in global.imageRegistry of the chart.")],
    hub: Annotated[Path, typer.Option(help="Folder for the files of models and datasets of hf://.")],
    output: OutputOption = "text",
) -> None:
    """Print the commands that fill a closed network.

    They are a shell script for a machine that reaches both sides: oras copies images, with the rest of their names,
    and hf copies models and datasets into a folder for the mirror of the hub. To look at the list, print it; to copy,
    hand it to a shell. The chart names that of vLLM, too, which hone serve prints. It copies again what has changed.
    Data sets of evaluation.harness are looked up in lm-eval, without a network.

    \b
    helm template hone charts/hone --values values.yaml > hone.yaml
    hone mirror hone.yaml jobs.yaml --registry registry.example.internal:5000/mirror --hub /srv/hub
    hone mirror hone.yaml jobs.yaml --registry registry.example.internal:5000/mirror --hub /srv/hub | sh -e
    """
    bodies = [body for file in files for body in documents(file)[1] if isinstance(body, dict)]
    if not bodies:
        raise CommandError("the files have no object")
    found = needs(bodies)
    found = found._replace(datasets=list(dict.fromkeys([*found.datasets, *_data_of(found.tasks)])))
    lines = [*script(found, registry.rstrip("/"), PurePosixPath(hub))]
    tell(output, "\n".join(lines), {**found._asdict(), "commands": [line for line in lines if line[0] != "#"]})


def needs(bodies: Sequence[dict[str, Any]]) -> Mirrored:
    """What these objects name."""
    found: dict[str, dict[str, None]] = {name: {} for name in Mirrored._fields}
    for body in bodies:
        for path, text in _texts(body):
            if text and (path[-1] in _IMAGES or path[-2:] == ("image", "reference")):
                found["images"][text] = None
            elif path[-2:] == ("harness", "tasks"):
                found["tasks"][text] = None
            elif "://" not in text or not str(body.get("apiVersion")).startswith("hone.dev/") or _written(path):
                continue
            elif _HUB.fullmatch(text):
                is_rows = body.get("kind") == "Dataset" and path == ("spec", "source", "uri")
                found["datasets" if is_rows else "models"][text] = None
            elif not text.startswith(("configmap://", "pvc://", "models://")):
                found["others"][text] = None
    return Mirrored(*map(list, found.values()))


def _data_of(tasks: Sequence[str]) -> list[str]:
    """Data sets of tasks, which only lm-eval knows.

    Raises:
        CommandError: lm-eval is not installed, or refuses a task.
    """
    if not tasks:
        return []
    if find_spec("lm_eval") is None:
        raise CommandError(
            f"evaluation.harness names {', '.join(tasks)}, and only lm-eval knows their data sets: in a clone of the "
            "repository, pip install '.[cli,harness]'"
        )
    command = [sys.executable, "-m", "hone_trainer", "tasks", *(f"--list={task}" for task in tasks)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(" ".join(line.strip() for line in done.stderr.strip().splitlines()[-2:]))
    return done.stdout.split()


def _written(path: Sequence[str]) -> bool:
    return any(part in _DESTINATIONS for part in path)


def _texts(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each text with the names of its fields; the operator's settings are YAML in a text."""
    if isinstance(node, dict):
        for name, value in node.items():
            is_settings = name == "config.yaml" and isinstance(value, str) and "trainer:" in value
            yield from _texts(yaml.safe_load(value) if is_settings else value, (*path, str(name)))
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, path)
    elif isinstance(node, str):
        yield path, node


def script(found: Mirrored, registry: str, hub: PurePosixPath) -> Iterator[str]:
    """The lines of the script."""
    yield "# images"
    for image in found.images:
        yield shlex.join(["oras", "cp", _full(image), f"{registry}/{_without_registry(image).partition('@')[0]}"])
    for kind, uris in (("model", found.models), ("dataset", found.datasets)):
        if uris:
            yield f"# {kind}s"
        for uri in uris:
            owner, name, revision = _parts(uri)
            folder = str(hub / f"{kind}s" / owner / name / revision)
            words = ["hf", "download", f"{owner}/{name}", "--repo-type", kind, "--revision", revision]
            words += ["--local-dir", folder] + [w for p in _UNUSED for w in ("--exclude", p) if kind == "model"]
            yield shlex.join(words)
            yield shlex.join(["rm", "-r", f"{folder}/.cache"])
    for uri in found.others:
        yield f"# not copied, make it available at an address inside: {' '.join(uri.split())}"


def _parts(uri: str) -> tuple[str, str, str]:
    match = _HUB.fullmatch(uri)
    if match is None:
        raise AssertionError(uri)
    parts = match[1], match[2], match[3] or "main"
    if any(part in ("", ".", "..") or part.startswith("-") for part in "/".join(parts).split("/")):
        raise CommandError(
            f"{uri!r} is no name on the hub: its files would lie elsewhere than in the folder of --hub. Correct it"
        )
    return parts


def _registry(image: str) -> str:
    first, slash, _ = image.partition("/")
    return first if slash and re.search(r"[.:]|^localhost$", first) else ""


def _without_registry(image: str) -> str:
    return image.removeprefix(f"{_registry(image)}/") if _registry(image) else image


def _full(image: str) -> str:
    """As oras reads it, which knows no default registry."""
    if _registry(image):
        return image
    return f"docker.io/{image if '/' in image else f'library/{image}'}"
