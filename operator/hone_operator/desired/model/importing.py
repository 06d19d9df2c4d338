"""The Job that brings a foreign model into the store, and the ModelVersion that it becomes."""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from hone_api import API_VERSION
from hone_api.blocks.imports import ModelImport
from hone_api.contract.report import ImportResult
from hone_api.kinds.modelversion import (
    Artifact,
    BaseModelLineage,
    ImportLineage,
    Lineage,
    ModelEvaluation,
    ModelVersionSpec,
)
from hone_api.kinds.plan_record import PlanRecord, StageSettings
from hone_api.plan import DatasetInput, ImportPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.hub import hub_environment, secret_mounts
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount, Work, read_only_folders, writable_folders

COMPONENT = "import"
METHOD = "Import"
VALIDATION = "validation"
SOURCE, BASE, BASE_SECRET = PurePosixPath("/source"), PurePosixPath("/base"), PurePosixPath("/secrets/base")


def key_of(model: str, entry: ModelImport) -> str:
    """Equal for equal work, whoever asks for it."""
    return names.digest("import", model, _work_of(entry).to_json(), length=16)


def _work_of(entry: ModelImport) -> ModelImport:
    """The entry without what only the record of it needs."""
    return entry.model_copy(update={"submitted_by": None, "deletion_policy": None})


def claims(entry: ModelImport) -> list[str]:
    """Volume claims that the entry names.

    Raises:
        names.InvalidReferenceError: a path leaves its volume.
    """
    uris = [entry.uri, *([entry.base.uri] if entry.base else [])]
    places = [names.split_uri(uri) for uri in uris if uri.startswith("pvc://")]
    return list(dict.fromkeys(claim for _, claim, _ in places))


def importing(
    owner: Mapping[str, Any], entry: ModelImport, number: int, platform: Platform, rows: DatasetInput | None = None
) -> list[dict[str, Any]]:
    """ConfigMap and Job of attempt `number`. The pod reads the volumes that the entry names, and writes a folder of its
    own below models/ and, for a base of the hub, base-models/.

    Args:
        rows: those of the entry's evaluation.
    """
    meta, key = owner["metadata"], key_of(owner["metadata"]["name"], entry)
    secrets, secret_path = secret_mounts(entry.secret_name)
    base_secrets, base_secret_path = secret_mounts(
        entry.base.secret_name if entry.base else None, "base-credentials", BASE_SECRET
    )
    source, source_volume = _volume("source", SOURCE, entry.uri)
    base, base_volume = _volume("base", BASE, entry.base.uri if entry.base else "")
    from_hub = entry.base is not None and entry.base.uri.startswith("hf://")
    written = [f"models/{_run(key)}", *(["base-models"] if from_hub else [])]
    read = read_only_folders(platform, "datasets") if rows else ()
    plan = ImportPlan(
        name=meta["name"],
        source=entry.model_copy(update={"deletion_policy": None}),
        source_volume=source_volume,
        base_volume=base_volume,
        secret_path=secret_path,
        base_secret_path=base_secret_path,
        rows=rows,
        store=str(names.STORE),
        folder=_folder(key),
        **platform.network(meta["namespace"]),
    )
    work = Work(
        component=COMPONENT,
        verb="import",
        plan=plan,
        cpu=entry.evaluation.cpu if entry.evaluation else platform.staging.cpu,
        memory=entry.evaluation.memory if entry.evaluation else platform.staging.memory,
        mounts=(*writable_folders(platform, *written), *read, *source, *base, *secrets, *base_secrets),
        env=hub_environment(platform) if from_hub or entry.uri.startswith("hf://") else {},
    )
    # The label of a run: a sweep spares its folder while the pod writes it.
    labels = names.labels(
        COMPONENT, owner, **{names.STAGING_ATTEMPT: str(number), names.CONTENT: key, names.RUN: _run(key)}
    )
    # And what it reads.
    uris = [entry.uri, *([entry.base.uri] if entry.base else [])]
    reads = {"uris": uris, "datasetDigests": {rows.name: rows.digest} if rows else {}}
    annotations = {names.RESOLVED: json.dumps(reads, sort_keys=True)}
    name = names.importing(meta["name"], meta["uid"], key, number)
    return job_with_plan(owner, JobName(name, labels, annotations), work, platform)


def rows_of(dataset: Mapping[str, Any]) -> DatasetInput:
    """The validation rows of a Dataset that is Ready, as pods see them."""
    digest = dataset["status"]["digest"]
    path = names.STORE / "datasets" / digest.removeprefix("sha256:") / f"{VALIDATION}.jsonl"
    return DatasetInput(name=dataset["metadata"]["name"], split=VALIDATION, path=str(path), digest=digest)


def imported_version(
    owner: Mapping[str, Any], entry: ModelImport, result: ImportResult, number: int, at: str, platform: Platform
) -> dict[str, Any]:
    """The record of an import, by value. It has no owner reference, because deleting the Model must not delete it.

    Args:
        at: when the files were complete.
    """
    meta, key = owner["metadata"], key_of(owner["metadata"]["name"], entry)
    store = f"pvc://{platform.store.claim_name}"
    artifact, values = result.artifact, _values(result)
    spec = ModelVersionSpec(
        model_name=meta["name"],
        version=number,
        artifacts=[
            Artifact(
                format=artifact.format,
                uri=f"{store}/models/{_folder(key)}/{artifact.uri}",
                digest=artifact.digest,
                size_bytes=artifact.size_bytes,
            )
        ],
        lineage=Lineage(
            base_model=_base(entry, result, store),
            datasets=[],
            imported=ImportLineage(
                uri=entry.uri,
                key=key,
                commit=result.commit,
                digest=result.digest,
                license=result.license,
                submitted_by=entry.submitted_by,
            ),
            method=METHOD,
            settings=StageSettings.of(values),
            plan=PlanRecord.of(values) if values else None,
            image=platform.trainer.image[:253],
            finished_at=at,
        ),
        evaluation=ModelEvaluation(numbers=result.numbers),
        deletion_policy=entry.deletion_policy or "Retain",
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelVersion",
        "metadata": {
            "name": names.model_version(meta["name"], number),
            "namespace": meta["namespace"],
            "labels": names.labels("model", owner),
        },
        "spec": spec.to_json(),
    }


def _base(entry: ModelImport, result: ImportResult, store: str) -> BaseModelLineage:
    """The base of an adapter; a whole model is its own."""
    if entry.base is None or result.base is None:
        return BaseModelLineage(uri=entry.uri, commit=result.commit, shape=result.shape, license=result.license)
    base = result.base
    return BaseModelLineage(
        uri=entry.base.uri,
        commit=base.commit,
        location=f"{store}/{base.path}" if base.path else entry.base.uri,
        digest=base.digest,
        shape=base.shape,
        license=base.license,
    )


def _values(result: ImportResult) -> dict[str, Any]:
    """What servers ask of an adapter; nothing else is known."""
    if result.adapter_rank is None:
        return {}
    targets = {"targets": result.adapter_targets} if result.adapter_targets else {}
    return {
        "adapter": {"type": result.adapter_type, "rank": result.adapter_rank, **targets},
        "resolved": {"adapterRank": result.adapter_rank},
    }


def _run(key: str) -> str:
    return f"import-{key}"


def _folder(key: str) -> str:
    """<run>/<attempt> below models/."""
    return f"{_run(key)}/files"


def _volume(name: str, path: PurePosixPath, uri: str) -> tuple[list[Mount], str | None]:
    """(mounts, path in the pod) of the volume of `pvc://claim/path`; of another address none."""
    if not uri.startswith("pvc://"):
        return [], None
    return [Mount.claim(name, path, names.split_uri(uri)[1])], str(path)
