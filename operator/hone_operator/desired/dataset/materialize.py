"""The Job that materializes a Dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from hone_api.dataset.curation import Curation
from hone_api.dataset.dataset import DatasetSpec
from hone_api.dataset.review import batch_folder
from hone_api.kinds.resolved import PinnedModel
from hone_api.plan import DatasetInput, MaterializePlan, MixPlan
from hone_operator.desired.core import modelref, names
from hone_operator.desired.core.hub import hub_environment, secret_mounts
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount, Work, read_only_folders, store, writable_folders
from hone_operator.desired.dataset.synthesis import generation as generation_of

COMPONENT = "materialize"
SOURCE = PurePosixPath("/source")
INCOMING = "incoming"
"""Folder of the store with a subfolder for each Job that makes rows, until they are published."""


SOURCE_FILES = "source-files"
"""Folder of the store with a subfolder for each Dataset, for files of its source and rows that were checked, until all
rows are made: the next attempt has another Job."""
TINY = "configmap://"
"""Sources that are read again in each attempt: nothing of them is kept between two."""


@dataclass(frozen=True)
class ReferencedObjects:
    """The objects of the namespace that the curation and the mixture refer to, in their current state."""

    parts: Sequence[DatasetInput] = ()
    """For a mixture: every split of every Dataset; share is the weight."""
    evaluation_sets: Sequence[DatasetInput] = ()
    deduplicate_against: Sequence[DatasetInput] = ()
    others: Sequence[DatasetInput] = ()
    """Splits of all Datasets of the namespace except a mixture's parts: which share rows is reported."""
    classifiers: Mapping[str, PinnedModel] = field(default_factory=dict)


def named_datasets(spec: Mapping[str, Any]) -> set[str]:
    """Names of the Datasets that a Dataset's spec refers to; the spec may be older than its schema."""
    curation = spec.get("curation") or {}
    named = [*(spec.get("mixture") or ()), *(curation.get("deduplicateAgainst") or ())]
    return {d["name"] for d in (*named, *((curation.get("contamination") or {}).get("datasets") or ()))}


def named_versions(spec: Mapping[str, Any]) -> set[str]:
    """Names of the ModelVersions that a Dataset's spec refers to."""
    return {n for s in (spec.get("curation") or {}).get("scores") or () if (n := s.get("modelVersion"))}


def source_mount(uri: str) -> tuple[Mount | None, str | None]:
    """(mount, path in the pod) of a source inside the namespace; (None, None) for one that is downloaded."""
    scheme, head, path = names.split_uri(uri)
    if scheme == "pvc":
        return Mount.claim("source", SOURCE, head), str(SOURCE / path)
    if scheme == "configmap":
        # Optional: if the ConfigMap is deleted after the check, the pod reports it instead of hanging.
        volume = {"configMap": {"name": head, "optional": True, "items": [{"key": path, "path": path}]}}
        return Mount("source", SOURCE, volume), str(SOURCE / path)
    return None, None


def in_two_steps(owner: Mapping[str, Any], spec: DatasetSpec, job_name: str, work: Work, platform: Platform) -> Work:
    """The work in two containers. The first parses foreign data. Of the store it may write only a folder of its own
    Job, the batch of generated rows, and a folder of its Dataset for the next attempt. The second publishes from there.
    Everything that runs rely on is read-only for the first.

    The first container's store is one mount, since a rename cannot cross mounts.
    """
    folder = f"{INCOMING}/{job_name}"
    batch = [str(batch_folder(owner["metadata"]["name"], spec.synthesis))] if spec.synthesis else []
    paths = {"incoming": str(names.STORE / folder)}
    kept = []
    if spec.source and (work.pods > 1 or not spec.source.uri.startswith(TINY)):
        kept = [f"{SOURCE_FILES}/{owner['metadata']['uid']}"]
        paths["downloads_path"] = str(names.STORE / kept[0])
    return replace(
        work,
        plan=work.plan.model_copy(update=paths),
        mounts=(*writable_folders(platform, folder, *batch, *kept), *work.mounts),
        publisher=(
            store(platform),
            *read_only_folders(platform, "base-models", "encoded", "evaluation-tasks", "models", "runs"),
        ),
    )


def materialize(
    owner: Mapping[str, Any],
    spec: DatasetSpec,
    number: int,
    platform: Platform,
    named: ReferencedObjects | None = None,
    source_version: str | None = None,
) -> list[dict[str, Any]]:
    """ConfigMap and Job of attempt `number` for the Dataset's present generation.

    Args:
        source_version: sourceVersion of the content in use; a source that still has this version is not read again.

    Raises:
        names.InvalidReferenceError: the source's path leaves its root.
    """
    named = named or ReferencedObjects()
    work = _mix(owner, spec, platform, named) if spec.mixture else _read(owner, spec, platform, named, source_version)
    meta = owner["metadata"]
    generation = meta.get("generation", 1)
    labels = names.labels(COMPONENT, owner, **{names.GENERATION: str(generation), names.STAGING_ATTEMPT: str(number)})
    name = names.materialize(meta["name"], meta["uid"], generation, number)
    job, work = JobName(name, labels), in_two_steps(owner, spec, name, work, platform)
    return job_with_plan(owner, job, work, platform)


def _read(
    owner: Mapping[str, Any],
    spec: DatasetSpec,
    platform: Platform,
    named: ReferencedObjects,
    source_version: str | None,
) -> Work:
    """Read a source."""
    assert spec.source is not None
    meta = owner["metadata"]
    mount, path = source_mount(spec.source.uri)
    secrets, secret_path = secret_mounts(spec.source.secret_name)
    fields, more = generation_of(owner, spec)
    plan = MaterializePlan(
        name=meta["name"],
        source=spec.source,
        source_path=path,
        secret_path=secret_path,
        format=spec.format,
        columns=spec.columns or {},
        ignore_columns=spec.ignore_columns or [],
        splits=spec.splits,
        checks=spec.checks,
        curation=spec.curation or Curation(),
        evaluation_sets=list(named.evaluation_sets),
        deduplicate_against=list(named.deduplicate_against),
        other_datasets=list(named.others),
        classifiers={name: modelref.model_input(model, platform) for name, model in named.classifiers.items()},
        **fields,
        previous=_previous(owner),
        previous_split_settings=(owner.get("status") or {}).get("splitSettings"),
        known=source_version,
        store=str(names.STORE),
        **platform.network(meta["namespace"]),
        pods=spec.resources.pods if spec.resources.pods > 1 else None,
    )
    models = modelref.places(named.classifiers.values(), platform)
    stored = read_only_folders(platform, "datasets", *modelref.store_folders(named.classifiers.values(), platform))
    return Work(
        component=COMPONENT,
        verb="materialize",
        plan=plan,
        cpu=spec.resources.cpu or platform.datasets.cpu,
        memory=spec.resources.memory or platform.datasets.memory,
        mounts=(*stored, *([mount] if mount else []), *secrets, *more, *models),
        env=hub_environment(platform),
        pods=spec.resources.pods,
    )


def _mix(owner: Mapping[str, Any], spec: DatasetSpec, platform: Platform, named: ReferencedObjects) -> Work:
    """Mix other Datasets, which are in the store already."""
    plan = MixPlan(
        name=owner["metadata"]["name"],
        parts=list(named.parts),
        other_datasets=list(named.others),
        by=spec.mixture_by,
        total=spec.mixture_total,
        seed=spec.splits.seed,
        checks=spec.checks,
        previous=_previous(owner),
        store=str(names.STORE),
    )
    return Work(
        component=COMPONENT,
        verb="mix",
        plan=plan,
        cpu=spec.resources.cpu or platform.datasets.cpu,
        memory=spec.resources.memory or platform.datasets.memory,
        mounts=read_only_folders(platform, "datasets"),
    )


def _previous(owner: Mapping[str, Any]) -> str | None:
    """Digest of the content that is being replaced."""
    digest: str | None = (owner.get("status") or {}).get("digest")
    return digest
