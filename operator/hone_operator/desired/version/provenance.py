"""SLSA provenance 1.0 of a ModelVersion, from its record."""

from typing import Any

from hone_api.kinds.modelversion import BaseModelLineage, ImportLineage, ModelVersionSpec, Stage
from hone_operator import __version__

BUILDER = "https://hone.dev/operator"
BUILD_TYPE = "https://hone.dev/FineTuneJob/v1alpha1"


def predicate(name: str, namespace: str, spec: ModelVersionSpec) -> dict[str, Any]:
    """The same for the same record: how the model was made, and from what.

    Args:
        name: of the ModelVersion.
        namespace: its namespace.
        spec: its record.
    """
    lineage = spec.lineage
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "method": lineage.method,
                **_known(seed=lineage.seed),
                "hyperParameters": lineage.values,
            },
            "internalParameters": {
                "modelVersion": name,
                "namespace": namespace,
                "model": spec.model_name,
                "version": spec.version,
                **({"job": lineage.job.to_json()} if lineage.job else {}),
                **({"imported": lineage.imported.to_json()} if lineage.imported else {}),
                "evaluation": [number.to_json() for number in spec.evaluation.numbers],
            },
            "resolvedDependencies": [each for stage in (lineage, *lineage.ancestors) for each in _dependencies(stage)],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"hone": __version__}},
            "metadata": {
                "invocationId": _maker(lineage),
                **({"finishedOn": lineage.finished_at} if lineage.finished_at else {}),
            },
        },
    }


def _maker(stage: Stage) -> str | None:
    """uid of the job, or key of the import."""
    if stage.job:
        return stage.job.uid
    return stage.imported.key if stage.imported else None


def _dependencies(stage: Stage) -> list[dict[str, Any]]:
    """Resource descriptors of what a run read."""
    rows = [
        {
            "name": f"{each.name}/{each.split}",
            "digest": {"sha256": each.digest.removeprefix("sha256:")},
            "annotations": _known(rows=each.rows, tokens=each.tokens, license=each.license),
        }
        for each in stage.datasets
    ]
    image = [{"name": "trainer", **_image(stage.image)}] if stage.image else []
    return [*([_source(stage.imported)] if stage.imported else []), _base(stage.base_model), *rows, *image]


def _known(**values: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in values.items() if value is not None}


def _source(imported: ImportLineage) -> dict[str, Any]:
    """The files that were imported; the digest is that of their list."""
    descriptor = {"name": "imported", "uri": imported.uri, "digest": {"sha256": imported.digest.rpartition(":")[2]}}
    annotations = _known(commit=imported.commit, license=imported.license)
    return {**descriptor, **({"annotations": annotations} if annotations else {})}


def _base(base: BaseModelLineage) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"name": "base", "uri": base.uri}
    if base.commit:
        kind, _, digest = base.commit.rpartition(":")
        descriptor["digest"] = {kind or "gitCommit": digest}
    if base.license:
        descriptor["annotations"] = {"license": base.license}
    return descriptor


def _image(image: str) -> dict[str, Any]:
    _, _, digest = image.partition("@sha256:")
    return {"uri": image, **({"digest": {"sha256": digest}} if digest else {})}
