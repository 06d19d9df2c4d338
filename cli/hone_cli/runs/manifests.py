"""The objects in manifests of this machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hone_cli.errors import CommandError
from hone_cli.reach.objects import KINDS

_NO_TEXT = re.compile(r"[-+.]?[0-9][0-9._]*([eE][-+]?[0-9]+)?|0[box][0-9a-fA-F_]+|[yYnN]")
"""What some parser of YAML takes for a number, or for true."""
APPLIED = ("ConfigMap", "PersistentVolumeClaim", "Secret", "Dataset", "Model", "FineTuneJob")
"""Kinds that are planned and applied, in the order in which they are."""
_MOST_VALUES = 1_000_000
"""Of all documents of a file, with each alias counted as what it repeats."""


def read(files: Iterable[Path], namespace: str) -> list[dict[str, Any]]:
    """The objects of all files, in the order in which they are applied. `-` is standard input.

    Raises:
        CommandError: a file cannot be read, has an object of another kind or namespace, or one object is there twice.
    """
    return ordered(
        ((f"{file}, object {number}", body) for file in files for number, body in enumerate(documents(file)[1], 1)),
        namespace,
    )


def ordered(bodies: Iterable[tuple[str, Any]], namespace: str) -> list[dict[str, Any]]:
    """The objects in the order in which they are applied; each comes with its place, for messages.

    Raises:
        CommandError: one is of another kind or namespace, or there twice.
    """
    objects: dict[tuple[str, str], dict[str, Any]] = {}
    for place, body in bodies:
        if body is None:
            continue
        kind, name = _identity(place, body, namespace)
        if (kind, name) in objects:
            raise CommandError(f"{place}: {kind} {name} is there twice")
        objects[kind, name] = body
    if not objects:
        raise CommandError("the files have no object")
    return sorted(objects.values(), key=lambda body: APPLIED.index(body["kind"]))


def documents(file: Path) -> tuple[str, list[Any]]:
    """The text of a file, and the bodies of the YAML documents in it; an empty one is None.

    Raises:
        CommandError: it cannot be read, or is not YAML.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file} is not a manifest: it is not UTF-8") from None
    return text, parsed(text, str(file))


def as_yaml(bodies: Iterable[Mapping[str, Any]]) -> str:
    """YAML documents that every parser reads as the same: 1e-5 and y are texts to PyYAML, and not to kubectl."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def written(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if _NO_TEXT.fullmatch(value) else None)

    Dumper.add_representer(str, written)
    return "---\n".join(yaml.dump(body, Dumper=Dumper, sort_keys=False, allow_unicode=True) for body in bodies)


def parsed(text: str, place: str) -> list[Any]:
    """The bodies of the YAML documents in a text.

    Raises:
        CommandError: it is not YAML, or too large once its aliases are followed.
    """
    import yaml

    try:
        bodies = list(yaml.load_all(text, _loader()))
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise CommandError(f"{place} is not YAML{line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise CommandError(f"{place} is not YAML: {error}") from None
    except RecursionError:
        raise CommandError(f"{place} is nested too deeply") from None
    if _has_too_many(bodies):
        raise CommandError(f"{place} has too many values, or an alias that repeats itself: write it without aliases")
    return bodies


def _has_too_many(bodies: Iterable[Any]) -> bool:
    left, seen = [*bodies], 0
    while left and seen + len(left) <= _MOST_VALUES:
        each, seen = left.pop(), seen + 1
        left += each.values() if isinstance(each, dict) else each if isinstance(each, list | tuple) else ()
    return bool(left)


def _loader() -> Any:
    """Of YAML as Kubernetes reads it: a date is a text."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [each for each in those if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, those in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _identity(place: str, body: Any, namespace: str) -> tuple[str, str]:
    if not isinstance(body, dict) or not isinstance(body.get("metadata") or {}, dict):
        raise CommandError(f"{place} is not an object of Kubernetes: it has no apiVersion, kind and metadata")
    kind, meta = body.get("kind"), body.get("metadata") or {}
    if kind not in APPLIED:
        raise CommandError(f"{place}: kind {kind}: hone applies {', '.join(APPLIED)}; use kubectl apply for others")
    if body.get("apiVersion") != KINDS[kind][0]:
        raise CommandError(f"{place}: apiVersion of a {kind} is {KINDS[kind][0]}, not {body.get('apiVersion')}")
    if not isinstance(meta.get("name"), str):
        raise CommandError(f"{place}: the {kind} has no metadata.name")
    if meta.get("namespace", namespace) != namespace:
        raise CommandError(f"{place}: {kind} {meta['name']} is of namespace {meta['namespace']}: add --namespace")
    return kind, meta["name"]
