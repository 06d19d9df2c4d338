"""Which keys a change concerns: the object's own key, its owners, and objects that wait for it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from hone_api.contract.served import CONFIG_MAP
from hone_api.words.states import ConditionType
from hone_operator.desired.core import names
from hone_operator.desired.dataset.materialize import named_datasets, named_versions
from hone_operator.desired.staging.encode import COMPONENT as ENCODE
from hone_operator.objects import cache as caches
from hone_operator.objects.cache import Cache
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.model import aliases, model_deliveries
from hone_operator.reconcile.retrain.retraining import made_model


class Key(NamedTuple):
    """One of our objects."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


CONTENTS = "Contents"
"""Kind of a key that is not an object: see `sweeping`."""
SERVED = "Served"
"""The same: see `handover`."""
PATIENCE = 1.0
"""Seconds that a run may wait for what is about to change."""


class Request(Protocol):
    """Requests a run of a key, now or after some seconds."""

    def __call__(self, key: Key, after: float = 0.0, /) -> None: ...


def keys_concerned(kind: str, body: Mapping[str, Any], cache: Cache) -> list[Key]:
    """The keys to run because this object changed."""
    meta = body["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    gone = cache.get(kind, namespace, name) is None
    if kind in names.OWNER_LABEL:
        goes = body.get("spec", {}).get("deletionPolicy") == "Delete"  # the ledger must have it before it is deleted
        swept = [contents_of(namespace)] if kind == "Dataset" or (gone and kind != "Model") or goes else []
        measured = [v["metadata"]["name"] for v in cache.measured_on(kind, namespace, name)]
        swept += [Key("ModelVersion", namespace, version) for version in measured]
        return [Key(kind, namespace, name), *_users_of(kind, body, cache), *_model_of(kind, body, cache), *swept]
    owner = caches.owner_of(body)
    if kind in ("Pod", "Workload") and owner:
        job = cache.get("Job", namespace, owner.name)
        owner = caches.owner_of(job) if job and caches.controls(job, body) else None
    if owner is None or owner.api_version != caches.API_VERSIONS.get(owner.kind):
        return []
    if owner.kind in names.OWNER_LABEL:
        cached = cache.get(owner.kind, namespace, owner.name)
        if cached is not None and caches.as_owner(cached) != owner:
            return []  # the owner is an earlier object of this name, or never existed
        swept = [contents_of(namespace)] if kind == "Job" and gone else []
        return [Key(owner.kind, namespace, owner.name), *swept]
    if owner.kind == "PersistentVolumeClaim":
        # The ledger must have what was encoded before the last object that names it is deleted.
        encodes = kind == "Job" and (meta.get("labels") or {}).get(names.COMPONENT) == ENCODE
        return [*_not_begun(namespace, cache), *([contents_of(namespace)] if encodes else [])]
    if (owner.kind, owner.name) == ("ConfigMap", names.CONTENTS) and kind == "Job":
        return [contents_of(namespace)]
    return []


def patience(kind: str, body: Mapping[str, Any], key: Key, cache: Cache) -> float:
    """How many seconds a run of `key` may wait, if this object was changed by anybody but a user.

    Until the pods of a job in Kueue's queue run, Kueue, the Job controller and the scheduler write about it ten times
    in a moment. One run sees them all, and one status shows them all.
    """
    job = cache.get(*key) if key.kind == "FineTuneJob" else None
    if job is None or is_true(job, ConditionType.RUNNING) or is_true(job, ConditionType.FINISHED):
        return 0.0
    owner = caches.owner_of(body)
    created = kind == "Job" and owner is not None and owner.kind == key.kind  # the status does not name its queue yet
    is_queued = created and names.QUEUE in (body["metadata"].get("labels") or {})
    return PATIENCE if is_queued or "name" in ((job.get("status") or {}).get("queue") or {}) else 0.0


def _not_begun(namespace: str, cache: Cache) -> list[Key]:
    """FineTuneJobs that may wait for shared staging in the store."""
    waiting = [j for j in cache.unfinished(namespace) if not (j.get("status") or {}).get("attempts")]
    return [Key("FineTuneJob", namespace, j["metadata"]["name"]) for j in waiting]


def contents_of(namespace: str) -> Key:
    """The key for the content of Datasets in a namespace's store."""
    return Key(CONTENTS, namespace, names.CONTENTS)


def served_key(namespace: str) -> Key:
    """The key for what servers of a namespace may load."""
    return Key(SERVED, namespace, CONFIG_MAP)


def _users_of(kind: str, body: Mapping[str, Any], cache: Cache) -> list[Key]:
    """Unfinished FineTuneJobs that refer to this object, or the job that made it."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    maker = body["spec"].get("lineage", {}).get("job", {}).get("name") if kind == "ModelVersion" else None
    upstream = name if kind == "FineTuneJob" else maker
    users = cache.followers(namespace, upstream) if upstream else []
    if maker and (job := cache.get("FineTuneJob", namespace, maker)):
        users.append(job)  # its status may be lost
    if kind != "FineTuneJob":
        users += cache.users(kind, namespace, name)
    keys = dict.fromkeys(
        Key("FineTuneJob", namespace, job["metadata"]["name"])
        for job in users
        if not is_true(job, ConditionType.FINISHED)
    )
    return [*keys, *_datasets_that_name(kind, body, cache)]


def _model_of(kind: str, body: Mapping[str, Any], cache: Cache) -> list[Key]:
    """The Model whose aliases may point to this ModelVersion, or that repeats jobs because of this object; the
    ModelVersions that show other aliases or deliveries than the Model has. What servers may load follows from both."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    if kind == "ModelVersion":
        model = body["spec"].get("modelName", "")
        return [Key("Model", namespace, model), served_key(namespace)] if cache.get("Model", namespace, model) else []
    if kind in ("FineTuneJob", "Dataset"):
        models = cache.items("Model", namespace)
        if kind == "Dataset":
            concerned = [m for m in models if m["spec"].get("retrain") or m["spec"].get("imports")]
        else:
            concerned = [m for m in models if m["spec"].get("retrain") and made_model(body) == m["metadata"]["name"]]
        return [Key("Model", namespace, m["metadata"]["name"]) for m in concerned]
    watching = [
        m["metadata"]["name"] for m in cache.items("Model", namespace) if (m["spec"].get("retrain") or {}).get("base")
    ]
    others = [Key("Model", namespace, other) for other in watching if other != name]  # their base may be an alias of it
    now, versions = cache.get("Model", namespace, name), cache.versions_of(namespace, name)
    shown = {v["metadata"]["name"]: (v.get("status") or {}).get("aliases") for v in versions}
    changed = [
        v["metadata"]["name"]
        for v in versions
        if aliases.at(now, v["metadata"]["name"]) != shown[v["metadata"]["name"]] or model_deliveries.differ(now, v)
    ]
    return [*others, *(Key("ModelVersion", namespace, version) for version in changed), served_key(namespace)]


def _datasets_that_name(kind: str, body: Mapping[str, Any], cache: Cache) -> list[Key]:
    """Datasets that wait for this object."""
    if kind not in _NAMED_BY_DATASETS:
        return []
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    return [
        Key("Dataset", namespace, other["metadata"]["name"])
        for other in cache.items("Dataset", namespace)
        if name in _NAMED_BY_DATASETS[kind](other["spec"])
    ]


_NAMED_BY_DATASETS = {"Dataset": named_datasets, "ModelVersion": named_versions}
