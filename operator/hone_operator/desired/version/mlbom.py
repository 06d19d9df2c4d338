"""A CycloneDX bill of materials (ML-BOM, specification 1.6) of a ModelVersion, from its record.

cyclonedx-python-lib has no model cards (11.12), so the document is written here; tests validate it with that library.
"""

from collections.abc import Iterator
from typing import Any

from hone_api.base import licences
from hone_api.kinds.modelversion import (
    BaseModelLineage,
    DatasetLineage,
    EvaluationNumber,
    Lineage,
    ModelVersionSpec,
    Stage,
)
from hone_api.methods import METHODS, Method
from hone_operator import __version__

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
MODEL = "model"
"""bom-ref of the model that the document is about."""
Component = dict[str, Any]


def bom(name: str, spec: ModelVersionSpec) -> dict[str, Any]:
    """The same for the same record. Whoever describes an artifact adds its files and a serial number.

    Args:
        name: of the ModelVersion.
        spec: its record.
    """
    lineage = spec.lineage
    parts = _parts(lineage)
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            **({"timestamp": lineage.finished_at} if lineage.finished_at else {}),
            "tools": {"components": [{"type": "application", "name": "hone", "version": __version__}]},
            "component": _model(name, spec, [part["bom-ref"] for part in parts if part["type"] == "data"]),
        },
        "components": parts,
        "dependencies": [{"ref": MODEL, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def model_licences(lineage: Lineage) -> list[str]:
    """Licences of the base models of all stages, and of imports, each once: they apply to what was made from them."""
    stages = (*lineage.ancestors, lineage)
    texts = [text for s in stages for text in (s.base_model.license, s.imported.license if s.imported else None)]
    return list(dict.fromkeys(name for text in texts for name in licences.names(text)))


def _model(name: str, spec: ModelVersionSpec, rows: list[str]) -> Component:
    lineage = spec.lineage
    facts: dict[str, str | int | None] = {
        "modelVersion": name,
        "method": lineage.method,
        "seed": lineage.seed,
        "steps": lineage.steps,
        "job": lineage.job.name if lineage.job else None,
        "jobUid": lineage.job.uid if lineage.job else None,
        "imported": lineage.imported.uri if lineage.imported else None,
        "importedDigest": lineage.imported.digest if lineage.imported else None,
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": spec.model_name,
        "version": str(spec.version),
        **_licences(model_licences(lineage)),
        "pedigree": {"ancestors": [_base(stage.base_model) for stage in (*lineage.ancestors, lineage)]},
        "modelCard": {
            "modelParameters": {
                "approach": {"type": _approach(lineage.method)},
                "task": "text-classification" if lineage.method == Method.REWARD else "text-generation",
                "architectureFamily": "transformer",
                "datasets": [{"ref": ref} for ref in rows],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [metric for number in spec.evaluation.numbers for metric in _metrics(number)]
            },
        },
        "properties": _properties(facts),
    }


def _approach(method: str) -> str:
    if method == Method.DAPT:
        return "self-supervised"
    samples = method in set(Method) and METHODS[Method(method)].samples
    return "reinforcement-learning" if samples else "supervised"


def _metrics(number: EvaluationNumber) -> Iterator[dict[str, Any]]:
    """The tuned model's value, and the base model's on the same rows."""
    place = f"{number.dataset or ''} ({number.purpose})".strip()
    interval = {}
    if number.low and number.high:
        interval = {"confidenceInterval": {"lowerBound": number.low, "upperBound": number.high}}
    yield {"type": number.name, "value": number.tuned, "slice": place, **interval}
    if number.base is not None:
        yield {"type": number.name, "value": number.base, "slice": f"{place}, base model"}


def _parts(lineage: Lineage) -> list[Component]:
    """What all stages read and ran, each once."""
    parts: dict[str, Component] = {}
    for stage in (*lineage.ancestors, lineage):
        for part in _stage(stage):
            parts.setdefault(str(sorted(part.items(), key=str)), part)
    return [{**part, "bom-ref": f"{part['type']}-{number}"} for number, part in enumerate(parts.values(), 1)]


def _stage(stage: Stage) -> Iterator[Component]:
    yield _base(stage.base_model)
    yield from map(_rows, stage.datasets)
    if stage.image:
        uri, _, digest = stage.image.partition("@sha256:")
        yield {"type": "container", "name": uri, **({"hashes": _sha256(digest)} if digest else {})}


def _base(base: BaseModelLineage) -> Component:
    """A base model. A digest of a manifest is a hash; a commit is a version."""
    kind, _, digest = (base.commit or "").rpartition(":")
    version = {"version": base.commit} if base.commit else {}
    return {
        "type": "machine-learning-model",
        "name": base.model_version or base.uri.removeprefix("hf://"),
        **version,
        **({"hashes": _sha256(digest)} if kind == "sha256" else {}),
        **_licences(licences.names(base.license)),
        "properties": _properties({"uri": base.uri, "parameters": base.shape.parameters if base.shape else None}),
    }


def _rows(rows: DatasetLineage) -> Component:
    counts = _properties({"rows": rows.rows, "tokens": rows.tokens})
    content = {"contents": {"properties": counts}} if counts else {}
    return {
        "type": "data",
        "name": f"{rows.name}/{rows.split}",
        "hashes": _sha256(rows.digest.removeprefix("sha256:")),
        **_licences(licences.names(rows.license)),
        "data": [{"type": "dataset", "name": rows.name, **content}],
    }


def _licences(names: list[str]) -> dict[str, Any]:
    entries = [{"id": identifier} if (identifier := licences.spdx(name)) else {"name": name} for name in names]
    unique = {str(entry): entry for entry in entries}.values()
    return {"licenses": [{"license": {**entry, "acknowledgement": "declared"}} for entry in unique]} if entries else {}


def _sha256(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _properties(facts: dict[str, str | int | None]) -> list[dict[str, str]]:
    return [{"name": f"hone:{name}", "value": str(value)} for name, value in facts.items() if value is not None]
