"""Pods of the trainer image: all pass Pod Security `restricted`, and none has a shell."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Self

from hone_api import RELEASE
from hone_api.blocks.pod_settings import PodSettings
from hone_api.contract.privacy import ROWS_ENV
from hone_api.plan import PLAN_SHA256_ENV, SECRET_VARIABLES_ENV, SECRETS_ENV, PlanFields
from hone_operator.desired.core import names, podsettings
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.podlimits import resources
from hone_operator.settings.pods import PodsSettings

USER = 10001
CONTAINER = "trainer"
READER = "reader"
"""Container that runs before CONTAINER, which publishes what this one made from foreign data."""
CONTAINERS = (READER, CONTAINER)
"""All containers of our pods, in the order in which they run; a service mesh may add others."""
TRAINING = "training"
"""Component of the pods that train."""
PLAN = "plan"
"""Volume with the plan's ConfigMap."""
METRICS_PORT = 9400
CA_FILE = PurePosixPath("/etc/hone-ca/ca-bundle.crt")
"""The authorities of the platform's `ca_config_map`."""


@dataclass(frozen=True)
class Mount:
    """A volume and its path in the container."""

    name: str
    path: PurePosixPath
    source: Mapping[str, Any]
    read_only: bool = True
    sub_path: str | None = None
    """Folder of the volume; None: the whole volume."""

    @property
    def claim_name(self) -> str | None:
        """Name of the claim of a persistent volume."""
        name: str | None = self.source.get("persistentVolumeClaim", {}).get("claimName")
        return name

    @classmethod
    def claim(cls, name: str, path: PurePosixPath, claim: str, read_only: bool = True) -> Self:
        return cls(
            name,
            path,
            {"persistentVolumeClaim": {"claimName": claim, "readOnly": read_only}},
            read_only,
        )

    @classmethod
    def image(cls, name: str, path: PurePosixPath, image: str) -> Self:
        """The files of an image. Always asks the registry: a node that has the image gives it to those alone who may
        pull it."""
        return cls(name, path, {"image": {"reference": image, "pullPolicy": "Always"}})

    @classmethod
    def secret(cls, name: str, path: PurePosixPath, secret: str) -> Self:
        """A Secret, optional so that the pod itself reports a missing one and the operator needs no right on
        secrets."""
        return cls(name, path, {"secret": {"secretName": secret, "optional": True, "defaultMode": 0o440}})

    @classmethod
    def scratch(cls, name: str, path: PurePosixPath, size: str, medium: str = "") -> Self:
        source = {"emptyDir": {"sizeLimit": size, **({"medium": medium} if medium else {})}}
        return cls(name, path, source, read_only=False)


@dataclass(frozen=True)
class Work:
    """The work of a pod of the trainer image, and what it needs."""

    component: str
    verb: str
    plan: PlanFields
    cpu: str
    memory: str
    mounts: tuple[Mount, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    """Extended resources, e.g. GPUs."""
    claims: tuple[str, ...] = ()
    """Names of claims of the pod that its container uses."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)
    """Additional fields of the pod's spec: scheduling, subdomain."""
    image: str | None = None
    """None: the trainer's image."""
    publisher: tuple[Mount, ...] = ()
    """Mounts of a second container, which runs `publish` after the verb has succeeded; empty: there is none."""
    settings: PodSettings | None = None
    """What the job sets on its pods."""
    pull_secrets: tuple[str, ...] = ()
    """With which the kubelet pulls images that are mounted, besides those of the platform."""
    pods: int = 1
    """Those that share it: each does a part, and the first one finishes it with what all have left in the store."""


def store(platform: Platform) -> Mount:
    """The namespace's store, writable."""
    return Mount.claim("store", names.STORE, platform.store.claim_name, read_only=False)


def writable_folders(platform: Platform, *folders: str) -> tuple[Mount, ...]:
    """Folders of the store that the pod may write, and nothing else; the whole store if pods are not isolated.

    The kubelet creates a missing folder as root, with the mode of the volume's root, and with its group if setgid is
    set.
    """
    if not platform.store.isolate_runs:
        return (store(platform),)
    return tuple(
        replace(Mount.claim("store", names.STORE / f, platform.store.claim_name, False), sub_path=f) for f in folders
    )


def read_only_folders(platform: Platform, *folders: str) -> tuple[Mount, ...]:
    """Folders of the store that the pod may only read, even if it mounts the store writable; "" is the whole store."""
    if not platform.store.isolate_runs:
        return ()
    mounts = (Mount.claim("store", names.STORE / f, platform.store.claim_name) for f in dict.fromkeys(folders))
    return tuple(
        replace(m, sub_path=str(m.path.relative_to(names.STORE))) if m.path != names.STORE else m for m in mounts
    )


def plan_text(work: Work) -> str:
    """The plan for its ConfigMap, with the release that wrote it: a trainer from an older image also reads it."""
    return work.plan.model_copy(update={"release": RELEASE}).model_dump_json(by_alias=True, exclude_none=True, indent=1)


def environment(work: Work, platform: Platform) -> list[dict[str, Any]]:
    """Environment in a stable order, each name once. `$` is doubled, because the kubelet would expand `$(VAR)`."""
    asked = podsettings.secret_environment(work.settings)
    secret = {name: source for name, source in asked.items() if name not in work.env}
    env = {
        # The numeric user has no entry in /etc/passwd: libraries that look up a home or a name need these.
        "HOME": "/tmp",
        "USER": "hone",
        "HF_HOME": "/tmp/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        **({} if work.limits or work.claims else _NO_GPU),
        **{name: value for name, value in _of_all_pods(platform).items() if name not in secret},
        **podsettings.plain_environment(work.settings),
        **work.env,
        **({SECRET_VARIABLES_ENV: ",".join(secret)} if secret else {}),
        **({} if platform.privacy.rows_in_status else {ROWS_ENV: "false"}),
        **({SECRETS_ENV: json.dumps(secrets)} if (secrets := _secret_names(work.mounts)) else {}),
        # The trainer compares it, so a pod carries out only the plan that it was created for.
        PLAN_SHA256_ENV: hashlib.sha256(plan_text(work).encode()).hexdigest(),
    }
    plain: list[dict[str, Any]] = [{"name": k, "value": v.replace("$", "$$")} for k, v in env.items()]
    return [*plain, *({"name": name, "valueFrom": source} for name, source in secret.items())]


_NO_GPU = {"NVIDIA_VISIBLE_DEVICES": "void"}
"""NVIDIA's runtime gives all GPUs of the node to a container whose image says so, as those with CUDA do. With devices
the plugin sets the variable, and the container's own value would win."""


def _of_all_pods(platform: Platform) -> dict[str, str]:
    """Variables by which the platform reaches its servers."""
    # OpenSSL, and with it Python's ssl and the hub's client, reads the first; the library requests the second.
    readers = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if platform.ca_bundle.config_map_name else ()
    authorities = dict.fromkeys(readers, str(CA_FILE))
    return {**authorities, **platform.trainer.extra_env}


def _secret_names(mounts: Sequence[Mount]) -> dict[str, str]:
    return {str(m.path): m.source["secret"]["secretName"] for m in mounts if "secret" in m.source}


def one_volume_a_claim(mounts: Sequence[Mount]) -> list[Mount]:
    """The same mounts, with one volume for each claim: the kubelet does not start a pod that has a claim twice."""
    first: dict[str, Mount] = {}
    writable = {m.claim_name for m in mounts if not m.read_only}
    out = []
    for mount in mounts:
        if claim := mount.claim_name:
            volume = first.setdefault(claim, mount)
            shared = Mount.claim(volume.name, mount.path, claim, read_only=claim not in writable)
            mount = replace(shared, read_only=mount.read_only, sub_path=mount.sub_path)
        out.append(mount)
    return out


def container(name: str, verb: str, mounts: Sequence[Mount], work: Work, platform: Platform) -> dict[str, Any]:
    """Container that runs `python -m hone_trainer <verb> /etc/hone/plan.json`."""
    return {
        "name": name,
        "image": work.image or platform.trainer.image,
        "imagePullPolicy": platform.trainer.image_pull_policy,
        "command": ["python", "-m", "hone_trainer", verb, str(names.PLAN_FILE)],
        "env": environment(work, platform),
        "resources": {
            **resources(work.cpu, work.memory, work.limits, platform),
            **({"claims": [{"name": name} for name in work.claims]} if work.claims else {}),
        },
        "ports": [{"name": name, "containerPort": port} for name, port in work.ports.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {
                "name": m.name,
                "mountPath": str(m.path),
                **({"subPath": m.sub_path} if m.sub_path else {}),
                **({"readOnly": True} if m.read_only else {}),
            }
            for m in mounts
        ],
    }


def containers(work: Work, plan_name: str, platform: Platform) -> tuple[dict[str, Any], list[Mount]]:
    """(containers as fields of the pod's spec, mounts of all of them).

    The publishing container shares no scratch space with the container that parses foreign data, and has no credential:
    HOME is /tmp, and Python imports what it finds there.
    """
    plan = Mount(PLAN, names.PLAN_FOLDER, {"configMap": {"name": plan_name, "defaultMode": 0o444}})
    common = (plan, *_authorities(platform))
    scratch = Mount.scratch("tmp", PurePosixPath("/tmp"), platform.trainer.scratch_size)
    extra = [Mount(v.name, v.path, v.source, v.read_only) for v in podsettings.volumes(work.settings)]
    mounts = one_volume_a_claim((*common, *work.mounts, *extra, scratch, *work.publisher))
    end = len(mounts) - len(work.publisher)
    first, second = mounts[:end], mounts[end:]
    if not work.publisher:
        return {"containers": [container(CONTAINER, work.verb, first, work, platform)]}, mounts
    reader = container(READER, work.verb, first, work, platform)
    publisher = container(CONTAINER, "publish", [*mounts[: len(common)], *second], work, platform)
    return {"initContainers": [reader], "containers": [publisher]}, mounts


def _authorities(platform: Platform) -> tuple[Mount, ...]:
    """The ConfigMap with the authorities to trust, if the platform has one. A pod waits until it exists."""
    if not platform.ca_bundle.config_map_name:
        return ()
    items = [{"key": platform.ca_bundle.key, "path": CA_FILE.name}]
    source = {"configMap": {"name": platform.ca_bundle.config_map_name, "items": items, "defaultMode": 0o444}}
    return (Mount("authorities", CA_FILE.parent, source),)


def defaults_of(work: Work, platform: Platform) -> PodsSettings:
    """What the platform sets for this kind of work."""
    return platform.trainer.pods if work.component == TRAINING else platform.staging.pods


def template(work: Work, labels: Mapping[str, str], plan_name: str, platform: Platform) -> dict[str, Any]:
    """PodTemplateSpec of the work."""
    fields, mounts = containers(work, plan_name, platform)
    trains = work.component == TRAINING
    defaults = defaults_of(work, platform)
    runtime = (platform.trainer if trains else platform.staging).runtime_class_name
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            **(_FIXED_USER if platform.pod_security.fixed_user else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 30,
        "activeDeadlineSeconds": platform.pod_limits.staging_seconds,
        **fields,
        "volumes": [{"name": name, **source} for name, source in {m.name: m.source for m in mounts}.items()],
        **work.pod,
        **podsettings.spec_fields(defaults, work.settings, runtime, work.pod),
    }
    if secrets := dict.fromkeys((*platform.trainer.image_pull_secrets, *work.pull_secrets)):
        spec["imagePullSecrets"] = [{"name": s} for s in secrets]
    # The container that kubectl logs shows without -c.
    reader = {"kubectl.kubernetes.io/default-container": READER} if work.publisher else {}
    metadata: dict[str, Any] = {"labels": podsettings.labels_of(defaults, work.settings, labels)}
    if annotations := podsettings.annotations_of(defaults, work.settings, {**work.annotations, **reader}):
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec}


_FIXED_USER = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"}
