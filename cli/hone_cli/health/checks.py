"""The checks of `hone doctor`. Each asks the API server with the person's own rights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from hone_api import GROUP, RELEASE, VERSION
from hone_api.dataset.dataset import DATASET
from hone_api.kinds.finetunejob import FINE_TUNE_JOB
from hone_api.kinds.model import MODEL
from hone_api.kinds.modelversion import MODEL_VERSION
from hone_api.schema.schema import crd
from hone_api.words.failures import FailureCode
from hone_cli.errors import printable
from hone_cli.reach import rights
from hone_cli.reach.capacity import gpu_nodes, quota_left
from hone_cli.reach.kube import Kube, NoObjectError, ServerRefusalError
from hone_cli.reach.objects import Objects

State = Literal["ok", "warning", "failed", "unknown"]
KINDS = (FINE_TUNE_JOB, DATASET, MODEL_VERSION, MODEL)
COMPONENT = "hone.dev/component"
_OPERATOR = "app.kubernetes.io/component=operator"
_POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
_RIGHTS = (
    ("create", "finetunejobs", "hone run"),
    ("create", "datasets", "hone run, hone upload"),
    ("patch", "finetunejobs", "hone suspend, hone resume"),
    ("delete", "finetunejobs", "hone cancel"),
    ("list", "modelversions", "hone models"),
    ("create", "configmaps", "hone upload"),
    ("patch", "configmaps", "hone upload"),
    ("create", "persistentvolumeclaims", "hone upload"),
    ("create", "pods", "hone upload, hone download, hone chat"),
    ("delete", "pods", "hone upload, hone download, hone chat"),
    ("get", "pods/portforward", "hone upload, hone download, hone chat"),
    ("create", "pods/portforward", "hone upload, hone download, hone chat"),
    ("get", "pods/log", "hone logs"),
    ("list", "events", "hone watch"),
    ("approve", "modelversions", "hone approve"),
)
"""Verb, group, resource, and the commands that need it."""
_HUB = (FailureCode.SOURCE_UNREACHABLE, FailureCode.SOURCE_REFUSED, FailureCode.GATED_MODEL_ACCESS_DENIED)
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


class DoctorCheck(NamedTuple):
    """What one check found."""

    name: str
    state: State
    found: str
    way: str = ""
    """What to do; empty where nothing is to do."""


def run(kube: Kube) -> Iterator[DoctorCheck]:
    """All checks, in the order in which a fault explains those after it.

    Raises:
        CommandError: the cluster does not answer.
    """
    for name, check in CHECKS.items():
        try:
            state, found, way = check(kube)
        except ServerRefusalError as error:
            yield DoctorCheck(name, "unknown", printable(str(error)), "Ask someone with this right to run hone doctor")
        else:
            yield DoctorCheck(name, state, found, way)


_Found = tuple[State, str, str]


def _definitions(kube: Kube) -> _Found:
    """The kinds that the API server serves, compared with those of this release, field by field."""
    try:
        schemas = kube.call("GET", f"/openapi/v3/apis/{GROUP}/{VERSION}")["components"]["schemas"]
    except NoObjectError:
        return "failed", f"the cluster has no {GROUP}/{VERSION}", "Install Hone: docs/guides/install.md"
    served = {key["kind"]: s for s in schemas.values() for key in s.get("x-kubernetes-group-version-kind") or ()}
    older, newer = [], []
    for kind in KINDS:
        own = set(_fields(crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind.kind))
        theirs = set(_fields(served.get(kind.kind, {}), kind.kind))
        older += sorted(own - theirs)
        newer += sorted(path for path in theirs - own if not path.startswith(f"{kind.kind}.metadata."))
    if older:
        way = "Update the definitions together with the operator: docs/guides/upgrade.md"
        return "failed", f"they lack {_some(older)}: they are older than this command, {RELEASE}", way
    if newer:
        return "warning", f"they have {_some(newer)} besides: they are newer than this command", "Update hone"
    return "ok", f"{len(KINDS)} kinds, with the fields of release {RELEASE}", ""


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Paths of spec and status."""
    for name, inner in (schema.get("properties") or {}).items():
        yield f"{path}.{name}"
        yield from _fields(inner, f"{path}.{name}")
    if isinstance(items := schema.get("items"), dict):
        yield from _fields(items, f"{path}[]")


def _operator(kube: Kube) -> _Found:
    found = kube.call("GET", "/apis/apps/v1/deployments", query={"labelSelector": _OPERATOR})["items"]
    own = [d for d in found if _reads_settings(d)]
    if not own:
        return "failed", "no Deployment in the cluster is Hone's operator", "Install Hone: docs/guides/install.md"
    deployment = own[0]
    meta = deployment["metadata"]
    where, release = f"{meta['namespace']}/{meta['name']}", meta["labels"].get("app.kubernetes.io/version", "unknown")
    if not (deployment.get("status") or {}).get("readyReplicas"):
        way = f"kubectl -n {meta['namespace']} describe deploy/{meta['name']}; kubectl -n {meta['namespace']} logs "
        return "failed", f"{where} has no ready pod", f"{way}deploy/{meta['name']}"
    if release != RELEASE:
        return "warning", f"{where} is release {release}, this command {RELEASE}", "Use the same release of both"
    return "ok", f"{where} is ready, release {release}", ""


def _reads_settings(deployment: Mapping[str, Any]) -> bool:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return any(e["name"] == "HONE_CONFIG_FILE" for c in containers for e in c.get("env") or ())


def _namespace(kube: Kube) -> _Found:
    """Whether the operator works here: it writes a status to every object that it sees."""
    objects = Objects(kube)
    bodies = [(kind, body) for kind in ("Dataset", "FineTuneJob") for body in objects.list(kind)]
    silent = [f"{kind} {b['metadata']['name']}" for kind, b in bodies if not b.get("status")]
    if silent:
        way = f"kubectl label namespace {kube.namespace} hone.dev/enabled=true, or see the check operator"
        return "failed", f"the operator has written no status to {_some(silent)}", way
    count = len(bodies)
    return "ok", f"{count} Datasets and FineTuneJobs, each with a status" if count else "no Dataset or FineTuneJob", ""


def _rights(kube: Kube) -> _Found:
    missing = []
    for verb, resource, commands in _RIGHTS:
        if not rights.may(kube, verb, resource):
            missing.append(f"{verb} {resource} ({commands})")
    if not missing:
        return "ok", f"all that hone needs in namespace {kube.namespace}", ""
    only = all("hone approve" in each for each in missing)
    words = f"you may not {'; '.join(missing)}"
    way = "docs/guides/promote.md says who approves" if only else "Ask for the role edit in this namespace"
    return "ok" if only else "failed", words, way


def _storage(kube: Kube) -> _Found:
    claims = Objects(kube).list("PersistentVolumeClaim", f"app.kubernetes.io/managed-by=hone,!{COMPONENT}")
    if not claims:
        return "ok", "no store yet: the operator makes it for the first Dataset", ""
    claim = claims[0]
    name, phase = claim["metadata"]["name"], (claim.get("status") or {}).get("phase", "unbound")
    kind = claim["spec"].get("storageClassName") or "the default class"
    if phase == "Lost":
        return "failed", f"claim {name} has lost its volume", "docs/guides/storage.md"
    if phase != "Bound":
        way = f"kubectl -n {kube.namespace} describe pvc {name}: a class that waits for a pod is normal before a run"
        return "warning", f"claim {name} of {kind} is {phase}", way
    size = ((claim.get("status") or {}).get("capacity") or {}).get("storage", "unknown size")
    return "ok", f"claim {name}: {size}, {'/'.join(claim['spec']['accessModes'])}, {kind}", ""


def _gpus(kube: Kube) -> _Found:
    nodes = gpu_nodes(kube)
    if not nodes:
        way = "Install NVIDIA's GPU operator, or train on CPUs: hone init --gpus 0"
        return "warning", "no ready node offers nvidia.com/gpu", way
    total, free = Counter[str](), Counter[str]()
    for node in nodes:
        total[node.product] += node.gpus
        free[node.product] += node.free or 0
    known = nodes[0].free is not None
    words = [f"{n} {product}{f', {free[product]} free' if known else ''}" for product, n in total.items()]
    left = quota_left(kube)
    quota = f"; the quota of the namespace has {left} left" if left is not None else ""
    if "unknown" in total:
        way = "Let GPU feature discovery set the label nvidia.com/gpu.product"
        return "warning", f"nodes without the product of their GPUs: {'; '.join(words)}{quota}", way
    return "ok", "; ".join(words) + quota, ""


def _images(kube: Kube) -> _Found:
    for pod in Objects(kube).list("Pod", COMPONENT):
        status = pod.get("status") or {}
        for state in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            waiting = (state.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _IMAGE:
                words = f"pod {pod['metadata']['name']} cannot pull {state['image']}: {waiting.get('message', '')}"
                way = "Check trainer.image and trainer.imagePullSecrets of the chart: docs/guides/install.md"
                return "failed", printable(words), way
    return "ok", "no pod of Hone waits for an image", ""


def _hub(kube: Kube) -> _Found:
    """What the pods reached: a laptop may reach a hub that they do not."""
    for kind in ("FineTuneJob", "Dataset"):
        for body in Objects(kube).list(kind):
            for condition in (body.get("status") or {}).get("conditions") or ():
                if condition.get("reason") in _HUB and condition["status"] != "True":
                    words = f"{kind} {body['metadata']['name']}: {condition['reason']}: {condition.get('message', '')}"
                    return "failed", printable(words), f"hone explain {condition['reason']}"
    return "ok", "no object waits for a source or a model", ""


def _kueue(kube: Kube) -> _Found:
    path = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{kube.namespace}/localqueues"
    named = [(job["spec"].get("scheduling") or {}).get("queueName") for job in Objects(kube).list("FineTuneJob")]
    wanted = {str(name) for name in named if name}
    try:
        queues = kube.call("GET", path)["items"]
    except NoObjectError:
        if wanted:
            way = "Install Kueue and set kueue.enabled: docs/guides/shared-clusters.md"
            return "failed", f"jobs name queue {_some(sorted(wanted))}, and Kueue is not installed", way
        return "ok", "not installed: jobs start without a queue", ""
    names = {queue["metadata"]["name"] for queue in queues}
    if absent := sorted(wanted - names):
        return (
            "failed",
            f"jobs name queue {_some(absent)}; the namespace has {_some(sorted(names)) or 'none'}",
            ("Create the LocalQueue: docs/guides/shared-clusters.md"),
        )
    for queue in queues:
        for c in (queue.get("status") or {}).get("conditions") or ():
            if c["type"] == "Active" and c["status"] == "False":
                words = f"queue {queue['metadata']['name']} is not active: {c.get('message', '')}"
                return "failed", printable(words), "Ask who looks after Kueue for its ClusterQueue"
    return "ok", f"queues of the namespace: {_some(sorted(names)) or 'none'}", ""


def _monitors(kube: Kube) -> _Found:
    labels = {"labelSelector": "helm.sh/chart", "limit": "500"}
    found = []
    for plural in ("podmonitors", "servicemonitors", "prometheusrules"):
        try:
            items = kube.call("GET", f"/apis/monitoring.coreos.com/v1/{plural}", query=labels)["items"]
        except NoObjectError:
            return "ok", "the Prometheus operator is not installed", ""
        own = [b for b in items if str((b["metadata"].get("labels") or {})["helm.sh/chart"]).startswith("hone-")]
        found += [plural] if own else []
    if found:
        return "ok", ", ".join(found), ""
    way = "Set metrics.podMonitor.enabled and prometheusRule.enabled of the chart: docs/guides/monitoring.md"
    return "warning", "Prometheus collects nothing from Hone by objects of its chart", way


def _policies(kube: Kube) -> _Found:
    found = kube.call("GET", _POLICIES)["items"]
    own = [p for p in found if str((p["metadata"].get("labels") or {}).get("helm.sh/chart", "")).startswith("hone-")]
    if not own:
        way = "Set admission.enabled of the chart: docs/guides/security.md"
        return "warning", "no admission policy bounds what the operator writes", way
    bound = {b["spec"]["policyName"] for b in kube.call("GET", f"{_POLICIES.removesuffix('ies')}ybindings")["items"]}
    if loose := sorted(p["metadata"]["name"] for p in own if p["metadata"]["name"] not in bound):
        return "failed", f"without a binding: {_some(loose)}", "Apply the chart again: docs/guides/upgrade.md"
    return "ok", f"{len(own)} admission policies, each with its binding", ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


CHECKS: dict[str, Callable[[Kube], _Found]] = {
    "definitions": _definitions,
    "operator": _operator,
    "namespace": _namespace,
    "rights": _rights,
    "storage": _storage,
    "GPUs": _gpus,
    "images": _images,
    "hub": _hub,
    "Kueue": _kueue,
    "monitors": _monitors,
    "policies": _policies,
}
