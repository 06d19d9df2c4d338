"""The newest body of every object that we watch, stripped to the fields that are read. Filled by lists and watches.

The operator's own writes also go into it at once, so a decision never sees less than what was decided before.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from hone_api import API_VERSION, GROUP
from hone_api.blocks.retrain import RETRAIN_REQUESTED
from hone_api.dataset.synthesis import REVIEW
from hone_operator.desired.core import modelref, names
from hone_operator.objects import pruning
from hone_operator.objects.index import KeyIndex, Ref
from hone_operator.objects.packing import PackedBody, has_ended
from hone_operator.objects.pruning import UNKNOWN
from hone_operator.objects.sharing import compact, shared
from hone_operator.objects.tombstones import Tombstones

INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"
API_VERSIONS = {kind: API_VERSION for kind in names.OWNER_LABEL} | {
    "Job": "batch/v1",
    "ConfigMap": "v1",
    "PersistentVolumeClaim": "v1",
}

Body = Mapping[str, Any]
"""Nobody may change one that the cache returns."""

REMEMBERED_DELETIONS = 4096
OURS = frozenset(names.OWNER_LABEL)
META_FIELDS = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")
POD_FIELDS = ("phase", "reason", "message", "conditions", "startTime")
LABELS = frozenset(
    {
        *names.OWNER_LABEL.values(),
        names.COMPONENT,
        names.ATTEMPT,
        names.RUN,
        names.STAGING_ATTEMPT,
        names.GENERATION,
        names.CONTENT,
        names.ROWS,
        names.VELERO,
        names.QUEUE,
        JOB_NAME,
        INDEX,
    }
)
"""Labels that are read."""
ANNOTATIONS = {
    "FineTuneJob": frozenset({names.RESTORED, names.MIN_PARALLELISM}),
    "Dataset": frozenset({REVIEW}),
    "ModelVersion": frozenset({names.RETRY}),
    "Model": frozenset({names.RETRY, RETRAIN_REQUESTED}),
    "Job": frozenset({names.RESOLVED, names.ANCESTORS, names.DELIVERY, names.RETRY}),
    "Pod": frozenset({INDEX}),
    "Workload": frozenset({names.HELD}),
}
"""Annotations that are read, by kind."""


class Owner(NamedTuple):
    """The controller of an object. Every part must match, because everything except the uid is readable by
    everybody."""

    namespace: str
    api_version: str
    kind: str
    name: str
    uid: str


def strip(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A new body with only the fields that are read; for our own kinds, the fields that this version knows.

    `metadata.unknownFields` lists the fields of the spec that it does not know.
    """
    meta = {k: v for k in META_FIELDS if (v := body["metadata"].get(k)) is not None}
    for part, read in (("labels", LABELS), ("annotations", ANNOTATIONS.get(kind, frozenset()))):
        if kept := {k: v for k, v in (body["metadata"].get(part) or {}).items() if k in read}:
            meta[part] = compact(kept)
    if controllers := [r for r in body["metadata"].get("ownerReferences") or () if r.get("controller")]:
        meta["ownerReferences"] = compact(controllers[:1])
    status = body.get("status") or {}
    spec = body.get("spec") or {}
    if kind == "Job":
        emptied = {"parallelism": 0} if spec.get("parallelism") == 0 else {}
        spec = {"suspend": spec.get("suspend", False), "completions": spec.get("completions"), **emptied}
        status = {k: v for k, v in status.items() if k != "uncountedTerminatedPods"}
    elif kind == "Pod":
        spec = {"nodeName": spec["nodeName"]} if spec.get("nodeName") else _asked(spec)
        status = _pod_status(status)
    elif kind == "Workload":
        spec = {k: spec[k] for k in ("active", "priority") if k in spec}
        status = _workload_status(status)
    elif kind in OURS:
        spec, unknown = pruning.known_spec(kind, spec)
        # A body that was stripped before has no unknown field left. Users cannot set this: metadata has a fixed shape.
        if named := body["metadata"].get(UNKNOWN) or unknown:
            meta[UNKNOWN] = named
        out = {"apiVersion": shared(body.get("apiVersion", "")), "kind": kind, "metadata": meta}
        return {**out, "spec": spec, "status": pruning.known_status(kind, status)}
    return {"kind": kind, "metadata": meta, "spec": compact(spec), "status": compact(status)}


def _pod_status(status: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {k: status[k] for k in POD_FIELDS if k in status}
    for name in ("initContainerStatuses", "containerStatuses"):
        if containers := status.get(name):
            kept[name] = [{k: c[k] for k in ("name", "state", "restartCount", "imageID") if k in c} for c in containers]
    return kept


def _workload_status(status: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {k: status[k] for k in ("conditions", "accumulatedPastExecutionTimeSeconds") if k in status}
    if queue := (status.get("admission") or {}).get("clusterQueue"):
        kept["admission"] = {"clusterQueue": queue}
    if checks := status.get("admissionChecks"):
        kept["admissionChecks"] = [{k: c.get(k) for k in ("name", "state", "message")} for c in checks]
    if evictions := (status.get("schedulingStats") or {}).get("evictions"):
        kept["schedulingStats"] = {"evictions": [{k: e.get(k) for k in ("reason", "count")} for e in evictions]}
    return kept


def _asked(spec: Mapping[str, Any]) -> Body:
    """For a pod without a node: the fields that the scheduler's messages are about."""
    requests = [(c.get("resources") or {}).get("requests") or {} for c in spec.get("containers") or ()]
    claims = [v["persistentVolumeClaim"] for v in spec.get("volumes") or () if v.get("persistentVolumeClaim")]
    gates = [{"name": gate["name"]} for gate in spec.get("schedulingGates") or ()]
    return {
        **({"schedulingGates": gates} if gates else {}),
        "containers": [{"resources": {"requests": dict(r)}} for r in requests],
        "nodeSelector": dict(spec.get("nodeSelector") or {}),
        "volumes": [{"persistentVolumeClaim": {"claimName": c["claimName"]}} for c in claims],
    }


class Cache:
    """Objects by kind, namespace and name, and indexes of what is asked about them."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Ref, Body]] = defaultdict(dict)
        self._in_namespace: dict[tuple[str, str], dict[Ref, Body]] = defaultdict(dict)
        """The same by kind and namespace: a change in one namespace must not require reading all the others."""
        self._children = KeyIndex()
        """Objects by their kind and controller."""
        self._shared = KeyIndex()
        """Jobs by (namespace, content) of their shared work."""
        self._unfinished = KeyIndex()
        """FineTuneJobs by namespace."""
        self._followers = KeyIndex()
        """Unfinished FineTuneJobs by (namespace, name) of the job before them."""
        self._users = KeyIndex()
        """Unfinished FineTuneJobs by the (kind, namespace, name) of Datasets, ModelVersions and Models that they refer
        to."""
        self._making = KeyIndex()
        """FineTuneJobs by (namespace, name) of the model that they make."""
        self._made = KeyIndex()
        """ModelVersions by (namespace, name or uid of the job that made them)."""
        self._named_so = KeyIndex()
        """ModelVersions by (namespace, name of the model)."""
        self._trained_from = KeyIndex()
        """ModelVersions by (namespace, name) of each ModelVersion in their lineage."""
        self._measured = KeyIndex()
        """ModelVersions by the (kind, namespace, name) of what their evaluations name."""
        self._gone = Tombstones(REMEMBERED_DELETIONS)

    def put(self, kind: str, body: Mapping[str, Any], *, is_stripped: bool = False) -> bool:
        """Keep this body; False if it is not newer than the cached one, or the object was deleted.

        Args:
            is_stripped: whether `strip` made the body, and nobody has copied it since.
        """
        meta = body["metadata"]
        ref = (meta["namespace"], meta["name"])
        old = self._objects[kind].get(ref)
        if meta["uid"] in self._gone:
            return False
        if old is not None and old["metadata"]["uid"] == meta["uid"] and 0 < version(body) <= version(old):
            return False
        if old is not None:  # its labels and owners may have changed
            self._unlink(kind, ref, old)
        stripped = body if is_stripped else strip(kind, body)
        if lost := self.lost_labels(kind, stripped):
            labels = {**(stripped["metadata"].get("labels") or {}), **lost}
            stripped = {**stripped, "metadata": {**stripped["metadata"], "labels": compact(labels)}}
        for index, key in self._links(kind, stripped):
            index.add(key, ref)
        kept: Body = PackedBody(stripped) if has_ended(kind, stripped) else stripped
        self._objects[kind][ref] = self._in_namespace[kind, meta["namespace"]][ref] = kept
        return True

    def remove(self, kind: str, body: Mapping[str, Any], *, is_deleted: bool = True) -> None:
        """Remove a deleted object, for good, or one that is of no interest now; another of its name stays."""
        meta = body["metadata"]
        ref = (meta["namespace"], meta["name"])
        if is_deleted:
            self._gone.add(meta["uid"])
        old = self._objects[kind].get(ref)
        if old is not None and old["metadata"]["uid"] == meta["uid"]:
            self._unlink(kind, ref, old)
            del self._objects[kind][ref]
            here = self._in_namespace[kind, meta["namespace"]]
            del here[ref]
            if not here:
                del self._in_namespace[kind, meta["namespace"]]

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))

    def _unlink(self, kind: str, ref: Ref, old: Body) -> None:
        for index, key in self._links(kind, old):
            index.discard(key, ref)

    def _links(self, kind: str, body: Body) -> Iterator[tuple[KeyIndex, Hashable]]:
        """The indexes in which an object is, each with the object's key."""
        namespace = body["metadata"]["namespace"]
        if owner := owner_of(body):
            yield self._children, (kind, owner)
        if kind == "Job" and (content := (body["metadata"].get("labels") or {}).get(names.CONTENT)):
            yield self._shared, (namespace, content)
        elif kind == "ModelVersion":
            yield from ((self._made, (namespace, maker)) for maker in _makers(body))
            yield from ((self._trained_from, (namespace, parent)) for parent in modelref.parents(body["spec"]))
            if model := body["spec"].get("modelName"):
                yield self._named_so, (namespace, model)
            yield from ((self._measured, (of, namespace, name)) for of, name in modelref.measured_on(body["spec"]))
        elif kind == "FineTuneJob":
            if model := (body["spec"].get("output") or {}).get("modelName"):
                yield self._making, (namespace, model)
            if not has_ended(kind, body):
                yield self._unfinished, namespace
                if before := (body["spec"].get("model") or {}).get("fineTuneJob"):
                    yield self._followers, (namespace, before)
                yield from ((self._users, named) for named in _named(body))

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        return self._objects[kind].get((namespace, name))

    def has(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Whether this version of an object is here; never of one without a namespace."""
        meta = body["metadata"]
        here = self.get(kind, meta.get("namespace", ""), meta["name"])
        return here is not None and all(here["metadata"].get(key) == meta[key] for key in ("uid", "resourceVersion"))

    def is_kept(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Whether an object of this kind is of interest: what is here, until its deletion, and what is ours.

        Jobs are of interest also without a controller: one whose FineTuneJob was deleted without it still writes. Of
        pods and Workloads, only those of Jobs that are here are.
        """
        if kind in OURS or kind == "Job":
            return True
        meta = body["metadata"]
        return self.get(kind, meta["namespace"], meta["name"]) is not None or self.is_ours(body)

    def is_ours(self, body: Mapping[str, Any]) -> bool:
        """Whether the controller of an object is here, by every part of the reference: anybody can set our labels."""
        owner = owner_of(body)
        return owner is not None and controls(self.get(owner.kind, owner.namespace, owner.name), body)

    def lost_labels(self, kind: str, body: Mapping[str, Any]) -> dict[str, str]:
        """Labels that we gave a Job which is here, and that somebody has removed or changed since."""
        meta = body["metadata"]
        here = self.get(kind, meta["namespace"], meta["name"]) if kind == "Job" else None
        if here is None or here["metadata"]["uid"] != meta["uid"] or not self.is_ours(body):
            return {}
        now = meta.get("labels") or {}
        ours = (here["metadata"].get("labels") or {}).items()
        return {name: value for name, value in ours if name.startswith(f"{GROUP}/") and now.get(name) != value}

    def items(self, kind: str, namespace: str | None = None) -> list[Body]:
        """All objects of a kind, or of one namespace; a list, because a watch may change the cache meanwhile."""
        objects = self._objects[kind] if namespace is None else self._in_namespace.get((kind, namespace), {})
        return list(objects.values())

    def children(self, parent: Mapping[str, Any], kind: str) -> list[Body]:
        """Objects of `kind` in the namespace of `parent` whose controller is `parent`, by every part of the
        reference."""
        return self._found(kind, self._children, (kind, as_owner(parent)))

    def shared(self, namespace: str, content: str) -> list[Body]:
        """Jobs that do the same shared work, by the label with its content."""
        return self._found("Job", self._shared, (namespace, content))

    def unfinished(self, namespace: str) -> list[Body]:
        """FineTuneJobs that have not ended."""
        return self._found("FineTuneJob", self._unfinished, namespace)

    def followers(self, namespace: str, name: str) -> list[Body]:
        """Unfinished FineTuneJobs that start from the model of this one."""
        return self._found("FineTuneJob", self._followers, (namespace, name))

    def users(self, kind: str, namespace: str, name: str) -> list[Body]:
        """Unfinished FineTuneJobs that refer to this Dataset, ModelVersion or Model."""
        return self._found("FineTuneJob", self._users, (kind, namespace, name))

    def making(self, namespace: str, model: str) -> list[Body]:
        """FineTuneJobs that make, or made, versions of this model."""
        return self._found("FineTuneJob", self._making, (namespace, model))

    def made_by(self, namespace: str, name: str, uid: str) -> list[Body]:
        """ModelVersions whose lineage refers to this job, by uid or by name."""
        refs = dict.fromkeys([*self._made.refs((namespace, uid)), *self._made.refs((namespace, name))])
        return [self._objects["ModelVersion"][ref] for ref in refs]

    def versions_of(self, namespace: str, model: str) -> list[Body]:
        """ModelVersions of the model of this name."""
        return self._found("ModelVersion", self._named_so, (namespace, model))

    def trained_from(self, namespace: str, name: str) -> list[Body]:
        """ModelVersions that have the one of this name in their lineage."""
        return self._found("ModelVersion", self._trained_from, (namespace, name))

    def measured_on(self, kind: str, namespace: str, name: str) -> list[Body]:
        """ModelVersions whose evaluations name this Dataset, Model or ModelVersion."""
        return self._found("ModelVersion", self._measured, (kind, namespace, name))

    def _found(self, kind: str, index: KeyIndex, key: Hashable) -> list[Body]:
        return [self._objects[kind][ref] for ref in index.refs(key)]

    def pod(self, namespace: str, name: str) -> Body | None:
        """The pod that a token is bound to, for the progress server."""
        return self.get("Pod", namespace, name)


def _makers(body: Body) -> list[str]:
    """uid and name of the job that made a ModelVersion; lineage is immutable."""
    job = (body["spec"].get("lineage") or {}).get("job") or {}
    return [job[key] for key in ("uid", "name") if job.get(key)]


def _named(job: Body) -> set[tuple[str, str, str]]:
    """(kind, namespace, name) of each Dataset, ModelVersion and Model that a FineTuneJob refers to."""
    spec, namespace = job["spec"], job["metadata"]["namespace"]
    try:
        aliases = (modelref.alias(spec), modelref.comparison_alias(spec))
        names_of = {
            "Dataset": modelref.datasets(spec),
            "ModelVersion": modelref.versions(spec) | _meant(job),
            "Model": {alias[0] for alias in aliases if alias},
        }
    except (AttributeError, KeyError, TypeError):  # from an older schema: its own run reports it
        return set()
    return {(named, namespace, name) for named, names in names_of.items() for name in names}


def _meant(body: Mapping[str, Any]) -> set[str]:
    """The ModelVersion to which the alias pointed that the job starts from."""
    name = (body.get("status") or {}).get("baseModelVersion")
    return {name} if name else set()


def owner_of(body: Mapping[str, Any]) -> Owner | None:
    """The controller in an object's owner references; it is in the same namespace."""
    meta = body["metadata"]
    for ref in meta.get("ownerReferences") or ():
        if ref.get("controller"):
            return Owner(meta["namespace"], ref["apiVersion"], ref["kind"], ref["name"], ref["uid"])
    return None


def as_owner(body: Mapping[str, Any]) -> Owner:
    """The owner reference that children of our object, a Job or a ConfigMap have."""
    kind, meta = body["kind"], body["metadata"]
    return Owner(meta["namespace"], API_VERSIONS[kind], kind, meta["name"], meta["uid"])


def controls(parent: Mapping[str, Any] | None, child: Mapping[str, Any] | None) -> bool:
    """Whether `parent` is the controller of `child`, by every part of the reference."""
    return parent is not None and child is not None and owner_of(child) == as_owner(parent)


def version(body: Mapping[str, Any]) -> int:
    """resourceVersion as a number, to decide which of two bodies of one object is newer."""
    # Kubernetes 1.35 documents resource versions as comparable numbers; they always were in etcd.
    text = body["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0
