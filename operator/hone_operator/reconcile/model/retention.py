"""Which versions of a model are deleted because newer ones exist: never one that somebody has chosen or uses. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hone_api.kinds.model import ModelSpec, VersionRetention
from hone_api.words.states import ApprovalState, ConditionType
from hone_operator.desired.core import modelref
from hone_operator.desired.dataset.materialize import named_versions
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.model import aliases

Body = Mapping[str, Any]


def surplus(spec: ModelSpec, status: Body, versions: Mapping[int, Body]) -> list[Body]:
    """ModelVersions that `retention.keep` does not count and that nothing of the Model needs, oldest first.

    It counts the newest, and the newest that can be used: one that is rejected, broken, or not verified yet pushes out
    none of those.
    """
    if spec.retention is None:
        return []
    pinned = {alias.version for alias in spec.aliases or ()}
    aliased = {entry["modelVersion"] for entry in status.get("aliases") or ()}
    keep, numbers = spec.retention.keep, sorted(n for n, body in versions.items() if not _goes(body))
    usable = [n for n in numbers if aliases.unusable(n, versions[n]) is None]
    stay = {*numbers[-keep:], *usable[-keep:], *pinned}
    return [versions[n] for n in numbers if n not in stay and not _chosen(versions[n], aliased)]


def words_of(body: Body, retention: VersionRetention | None) -> str:
    """What is reported of a version that is deleted."""
    goes = body["spec"].get("deletionPolicy") == "Delete"
    files = "Its files are removed later" if goes else "Its files stay"
    policy = "Delete" if goes else "Retain"
    kept = f"ModelVersion {body['metadata']['name']} is deleted: spec.retention keeps the newest"
    return f"{kept} {retention.keep if retention else 0}. {files}: its deletionPolicy is {policy}."


def _chosen(body: Body, aliased: set[str]) -> bool:
    """Whether a person approved it, an alias points to it, or a Job may still be verifying its files."""
    if body["metadata"]["name"] in aliased:
        return True
    if (body["spec"].get("approval") or {}).get("state") == ApprovalState.APPROVED:
        return True
    return not (is_true(body, ConditionType.READY) or is_true(body, ConditionType.STALLED))


def _goes(body: Body) -> bool:
    return bool(body["metadata"].get("deletionTimestamp"))


def needed_versions(versions: Iterable[Body], jobs: Iterable[Body], datasets: Iterable[Body]) -> set[str]:
    """Names of the ModelVersions that other objects of a namespace need: parents, and what unfinished work names."""
    names = {name for version in versions for name in modelref.parents(version["spec"])}
    by_name = {job["metadata"]["name"]: job for job in jobs}
    for job in by_name.values():
        if not is_true(job, ConditionType.FINISHED):
            names |= set(_used_by(job, by_name))
    return names.union(*(named_versions(dataset["spec"]) for dataset in datasets))


def _used_by(job: Body, jobs: Mapping[str, Body]) -> Iterator[str]:
    status = job.get("status") or {}
    before = jobs.get(job["spec"]["model"].get("fineTuneJob") or "", {})
    resolved = status.get("resolved") or {}
    pinned = [resolved.get("modelVersion") or {}, *(resolved.get("modelVersions") or ())]
    named = [status.get("baseModelVersion"), (before.get("status") or {}).get("modelVersionName")]
    yield from (name for name in (*named, *(pin.get("name") for pin in pinned)) if name)
    yield from modelref.versions(job["spec"])
