"""The newest body of every object we watch, stripped of what nobody reads. Filled by kopf's watches.

Also the operator's own writes land here at once: a decision never sees less than what was decided before.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from hone_operator.desired.names import CONTENT

Body = dict[str, Any]
Ref = tuple[str, str]
"""(namespace, name)"""

REMEMBERED_DELETIONS = 4096
POD_FIELDS = ("phase", "reason", "message", "conditions", "startTime")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def strip(kind: str, body: Mapping[str, Any]) -> Body:
    """A new body without managed fields and copies of the object; of Jobs and Pods only what is read."""
    meta = dict(body["metadata"])
    meta.pop("managedFields", None)
    meta.pop("generateName", None)
    annotations = {k: v for k, v in (meta.pop("annotations", None) or {}).items() if k != LAST_APPLIED}
    if annotations:
        meta["annotations"] = annotations
    out: Body = {"kind": kind, "metadata": meta, "status": dict(body.get("status") or {})}
    spec = body.get("spec") or {}
    if kind == "Job":
        out["spec"] = {"suspend": spec.get("suspend", False), "completions": spec.get("completions")}
        out["status"].pop("uncountedTerminatedPods", None)
    elif kind == "Pod":
        out["spec"] = {"nodeName": spec["nodeName"]} if spec.get("nodeName") else _asked(spec)
        status = out["status"]
        out["status"] = {k: status[k] for k in POD_FIELDS if k in status}
        out["status"]["containerStatuses"] = [
            {k: c[k] for k in ("name", "state", "restartCount", "imageID") if k in c}
            for c in status.get("containerStatuses") or ()
        ]
    else:
        out["apiVersion"] = body.get("apiVersion", "")
        out["spec"] = spec if isinstance(spec, dict) else dict(spec)
    return out


def _asked(spec: Mapping[str, Any]) -> Body:
    """Of a pod without a node: what the scheduler's words are about."""
    requests = [(c.get("resources") or {}).get("requests") or {} for c in spec.get("containers") or ()]
    claims = [v["persistentVolumeClaim"] for v in spec.get("volumes") or () if v.get("persistentVolumeClaim")]
    return {
        "containers": [{"resources": {"requests": dict(r)}} for r in requests],
        "nodeSelector": dict(spec.get("nodeSelector") or {}),
        "volumes": [{"persistentVolumeClaim": {"claimName": c["claimName"]}} for c in claims],
    }


class Cache:
    """Objects by kind, namespace and name; children by the uid of their controller; jobs by the one before them;
    ModelVersions by the job that made them."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Ref, Body]] = defaultdict(dict)
        self._children: dict[str, dict[tuple[str, Ref], None]] = defaultdict(dict)
        self._followers: dict[Ref, dict[Ref, None]] = defaultdict(dict)
        self._made: dict[Ref, dict[Ref, None]] = defaultdict(dict)
        """ModelVersions by (namespace, name or uid of the job that made them)."""
        self._shared: dict[Ref, dict[Ref, None]] = defaultdict(dict)
        self._gone: OrderedDict[str, None] = OrderedDict()

    def put(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Keep this body; False when it is not newer than what is here, or the object is gone."""
        meta = body["metadata"]
        ref = (meta["namespace"], meta["name"])
        old = self._objects[kind].get(ref)
        if meta["uid"] in self._gone:
            return False
        if old is not None and old["metadata"]["uid"] == meta["uid"] and 0 < version(body) <= version(old):
            return False
        if old is not None:  # its labels and owners may have changed
            self._unlink(kind, ref, old)
        stripped = strip(kind, body)
        self._objects[kind][ref] = stripped
        if owner := owner_uid(stripped):
            self._children[owner][(kind, ref)] = None
        if before := _before(kind, stripped):
            self._followers[before][ref] = None
        for maker in _makers(kind, stripped):
            self._made[maker][ref] = None
        if content := _content(kind, stripped):
            self._shared[content][ref] = None
        return True

    def remove(self, kind: str, body: Mapping[str, Any]) -> None:
        """The object was deleted; one of the same name with another uid stays."""
        meta = body["metadata"]
        ref = (meta["namespace"], meta["name"])
        self._gone[meta["uid"]] = None
        if len(self._gone) > REMEMBERED_DELETIONS:
            self._gone.popitem(last=False)
        old = self._objects[kind].get(ref)
        if old is not None and old["metadata"]["uid"] == meta["uid"]:
            self._unlink(kind, ref, old)
            del self._objects[kind][ref]

    def _unlink(self, kind: str, ref: Ref, old: Body) -> None:
        if owner := owner_uid(old):
            children = self._children[owner]
            children.pop((kind, ref), None)
            if not children:
                del self._children[owner]
        if before := _before(kind, old):
            self._followers[before].pop(ref, None)
            if not self._followers[before]:
                del self._followers[before]
        for maker in _makers(kind, old):
            self._made[maker].pop(ref, None)
            if not self._made[maker]:
                del self._made[maker]
        if content := _content(kind, old):
            self._shared[content].pop(ref, None)
            if not self._shared[content]:
                del self._shared[content]

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        return self._objects[kind].get((namespace, name))

    def items(self, kind: str) -> Iterable[Body]:
        """All objects of a kind; a list, so that a watch may change the cache meanwhile."""
        return list(self._objects[kind].values())

    def children(self, uid: str, kind: str) -> list[Body]:
        """Objects of `kind` whose controller has this uid."""
        return [self._objects[k][ref] for k, ref in self._children.get(uid, ()) if k == kind]

    def shared(self, namespace: str, content: str) -> list[Body]:
        """Jobs that do the same work for whoever asks for it, by the label that tells what it is."""
        return [self._objects["Job"][ref] for ref in self._shared.get((namespace, content), ())]

    def followers(self, namespace: str, name: str) -> list[Body]:
        """FineTuneJobs that begin with the model of this one."""
        return [self._objects["FineTuneJob"][ref] for ref in self._followers.get((namespace, name), ())]

    def made_by(self, namespace: str, name: str, uid: str) -> list[Body]:
        """ModelVersions whose lineage names this job, by its uid or by its name."""
        refs = self._made.get((namespace, uid), {}) | self._made.get((namespace, name), {})
        return [self._objects["ModelVersion"][ref] for ref in refs]

    def pod(self, namespace: str, name: str) -> Body | None:
        """For the progress server: the pod that a token is bound to."""
        return self.get("Pod", namespace, name)


def _before(kind: str, body: Mapping[str, Any]) -> Ref | None:
    """The job before this one in a chain; the field is immutable."""
    name = (body["spec"].get("model") or {}).get("fineTuneJob") if kind == "FineTuneJob" else None
    return (body["metadata"]["namespace"], name) if name else None


def _makers(kind: str, body: Mapping[str, Any]) -> list[Ref]:
    """(namespace, uid) and (namespace, name) of the job that made a ModelVersion; lineage is immutable."""
    if kind != "ModelVersion":
        return []
    job = (body["spec"].get("lineage") or {}).get("job") or {}
    return [(body["metadata"]["namespace"], job[key]) for key in ("uid", "name") if job.get(key)]


def _content(kind: str, body: Mapping[str, Any]) -> Ref | None:
    """(namespace, content) of a Job whose work is shared."""
    meta = body["metadata"]
    content = (meta.get("labels") or {}).get(CONTENT) if kind == "Job" else None
    return (meta["namespace"], content) if content else None


def owner_uid(body: Mapping[str, Any]) -> str | None:
    """uid of the controller that owns an object."""
    for ref in body["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return ref["uid"]
    return None


def owner(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Owner reference of the controller."""
    for ref in body["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return ref
    return None


def version(body: Mapping[str, Any]) -> int:
    """resourceVersion as a number, to tell which of two bodies of one object is newer."""
    # Kubernetes 1.35 documents resource versions as comparable numbers; they always were in etcd.
    text = body["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0
