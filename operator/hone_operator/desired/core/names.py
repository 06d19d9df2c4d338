"""Names, labels, owner references, and addresses in the store."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from hone_api import API_VERSION

FIELD_MANAGER = "hone"
COMPONENT = "hone.dev/component"
DELIVER = "deliver"
"""The component that copies a model out of the store."""
FINETUNEJOB = "hone.dev/finetunejob"
DATASET = "hone.dev/dataset"
MODELVERSION = "hone.dev/modelversion"
MODEL = "hone.dev/model"
ATTEMPT = "hone.dev/attempt"
RUN = "hone.dev/run"
"""Label on an attempt's Job and pods: uid of the FineTuneJob whose work folder they write."""
STAGING_ATTEMPT = "hone.dev/try"
"""Label on a Job outside a run: the number of its attempt."""
CONTENT = "hone.dev/content"
"""Label on work that FineTuneJobs share: the content that is staged, see `shared`."""
ROWS = "hone.dev/rows"
"""Label on a Job that fetches a base model: the rows and settings that are tried before the weights are fetched."""
GENERATION = "hone.dev/generation"
RESOLVED = "hone.dev/resolved"
"""Annotation on an attempt's Job: what its plan was resolved to. Unlike the status, the Job cannot lag."""
ANCESTORS = "hone.dev/ancestors"
"""Annotation on an attempt's Job: the chain that its base came from, by value, because a parent may be deleted."""
SWEEP = "hone.dev/sweep"
"""Label on a FineTuneJob: the sweep that it is part of, for the tracker."""
DELIVERY = "hone.dev/delivery"
"""Annotation on a Job that delivers: the entry's uri. Unlike the status, the Job cannot lag."""
RESTORED = "hone.dev/restored"
"""Annotation with which whoever restores a backup declares it; any value except false."""
RETRY = "hone.dev/retry"
"""Annotation on a Model or ModelVersion: a new value starts failed imports, registrations and deliveries again. Their
Jobs have the value that was there when they began."""
VELERO = "velero.io/restore-name"
"""Label that Velero puts on every object it restores."""
KUEUE_API = "kueue.x-k8s.io/v1beta2"
"""Group and version of Kueue's Workload, served since Kueue 0.15."""
QUEUE = "kueue.x-k8s.io/queue-name"
"""Label on a Job by which Kueue admits it: the LocalQueue. Somebody else's webhook may also have set it."""
QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
"""Label on a Job: the WorkloadPriorityClass of Kueue."""
MIN_PARALLELISM = "kueue.x-k8s.io/job-min-parallelism"
"""Annotation that asks Kueue for partial admission."""
HELD = "hone.dev/held"
"""Annotation on a Workload: true if we deactivated it because of spec.suspend. Only these are activated again."""
OWNER_LABEL = {"FineTuneJob": FINETUNEJOB, "Dataset": DATASET, "ModelVersion": MODELVERSION, "Model": MODEL}

LEDGER = "hone-model-versions"
"""ConfigMap that remembers the last version number of each model of a namespace."""

CONTENTS = "hone-contents"
"""ConfigMap that remembers the content of Datasets in a namespace's store."""

STORE = PurePosixPath("/store")
PLAN_FOLDER = PurePosixPath("/etc/hone")
PLAN_FILE = PLAN_FOLDER / "plan.json"


def digest(*parts: Any, length: int = 8) -> str:
    """Hexadecimal digest of JSON values: equal parts give equal names."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def fit(name: str, suffix: str, limit: int = 63) -> str:
    """`name-suffix` as a DNS label of at most `limit` characters; a name that must be cut gets a digest."""
    name = name.replace(".", "-")
    room = limit - len(suffix) - 1
    if len(name) > room:
        name = f"{name[: room - 9].rstrip('-')}-{digest(name)}"
    return f"{name}-{suffix}"


def attempt(job: str, number: int) -> str:
    """Name of the Job and Service of attempt `number`; pods are `<this>-<rank>` (at most 63 characters, see the
    CRD)."""
    return f"{job}-{number}"


def materialize(dataset: str, uid: str, generation: int, number: int) -> str:
    """The Job that materializes a generation of a Dataset, attempt `number`."""
    return fit(dataset, f"data-{digest(uid, generation, number)}", 52)


def verify(version: str, uid: str, number: int) -> str:
    """The Job that re-hashes the files of a ModelVersion, attempt `number`."""
    return fit(version, f"verify-{digest(uid, number)}", 52)


def sign(version: str, uid: str, number: int) -> str:
    """The Job that signs a ModelVersion, attempt `number`."""
    return fit(version, f"sign-{digest(uid, number)}", 52)


def deliver(version: str, uid: str, key: str, number: int) -> str:
    """The Job that copies a ModelVersion elsewhere, attempt `number`."""
    return fit(version, f"deliver-{digest(uid, key, number)}", 52)


def measure(version: str, uid: str, key: str, number: int) -> str:
    """The Job that measures a ModelVersion again, attempt `number`."""
    return fit(version, f"measure-{digest(uid, key, number)}", 52)


def register(model: str, uid: str, key: str, number: int) -> str:
    """The Job that registers versions of a Model, attempt `number`."""
    return fit(model, f"register-{digest(uid, key, number)}", 52)


def lookup(model: str, uid: str, key: str) -> str:
    """The Job that looks up the commit of a base model for a Model."""
    return fit(model, f"lookup-{digest(uid, key)}", 52)


def importing(model: str, uid: str, key: str, number: int) -> str:
    """The Job that imports a version of a Model, attempt `number`."""
    return fit(model, f"import-{digest(uid, key, number)}", 52)


def ended(job: str, uid: str) -> str:
    """The ConfigMap that remembers why a run failed."""
    return fit(job, f"ended-{digest(uid)}")


def model_version(model: str, number: int) -> str:
    """ModelVersion `number` of a model."""
    return f"{model}-v{number}"


def plan(job: str, content: str) -> str:
    """ConfigMap of a plan, named by its content: a Job that refers to it can only get the plan it was created with."""
    return f"{job}-{digest(content)}"


def labels(component: str, owner: Mapping[str, Any], **extra: str) -> dict[str, str]:
    """Labels of every object that we create; never copied from the owner, where GitOps tools keep tracking labels."""
    name = owner["metadata"]["name"]
    out = {"app.kubernetes.io/managed-by": FIELD_MANAGER, COMPONENT: component, **extra}
    if len(name) <= 63 and owner["kind"] in OWNER_LABEL:
        out[OWNER_LABEL[owner["kind"]]] = name
    return out


def owner_reference(owner: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the garbage collector delete the child with its owner."""
    return {
        "apiVersion": API_VERSION if owner["kind"] in OWNER_LABEL else "batch/v1" if owner["kind"] == "Job" else "v1",
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def metadata(
    name: str, owner: Mapping[str, Any], own_labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Metadata of a child of `owner`."""
    out: dict[str, Any] = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(own_labels),
        "ownerReferences": [owner_reference(owner)],
    }
    if annotations:
        out["annotations"] = dict(annotations)
    return out


class InvalidReferenceError(ValueError):
    """A URI that cannot be mounted; the message quotes it."""


def split_uri(uri: str) -> tuple[str, str, str]:
    """(scheme, first segment, path below it) of `pvc://claim/path` and the like.

    Raises:
        InvalidReferenceError: the path leaves its root.
    """
    scheme, _, rest = uri.partition("://")
    head, _, path = rest.partition("/")
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith("/") or "\0" in path:
        raise InvalidReferenceError(f"{uri}: the path must stay below {scheme}://{head}/")
    return scheme, head, str(PurePosixPath(*parts)) if parts else ""
