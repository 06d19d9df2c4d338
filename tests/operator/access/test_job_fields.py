"""The policy on the operator's Jobs: it admits what the builders make, and no other field that the API server knows."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from support.cluster.desired_objects import CASES, PLATFORM, PUBLIC_KEY, RDMA, imported_model, measured_model, run
from support.cluster.operator_writes import ENABLED
from support.cluster.platforms import changed
from support.cluster.rights import installed, render

from hone_api.blocks.tracking import TrackerType
from hone_operator.settings.pods import PodsSettings

pytestmark = [pytest.mark.apiserver, pytest.mark.attack("operator's rights")]
SYSTEM = "hone-fields"
POLICY = f"{SYSTEM}-hone-operator-jobs"
JOBS = f"/apis/batch/v1/namespaces/{ENABLED}/jobs"
PATHS = {
    "Job": JOBS,
    "ConfigMap": f"/api/v1/namespaces/{ENABLED}/configmaps",
    "Service": f"/api/v1/namespaces/{ENABLED}/services",
    "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{ENABLED}/networkpolicies",
    "PersistentVolumeClaim": f"/api/v1/namespaces/{ENABLED}/persistentvolumeclaims",
}
VALUES = {
    "trainer": {
        "image": {"repository": "registry.example/hone/trainer", "digest": f"sha256:{'1' * 64}"},
        "imagePullSecrets": list(PLATFORM.trainer.image_pull_secrets),
        "extraEnv": dict(PLATFORM.trainer.extra_env),
        "networks": {
            "roce": {"resources": dict(RDMA.resources), "annotations": dict(RDMA.annotations), "env": dict(RDMA.env)}
        },
        "pods": {"serviceAccountName": "trainer"},
        "runtimeClassName": "kata",
    },
    "caBundle": {"configMapName": "authorities"},
    "tenants": {"resourceClaimTemplates": ["four-gpus"]},
    "kueue": {"enabled": True},
}
SIGNING = {"secretName": "signing-key", "publicKeys": [PUBLIC_KEY]}
DOCS = Path(__file__).parents[3] / "docs"


def with_settings():
    """A job that sets as much as it may on its pods; the platform trusts authorities of its own and hides rows."""
    platform = changed(
        PLATFORM,
        ca_bundle__config_map_name="authorities",
        privacy__rows_in_status=False,
        trainer__pods=PodsSettings(labels={"cost-center": "7"}, service_account_name="trainer"),
        trainer__runtime_class_name="kata",
    )
    env = [{"name": f"NCCL_IB_{number}", "secretName": "hone-a", "key": "k"} for number in range(32)]
    volumes = [{"mountPath": f"/mnt/{number}", "secretName": "hone-b"} for number in range(7)]
    volumes.append({"mountPath": "/mnt/a..b", "scratch": {"size": "1Gi"}})
    pod = {"labels": {"team": "a"}, "annotations": {"note": "b"}, "env": env, "volumes": volumes}
    return run({"pod": pod, "resources": {"network": "TCP"}}, platform=platform)


def in_a_queue(**topology):
    """A job that Kueue places within a domain of its Topology, on another cluster."""
    asked = {"queueName": "team", "workloadPriorityClass": "high", "managedBy": "MultiKueue", "topology": topology}
    return run({"scheduling": asked}, platform=changed(PLATFORM, kueue__enabled=True))


BUILT = {
    **CASES,
    "import": imported_model,
    "measure": measured_model,
    "training-with-settings": with_settings,
    "training-away-from-nodes": lambda: run({}, number=2, avoided_nodes=["gpu-7", "gpu-8.example.org"]),
    "training-away-on-a-product": lambda: run(
        {"resources": {"gpusPerNode": 1, "gpuProducts": ["NVIDIA-H100-80GB-HBM3"]}}, avoided_nodes=["gpu-7"]
    ),
    "training-in-one-rack": lambda: in_a_queue(required="example.org/rack"),
    "training-near": lambda: in_a_queue(preferred="example.org/rack"),
    **{
        f"training-with-{kind}": lambda kind=kind: run({"tracking": [{"type": kind}]})
        for kind in get_args(TrackerType)[1:]
    },
}


def built(case):
    """What the operator makes, with names of Secrets that the policy lets tenants use."""
    for made in BUILT[case]():
        text = re.sub(r'("secretName": ")(token|judge-key)"', r'\1hone-\2"', json.dumps(made))
        body = json.loads(text)
        body["metadata"]["namespace"] = ENABLED
        for reference in body["metadata"].get("ownerReferences", ()):
            reference["uid"] = reference["uid"] or "0"
        yield body


@pytest.fixture(scope="module")
def account(kube, apiserver):
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": ENABLED, "labels": {"hone.dev/enabled": "true"}},
    }
    kube.call("PATCH", f"/api/v1/namespaces/{ENABLED}?fieldManager=tests", body, "application/apply-patch+yaml")
    with installed(kube, apiserver, SYSTEM, {**VALUES, "signing": SIGNING}) as user:
        yield kube, user


def ask(kube, body, path=JOBS):
    return kube.impersonate(f"system:serviceaccount:{SYSTEM}:hone", "POST", f"{path}?dryRun=All", body)


def test_what_the_builders_make_is_admitted(account):
    kube, _ = account
    for case in BUILT:
        for body in built(case):
            code, message = ask(kube, body, PATHS[body["kind"]])
            # The ledger and the claim are there already if another test has made them.
            assert code == 201 or body["metadata"]["name"] in ("hone-store", "hone-contents"), f"{case}: {message}"


def test_a_base_that_an_old_cluster_does_not_mount_is_admitted(account):
    """An API server without image volumes drops them before it asks the policy; the trainer then names the reason."""
    kube, _ = account
    job = next(b for b in built("training-image") if b["kind"] == "Job")
    dropped = {v["name"] for v in pod(job)["volumes"] if "image" in v}
    assert dropped
    pod(job)["volumes"] = [v for v in pod(job)["volumes"] if v["name"] not in dropped]
    for container in containers(job):
        container["volumeMounts"] = [m for m in container["volumeMounts"] if m["name"] not in dropped]
    code, message = ask(kube, job)
    assert code == 201, message


def test_a_job_to_which_somebody_added_a_field_is_still_suspended(account):
    kube, _ = account
    job = next(b for b in built("training-one-pod") if b["kind"] == "Job")
    job["metadata"]["name"] = "added"
    made = kube.call("POST", JOBS, {**job, "spec": {**job["spec"], "ttlSecondsAfterFinished": 60}})
    suspend = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "added"}, "spec": {"suspend": True}}
    path = f"{JOBS}/{made['metadata']['name']}"
    operator = f"system:serviceaccount:{SYSTEM}:hone"
    apply = f"{path}?fieldManager=hone&force=true&dryRun=All"
    code, message = kube.impersonate(operator, "PATCH", apply, suspend, content_type="application/apply-patch+yaml")
    kube.call("DELETE", f"{path}?propagationPolicy=Background")
    assert code == 200, message


def test_a_pod_is_kept_away_from_nodes_and_not_drawn_to_one(account):
    kube, _ = account
    job = next(b for b in built("training-away-from-nodes") if b["kind"] == "Job")
    terms = pod(job)["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    terms[0]["preference"]["matchFields"][0]["operator"] = "In"
    code, message = ask(kube, job)
    assert code == 403
    assert "away from faulty nodes" in message


LEVELS = {
    "JobSpec": lambda job: [job["spec"]],
    "PodSpec": lambda job: [pod(job)],
    "Container": lambda job: containers(job),
    "ContainerPort": lambda job: [p for c in containers(job) for p in c.get("ports", ())],
    "EnvVarSource": lambda job: [e["valueFrom"] for c in containers(job) for e in c["env"] if "valueFrom" in e],
    "VolumeMount": lambda job: [m for c in containers(job) for m in c["volumeMounts"]],
    "Volume": lambda job: pod(job)["volumes"],
    "VolumeProjection": lambda job: [s for v in pod(job)["volumes"] for s in v.get("projected", {}).get("sources", ())],
    "PodSecurityContext": lambda job: [pod(job)["securityContext"]],
    "SecurityContext": lambda job: [c["securityContext"] for c in containers(job)],
    "Affinity": lambda job: [pod(job)["affinity"]] if "affinity" in pod(job) else [],
    "NodeAffinity": lambda job: [pod(job)["affinity"]["nodeAffinity"]] if "affinity" in pod(job) else [],
}
"""Where objects of a type of the API server are in a Job."""


def pod(job):
    return job["spec"]["template"]["spec"]


def containers(job):
    return [*pod(job)["containers"], *pod(job).get("initContainers", ())]


TYPES = {
    **{"object.spec": "JobSpec", "variables.pod": "PodSpec", "c": "Container", "p": "ContainerPort"},
    **{"v.valueFrom": "EnvVarSource", "m": "VolumeMount", "v": "Volume", "s": "VolumeProjection"},
}
"""By the name that an object has in the policy."""


def allowed():
    """{type: fields that the policy lets through}."""
    objects = render(SYSTEM, {**VALUES, "signing": SIGNING})
    (spec,) = (d["spec"] for d in objects if d["metadata"]["name"] == POLICY and "validations" in d["spec"])
    text = " ".join(rule["expression"] for rule in spec["validations"])
    lists = re.findall(r"dyn\(([\w.]+)\)\.all\(k, k in (\[[^\]]*\])\)", text)
    fields = {TYPES[where]: set(json.loads(names)) for where, names in lists}
    assert fields.keys() == set(TYPES.values())
    return fields


def test_the_lists_hold_what_the_builders_make_and_no_more(account):
    kube, _ = account
    made = {name: set() for name in LEVELS}
    for case in BUILT:
        for body in built(case):
            if body["kind"] == "Job":
                body["metadata"]["name"] = f"{body['metadata']['name']}-asked"
                defaulted = kube.call("POST", f"{JOBS}?dryRun=All", body)
                for name, at in LEVELS.items():
                    made[name] |= {field for each in at(defaulted) for field in each}
    made["JobSpec"] |= {"suspend"}
    for name, fields in allowed().items():
        assert fields == made[name], name


QUANTITY = {"cpu": "1"}
LABELS = {"matchLabels": {"a": "b"}}
PROBE = {"exec": {"command": ["id"]}}
HOOK = {"preStop": PROBE}
PEER = {"topologyKey": "kubernetes.io/hostname", "labelSelector": LABELS}
CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
NODES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}
VALID = {
    "JobSpec.maxFailedIndexes": 1,
    "JobSpec.managedBy": "example.org/x",
    "JobSpec.successPolicy": {"rules": [{"succeededCount": 1}]},
    "JobSpec.podReplacementPolicy": "Failed",
    "PodSpec.hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hone-progress"]}],
    "PodSpec.hostNetwork": True,
    "PodSpec.os": {"name": "linux"},
    "PodSpec.overhead": QUANTITY,
    "PodSpec.preemptionPolicy": "Never",
    "PodSpec.readinessGates": [{"conditionType": "a.b/c"}],
    "PodSpec.resources": {"limits": {"cpu": "99", "memory": "999Gi"}},
    "PodSpec.schedulingGates": [{"name": "a.b/c"}],
    "PodSpec.dnsConfig": {"nameservers": ["10.0.0.1"]},
    "PodSpec.topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": LABELS}
    ],
    "Container.livenessProbe": PROBE,
    "Container.readinessProbe": PROBE,
    "Container.startupProbe": PROBE,
    "Container.lifecycle": HOOK,
    "Container.resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
    "Container.envFrom": [{"secretRef": {"name": "keys"}}],
    "Container.terminationMessagePolicy": "FallbackToLogsOnError",
    "Container.volumeDevices": [{"name": "device", "devicePath": "/dev/x"}],
    "VolumeMount.mountPropagation": "HostToContainer",
    "VolumeMount.recursiveReadOnly": "IfPossible",
    "PodSecurityContext.appArmorProfile": {"type": "Unconfined"},
    "SecurityContext.appArmorProfile": {"type": "Unconfined"},
    "SecurityContext.seccompProfile": {"type": "Unconfined"},
    "SecurityContext.capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
    "SecurityContext.readOnlyRootFilesystem": False,
    "SecurityContext.procMount": "Default",
    "PodSecurityContext.runAsNonRoot": False,
    "PodSecurityContext.runAsUser": 0,
    "PodSecurityContext.seccompProfile": {"type": "Unconfined"},
    "PodSecurityContext.fsGroupChangePolicy": "Always",
    "PodSecurityContext.supplementalGroupsPolicy": "Merge",
    "PodSecurityContext.seLinuxChangePolicy": "Recursive",
    "PodSecurityContext.sysctls": [{"name": "kernel.shm_rmid_forced", "value": "0"}],
    "Affinity.nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": NODES},
    "Affinity.podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [PEER]},
    "Affinity.podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [PEER]},
    "NodeAffinity.requiredDuringSchedulingIgnoredDuringExecution": NODES,
    "NodeAffinity.preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": NODES["nodeSelectorTerms"][0]}
    ],
    "Volume.ephemeral": {"volumeClaimTemplate": CLAIM},
    "Volume.azureDisk": {"diskName": "a", "diskURI": "https://a.blob.core.windows.net/a", "kind": "Shared"},
    "Volume.fc": {"wwids": ["a"]},
    "Volume.flocker": {"datasetName": "a"},
    "Volume.iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2001-04.org.example:a", "lun": 0},
    "Volume.nfs": {"server": "10.0.0.1", "path": "/"},
    "Volume.quobyte": {"registry": "a:1", "volume": "a"},
    "Volume.scaleIO": {"gateway": "https://a", "system": "a", "volumeName": "a", "secretRef": {"name": "a"}},
    "Volume.storageos": {"volumeName": "a", "volumeNamespace": "a"},
    "Volume.hostPath": {"path": "/"},
    "VolumeProjection.clusterTrustBundle": {"name": "a", "path": "a"},
    "VolumeProjection.configMap": {"name": "a"},
    "VolumeProjection.secret": {"name": "database"},
    "VolumeProjection.podCertificate": {"signerName": "a.b/c", "keyType": "RSA3072", "credentialBundlePath": "a"},
    "EnvVarSource.fieldRef": {"fieldPath": "spec.nodeName"},
    "EnvVarSource.configMapKeyRef": {"name": "a", "key": "b"},
    "EnvVarSource.fileKeyRef": {"volumeName": "tmp", "path": "a", "key": "b"},
    "EnvVarSource.resourceFieldRef": {"resource": "limits.cpu"},
}
"""Values of fields for which a value made from the schema is not valid."""
WITH = {
    "JobSpec.maxFailedIndexes": {"backoffLimitPerIndex": 1},
    "SecurityContext.privileged": {"allowPrivilegeEscalation": True},
    "VolumeMount.recursiveReadOnly": {"readOnly": True},
}
"""What such a field is valid with."""
NOT_IN_A_JOB = {
    "PodSpec.ephemeralContainers": "the API server takes them for running pods only",
    "EnvVarSource.fileKeyRef": "of a feature that is off",
    "PodSpec.priority": "an admission plugin sets it, from the class",
    "PodSpec.workloadRef": "of a feature that is off",
    "Volume.gitRepo": "removed",
}


def sample(schema, schemas):
    """A value of a schema, with what it requires."""
    while reference := schema.get("$ref") or next((s["$ref"] for s in schema.get("allOf", ()) if "$ref" in s), None):
        schema = schemas[reference.rpartition("/")[2]]
    kind = schema.get("type")
    if kind == "array":
        return [sample(schema["items"], schemas)]
    if kind == "object":
        if "additionalProperties" in schema:
            return {"a": sample(schema["additionalProperties"], schemas)}
        fields = schema.get("properties", {})
        return {name: sample(fields[name], schemas) for name in schema.get("required", ())}
    return {"integer": 1, "boolean": True, "number": 1}.get(kind, "x")


def changes(base, schemas):
    """(type, field, Job with this field) for every field that the policy does not allow."""
    lists = allowed()
    for name, at in LEVELS.items():
        for field, schema in schemas[f"io.k8s.api.{'batch' if name == 'JobSpec' else 'core'}.v1.{name}"][
            "properties"
        ].items():
            if field in lists.get(name, ()):
                continue
            job = copy.deepcopy(base)
            key = f"{name}.{field}"
            target = at(job)[-1]
            value = VALID.get(key, sample(schema, schemas))
            if name in ("Volume", "EnvVarSource", "VolumeProjection"):
                for other in set(target) - {"name"}:
                    del target[other]
            target[field] = value
            target |= WITH.get(key, {})
            if key == "Container.volumeDevices":
                pod(job)["volumes"].append({"name": "device", "persistentVolumeClaim": {"claimName": "a"}})
            yield name, field, job


@pytest.mark.outside
def test_every_other_field_is_denied(account):
    kube, _ = account
    schemas = kube.call("GET", "/openapi/v3/apis/batch/v1")["components"]["schemas"]
    base = next(b for b in built("training-gpus") if b["kind"] == "Job")
    settings = next(b for b in built("training-with-settings") if b["kind"] == "Job")
    containers(base)[0]["env"] += [e for e in containers(settings)[0]["env"] if "valueFrom" in e]
    assert ask(kube, base) == (201, "")
    tried, wrong = 0, []
    for name, field, job in changes(base, schemas):
        key = f"{name}.{field}"
        if key in NOT_IN_A_JOB:
            continue
        tried += 1
        code, message = ask(kube, job)
        if code == 201 and field not in LEVELS[name](kube.call("POST", f"{JOBS}?dryRun=All", job))[-1]:
            continue  # a field of a feature that is off: the API server drops it
        if not (code == 403 and POLICY in message):
            wrong.append(f"{key}: {code} {message[:230]}")
    assert "\n".join(wrong) == ""
    (row,) = (line for line in (DOCS / "outside.md").read_text().splitlines() if "test_job_fields.py" in line)
    assert f"| {tried} | {tried} |" in row
