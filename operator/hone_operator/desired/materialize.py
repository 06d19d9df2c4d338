"""The Job that materialises a Dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from hone_api.curation import Curation
from hone_api.dataset import DatasetSpec
from hone_api.finetunejob_status import PinnedModel
from hone_api.plan import DatasetInput, MaterializePlan, MixPlan
from hone_api.review import batch_folder
from hone_operator.desired import modelref, names
from hone_operator.desired.hub import hub_environment, secret_mounts
from hone_operator.desired.job import JobName, job
from hone_operator.desired.platform import Platform
from hone_operator.desired.pod import Mount, Work, read_only, store, writable
from hone_operator.desired.synthesis import generation as generation_of

SOURCE = PurePosixPath("/source")
INCOMING = "incoming"
"""Folder of the store with one for each Job that makes rows, until they are published."""


@dataclass(frozen=True)
class Named:
    """The objects of the namespace that the curation and the mixture name, as they are now."""

    parts: Sequence[DatasetInput] = ()
    """Of a mixture: every split of every Dataset, share is the weight."""
    evaluation_sets: Sequence[DatasetInput] = ()
    classifiers: Mapping[str, PinnedModel] = field(default_factory=dict)


def named_datasets(spec: Mapping[str, Any]) -> set[str]:
    """Names of the Datasets that a Dataset's spec has; the spec may be older than its schema."""
    contamination = (spec.get("curation") or {}).get("contamination") or {}
    return {d["name"] for d in (*(contamination.get("datasets") or ()), *(spec.get("mixture") or ()))}


def named_versions(spec: Mapping[str, Any]) -> set[str]:
    """Names of the ModelVersions that a Dataset's spec has."""
    return {n for s in (spec.get("curation") or {}).get("scores") or () if (n := s.get("modelVersion"))}


def source_mount(uri: str) -> tuple[Mount | None, str | None]:
    """(mount, path in the pod) of a source inside the namespace; (None, None) for one that is downloaded."""
    scheme, head, path = names.split_uri(uri)
    if scheme == "pvc":
        return Mount.claim("source", SOURCE, head), str(SOURCE / path)
    if scheme == "configmap":
        # Optional: a ConfigMap deleted after the check ends in a report by the pod, not in a pod that hangs.
        volume = {"configMap": {"name": head, "optional": True, "items": [{"key": path, "path": path}]}}
        return Mount("source", SOURCE, volume), str(SOURCE / path)
    return None, None


def in_two_steps(owner: Mapping[str, Any], spec: DatasetSpec, job_name: str, work: Work, platform: Platform) -> Work:
    """The work, so that what parses foreign data writes no more of the store than a folder of its Job's own, and the
    batch of generated rows. A second container publishes from there; what runs rely on or have made it can only read.

    Its store is one mount, since a rename does not cross mounts.
    """
    folder = f"{INCOMING}/{job_name}"
    batch = [str(batch_folder(owner["metadata"]["name"], spec.synthesis))] if spec.synthesis else []
    return replace(
        work,
        plan=work.plan.model_copy(update={"incoming": str(names.STORE / folder)}),
        mounts=(*writable(platform, folder, *batch), *work.mounts),
        publisher=(
            store(platform),
            *read_only(platform, "base-models", "evaluation-tasks", "models", "runs"),
        ),
    )


def materialize(
    owner: Mapping[str, Any],
    spec: DatasetSpec,
    number: int,
    platform: Platform,
    named: Named | None = None,
    known: str | None = None,
) -> list[dict[str, Any]]:
    """ConfigMap and Job of try `number` for the Dataset's present generation.

    Args:
        known: sourceVersion of what is served; a source that has it still is not read.

    Raises:
        names.InvalidReferenceError: when the source's path leaves its root.
    """
    named = named or Named()
    work = _mix(owner, spec, platform, named) if spec.mixture else _read(owner, spec, platform, named, known)
    meta = owner["metadata"]
    generation = meta.get("generation", 1)
    labels = names.labels("materialize", owner, **{names.GENERATION: str(generation), names.TRY: str(number)})
    name = names.materialize(meta["name"], meta["uid"], generation, number)
    return job(owner, JobName(name, labels), in_two_steps(owner, spec, name, work, platform), platform)


def _read(owner: Mapping[str, Any], spec: DatasetSpec, platform: Platform, named: Named, known: str | None) -> Work:
    """Read a source."""
    assert spec.source is not None
    meta = owner["metadata"]
    mount, path = source_mount(spec.source.uri)
    secrets, secret_path = secret_mounts(spec.source.secret_name)
    fields, more = generation_of(owner, spec, platform)
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
        classifiers={name: modelref.model_input(model, platform) for name, model in named.classifiers.items()},
        **fields,
        previous=_previous(owner),
        previous_split_settings=(owner.get("status") or {}).get("splitSettings"),
        known=known,
        namespace=meta["namespace"],
        store=str(names.STORE),
        limits=platform.limits,
    )
    models = modelref.places(named.classifiers.values(), platform)
    stored = read_only(platform, "datasets", *modelref.stored(named.classifiers.values(), platform))
    return Work(
        component="materialize",
        verb="materialize",
        plan=plan,
        cpu=spec.resources.cpu,
        memory=spec.resources.memory,
        mounts=(*stored, *([mount] if mount else []), *secrets, *more, *models),
        env=hub_environment(platform),
    )


def _mix(owner: Mapping[str, Any], spec: DatasetSpec, platform: Platform, named: Named) -> Work:
    """Mix other Datasets, which lie in the store already."""
    plan = MixPlan(
        name=owner["metadata"]["name"],
        parts=list(named.parts),
        by=spec.mixture_by,
        total=spec.mixture_total,
        seed=spec.splits.seed,
        checks=spec.checks,
        previous=_previous(owner),
        store=str(names.STORE),
    )
    return Work(
        component="materialize",
        verb="mix",
        plan=plan,
        cpu=spec.resources.cpu,
        memory=spec.resources.memory,
        mounts=read_only(platform, "datasets"),
    )


def _previous(owner: Mapping[str, Any]) -> str | None:
    """The content that is being replaced."""
    digest: str | None = (owner.get("status") or {}).get("digest")
    return digest
