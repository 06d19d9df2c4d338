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
        data = _mapping(part.get("data"), "data")
        try:
            inner = yaml.safe_load(str(data.get("training_config.yaml") or ""))
        except yaml.YAMLError as error:
            raise CommandError(f"data.training_config.yaml is not YAML: {str(error).splitlines()[0]}") from None
        config |= _mapping(_mapping(inner, "training_config.yaml").get("training_config"), "training_config")
    return {**_mapping(config.pop("TrainingArguments", None), "TrainingArguments"), **config}


def _arguments(document: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a TrainJob of torchtune, key=value, as keys of their own."""
    import yaml

    trainer = _mapping(_mapping(document.get("spec"), "spec").get("trainer"), "spec.trainer")
    given = trainer.get("args") or []
    if not isinstance(given, list):
        raise CommandError("spec.trainer.args is not a list")
    pairs = [str(each).partition("=") for each in given]
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
            text = (place / "dataset_info.json").read_text(encoding="utf-8")
            known = _mapping(json.loads(text), "dataset_info.json")
        except (OSError, ValueError):
            continue
        return [{"name": name, **_mapping(known.get(name), f"{name} of dataset_info.json")} for name in names]
    return document["dataset"]


def _entries(named: str, file: Path) -> Any:
    """The rows of LLaMA-Factory v1 as a YAML file describes them, if it is in reach."""
    found = next((place for place in (Path(named), file.parent / named) if place.is_file()), None)
    if found is None:
        return named
    bodies = documents(found)[1]
    if len(bodies) != 1:
        raise CommandError(f"{found} describes no rows: it is not one YAML document")
    described = _mapping(bodies[0], str(found)).items()
    entries = [{"name": name, **_mapping(fields, f"{name} of {found}")} for name, fields in described]
    for entry in entries:
        if "file_name" in entry:
            entry["file_name"] = str(Path(str(entry.pop("dataset_dir", ""))) / str(entry["file_name"]))
    return entries


def _mapping(value: Any, where: str) -> dict[str, Any]:
    """A part of a document that has keys; one without a value has none.

    Raises:
        CommandError: it is something else.
    """
    if value is not None and not isinstance(value, dict):
        raise CommandError(f"{where} is not a mapping of keys to values")
    return value or {}
