"""The configuration of another tool as one document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone_cli.convert.engine import Whole, flat
from hone_cli.errors import CommandError
from hone_cli.runs.manifests import documents

_DOWNLOAD = re.compile(r"^#.*\btune download (\S+/\S+)", re.M)
"""In the comments of torchtune, whose keys have no name of a hub."""


def read(file: Path) -> dict[str, Any]:
    """The document of a file, with OmegaConf's references resolved, and what it refers to in files next to it.

    Raises:
        CommandError: the file cannot be read, or is not one mapping.
    """
    text, bodies = documents(file)
    parts = [body for body in bodies if isinstance(body, dict)]
    main = [body for body in parts if body.get("kind") not in ("ConfigMap", "PersistentVolumeClaim")]
    if len(main) != 1 or len(parts) < len(bodies):
        raise CommandError(f"{file} is not a configuration: it is not one mapping of keys to values")
    document = _resolved(main[0])
    if document.get("kind") == "Workspace":
        document |= _training_config(parts)
    if document.get("kind") == "TrainJob":
        document |= _arguments(document)
    method = document.get("method")
    if isinstance(method, dict) and isinstance(part := method.get("reinforcement"), dict) and "grader" in part:
        part["grader"] = Whole(part["grader"])
    if download := _DOWNLOAD.search(text):
        document["tune download"] = download[1]
    if isinstance(document.get("dataset"), str):
        document["dataset"] = _described(document, file)
    if str(document.get("train_dataset")).endswith((".yaml", ".yml")):
        document["train_dataset"] = _entries(document["train_dataset"], file)
    return document


def _resolved(document: dict[str, Any]) -> dict[str, Any]:
    values = {key: value for key, value in flat(document) if isinstance(value, str | int | float)}

    def text(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): text(each) for name, each in value.items()}
        if isinstance(value, list):
            return [text(each) for each in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = re.fullmatch(r"\$\{([\w.]+)\}", value)
        if whole and whole[1] in values:
            return values[whole[1]]
        return re.sub(r"\$\{([\w.]+)\}", lambda match: str(values.get(match[1], match[0])), value)

    return {str(name): text(value) for name, value in document.items()}


def _training_config(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What the ConfigMap of a Workspace of KAITO has, with the TrainingArguments as keys of their own."""
    import yaml

    config: dict[str, Any] = {}
    for part in parts:
        data = part.get("data") or {}
        config |= (yaml.safe_load(data.get("training_config.yaml") or "") or {}).get("training_config") or {}
    return {**config.pop("TrainingArguments", {}), **config}


def _arguments(document: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a TrainJob of torchtune, key=value, as keys of their own."""
    import yaml

    trainer = document["spec"].get("trainer") or {}
    pairs = [str(each).partition("=") for each in trainer.get("args") or []]
    if not pairs or trainer.get("command") or not all(sign for _, sign, _ in pairs):
        return {}
    del trainer["args"]
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def _described(document: dict[str, Any], file: Path) -> Any:
    """The names of rows of LLaMA-Factory as its dataset_info.json describes them, if it is in reach."""
    names = [name.strip() for name in document["dataset"].split(",")]
    folder = Path(str(document.get("dataset_dir") or "data"))
    for place in (folder, file.parent / folder):
        try:
            known = json.loads((place / "dataset_info.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return [{"name": name, **known.get(name, {})} for name in names]
    return document["dataset"]


def _entries(named: str, file: Path) -> Any:
    """The rows of LLaMA-Factory v1 as a YAML file describes them, if it is in reach."""
    found = next((place for place in (Path(named), file.parent / named) if place.is_file()), None)
    if found is None:
        return named
    (described,) = documents(found)[1]
    entries = [{"name": name, **fields} for name, fields in described.items()]
    for entry in entries:
        if "file_name" in entry:
            entry["file_name"] = str(Path(entry.pop("dataset_dir", "")) / entry["file_name"])
    return entries
