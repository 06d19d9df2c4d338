"""Croissant, the metadata of data sets (https://docs.mlcommons.org/croissant): read with a source, written with rows.

It is informative only: a missing, broken or too large file is not an error.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from hone_api.dataset.dataset_status import Croissant
from hone_trainer.errors import SourceError
from hone_trainer.store import hub

if TYPE_CHECKING:
    from hone_trainer.datasets.readers.s3 import Bucket
    from hone_trainer.endpoints.http import Client

NAME = "croissant.json"
_log = logging.getLogger(__name__)
_MAX_BYTES = 5 * 2**20
_SECONDS = 60.0
_SAMPLE_ROWS = 1000
_LENGTHS = {"name": 253, "description": 600, "license": 253, "citeAs": 600, "url": 253}
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "jsonPath": "cr:jsonPath",
    "recordSet": "cr:recordSet",
    "repeated": "cr:repeated",
    "sc": "https://schema.org/",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""Of the format's version 1.0, as far as it is used here."""
_TYPES: dict[type, str] = {str: "sc:Text", bool: "sc:Boolean", int: "sc:Integer", float: "sc:Float"}


def read(text: bytes) -> Croissant | None:
    """Parse the metadata; None if it is empty or not Croissant."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    entry = _dataset(document)
    fields = {name: _text(_value(entry, name)) for name in _LENGTHS}
    fields["citeAs"] = fields["citeAs"] or _text(_value(entry, "citation"))
    cut = {name: text[: _LENGTHS[name]] for name, text in fields.items() if text}
    return Croissant.model_validate(cut) if cut else None


def _dataset(document: Any) -> Mapping[str, Any]:
    """The entry of the data set: the document, or one of its graph."""
    entries = document.get("@graph", [document]) if isinstance(document, dict) else []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and str(entry.get("@type", "")).rpartition(":")[2].rpartition("/")[2] == "Dataset":
            return entry
    return {}


def _value(entry: Mapping[str, Any], name: str) -> Any:
    keys = (name, f"sc:{name}", f"cr:{name}", f"schema:{name}", f"https://schema.org/{name}")
    return next((entry[key] for key in keys if key in entry), None)


def _text(value: Any) -> str | None:
    """A value of JSON-LD as text: itself, that of one language, the address or name of an object, or several."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, dict):
        keys = ("@value", "en", "url", "@id", "name")
        return next((value[key] for key in keys if isinstance(value.get(key), str) and value[key]), None)
    if isinstance(value, list):
        return ", ".join(text for text in map(_text, value) if text) or None
    return None


# -- with sources --------------------------------------------------------------------------------


def of_hub(
    repository: hub.Repository, snapshot: hub.Snapshot, card: Mapping[str, Any], folder: Path
) -> Croissant | None:
    """The repository's own file, else the hub's metadata, else name and licence from its card."""

    def get() -> bytes:
        hub.download(repository, snapshot, [NAME], folder)
        return (folder / NAME).read_bytes()

    own = _try(get) if 0 < snapshot.files.get(NAME, 0) <= _MAX_BYTES else None
    if metadata := own or _try(lambda: hub.metadata(repository)):
        return metadata
    fields: dict[str, str | None] = {"name": _text(card.get("pretty_name"))}
    fields |= {"license": _text(card.get("license") or card.get("license_name"))}
    return Croissant(**{name: text[:253] for name, text in fields.items() if text}) if any(fields.values()) else None


def of_web(client: Client, url: str, folder: Path) -> Croissant | None:
    """The file next to the source's, on the same server."""

    def get() -> bytes:
        client.download(urljoin(url.partition("?")[0], NAME), folder / NAME)
        return (folder / NAME).read_bytes()

    limits = client.limits.model_copy(update={"max_source_bytes": _MAX_BYTES, "timeout_seconds": int(_SECONDS)})
    client = type(client)(limits, client.authorization, client.resolver)
    return _try(get)


def of_bucket(bucket: Bucket, path: str, folder: Path, deadline: float) -> Croissant | None:
    """The object in the source's folder, or next to the source's object."""

    def get() -> bytes:
        for place in (path.rstrip("/"), path.rpartition("/")[0]):
            try:
                (one,) = bucket.list(f"{place}/{NAME}".lstrip("/")).values()
            except (SourceError, ValueError):
                continue
            if one.size <= _MAX_BYTES:
                bucket.download(one, folder / NAME, deadline, lambda _: None)
                return (folder / NAME).read_bytes()
        return b""

    return _try(get)


def of_mount(path: Path, root: Path) -> Croissant | None:
    """The file in the source's folder, or next to the source's file."""
    place = Path(os.path.realpath((path if path.is_dir() else path.parent) / NAME))

    def get() -> bytes:
        fits = place.is_relative_to(root) and place.is_file() and place.stat().st_size <= _MAX_BYTES
        return place.read_bytes() if fits else b""

    return _try(get)


def _try(get: Callable[[], bytes]) -> Croissant | None:
    try:
        return read(get())
    except (SourceError, OSError) as error:
        _log.info("no Croissant metadata: %s", error)
        return None


# -- with rows -----------------------------------------------------------------------------------


def merged(parts: Iterable[Path]) -> Croissant | None:
    """Licences and citations of materialized folders, each once."""
    metadata = [about for about in (read(p.read_bytes()) for p in parts if p.is_file()) if about]
    licences, citations = _each([about.license for about in metadata]), _each([about.cite_as for about in metadata])
    return Croissant(license=licences[:253], cite_as=citations[:600]) if licences or citations else None


def _each(texts: Sequence[str | None]) -> str:
    return ", ".join(dict.fromkeys(filter(None, texts)))


def write(folder: Path, name: str, hashes: Mapping[str, str], source: str, about: Croissant | None) -> None:
    """Describe the splits of a materialized folder, in version 1.0 of the format.

    Args:
        hashes: the SHA-256 of each split's file by its name.
    """
    body = about.to_json() if about else {}
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": body.get("description") or f"Rows of {source}, validated and split.",
        **{key: body[key] for key in ("license", "citeAs", "url") if key in body},
        "isBasedOn": body.get("name") or source,
        "distribution": [_file(folder / file, sha256) for file, sha256 in hashes.items()],
        "recordSet": [_record_set(folder / file) for file in hashes],
    }
    (folder / NAME).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _file(path: Path, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/jsonlines",
        "sha256": sha256,
    }


def _record_set(path: Path) -> dict[str, Any]:
    split = path.stem
    with open(path, "rb") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, _SAMPLE_ROWS)]
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for column, value in row.items():
            columns.setdefault(column, []).extend([] if value is None else [value])
    fields = [field for column, values in columns.items() for field in _fields(path.name, split, column, values)]
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "field": fields}


def _fields(file: str, split: str, column: str, values: list[Any]) -> Iterator[dict[str, Any]]:
    """The field of a column, none for values that the format has no type for."""
    field = {"@type": "cr:Field", "@id": f"{split}/{column}", "name": f"{split}/{column}"}
    source: dict[str, Any] = {"fileObject": {"@id": file}, "extract": {"column": column}}
    if kind := _type(values):
        yield {**field, "dataType": kind, "source": source}
    elif values and all(isinstance(value, list) for value in values):
        entries = [entry for value in values for entry in value]
        if kind := _type(entries):
            yield {**field, "dataType": kind, "repeated": True, "source": source}
        elif entries and all(isinstance(entry, dict) for entry in entries):
            yield {**field, "repeated": True, "subField": list(_sub_fields(field, source, entries))}


def _sub_fields(field: Mapping[str, Any], source: Mapping[str, Any], entries: list[Any]) -> Iterator[dict[str, Any]]:
    """Texts that every entry has, e.g. role and content of messages."""
    for key in entries[0]:
        if all(isinstance(entry.get(key), str) for entry in entries):
            name = f"{field['name']}/{key}"
            transform = {**source, "transform": {"jsonPath": key}}
            yield {"@type": "cr:Field", "@id": name, "name": name, "dataType": "sc:Text", "source": transform}


def _type(values: Iterable[Any]) -> str | None:
    """The type that all values have; None when they have several, or none that Croissant knows."""
    kinds = {type(value) for value in values}
    return _TYPES.get(kinds.pop()) if len(kinds) == 1 else None
