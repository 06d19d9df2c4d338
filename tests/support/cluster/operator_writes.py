"""What the operator's service account writes, and what it must not write."""

from __future__ import annotations

from support.cluster.platforms import platform_with

from hone_operator.desired.core.namespace import NamespaceSetup
from hone_operator.desired.run import rank_network
from hone_operator.desired.store import store

SYSTEM = "hone-bounds"
OPERATOR = f"system:serviceaccount:{SYSTEM}:hone"
IMAGE = "example.org/hone/trainer:test"
VALUES = {
    "trainer": {"image": {"repository": "example.org/hone/trainer", "tag": "test"}, "runtimeClassName": "kata"},
    "staging": {"runtimeClassName": "gvisor", "pods": {"serviceAccountName": "stager"}},
    "tenants": {"serviceAccounts": ["trainer-*"], "runtimeClasses": ["runsc"], "resourceClaimTemplates": ["gpu-*"]},
}
ENABLED, CLOSED = "bounds-enabled", "bounds-closed"


def job(**pod):
    """A Job as the operator makes them, with these fields of the pod's spec; None removes one."""
    container = {
        "name": "trainer",
        "image": IMAGE,
        "command": ["python", "-m", "hone_trainer", "run", "/etc/hone/plan.json"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    container |= pod.pop("container", {})
    spec = {
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": {
            **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 10001),
            "fsGroupChangePolicy": "OnRootMismatch",
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{k: v for k, v in container.items() if v is not None}],
        "volumes": [{"name": "plan", "configMap": {"name": "plan"}}],
        **pod,
    }
    owner = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "name": "x", "uid": "y", "controller": True}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "x-1", "ownerReferences": [owner]},
        "spec": {"template": {"spec": {k: v for k, v in spec.items() if v is not None}}},
    }


def secure(**fields):
    """A container with another security context."""
    return {
        "container": {"securityContext": job()["spec"]["template"]["spec"]["containers"][0]["securityContext"] | fields}
    }


def volume(**source):
    return {"volumes": [{"name": "v", **source}]}


def mounted(**mount):
    """A container with this mount of the store's claim."""
    return {
        **volume(persistentVolumeClaim={"claimName": "hone-store"}),
        "container": {"volumeMounts": [{"name": "v", "mountPath": "/store", **mount}]},
    }


def token(**fields):
    return volume(projected={"sources": [{"serviceAccountToken": {"path": "token", **fields}}]})


def variable(name, value="/mnt/x"):
    return {"container": {"env": [{"name": name, "value": value}]}}


def at(path, **source):
    """A volume at this path of the container."""
    volumes = volume(**(source or {"persistentVolumeClaim": {"claimName": "own"}}))
    return {**volumes, "container": {"volumeMounts": [{"name": "v", "mountPath": path, "readOnly": True}]}}


CODE = (
    *("PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "LD_AUDIT", "OPENSSL_CONF", "CUDA_INJECTION64_PATH", "NCCL_NET_PLUGIN"),
    *("GCONV_PATH", "CC", "SSL_CERT_FILE", "HTTPS_PROXY", "HOME", "HF_HOME", "TRITON_CACHE_DIR"),
    "NVIDIA_VISIBLE_DEVICES",
)
PROGRAMS = ("/", "/app", "/dev/shm", "/etc", "/etc/hone2", "/opt/hone/lib", "/store/../app", "/tmp", "/usr/lib/python3")
BAD_PODS = {
    **{f"variable {name}": variable(name) for name in CODE},
    **{f"mount over {path}": at(path) for path in PROGRAMS},
    "foreign Secret as a volume": at("/secrets/a", secret={"secretName": "database-password"}),
    "ConfigMap and token in one volume": volume(projected={"sources": [{"configMap": {"name": "a"}}]}),
    "arguments": {"container": {"args": ["x"]}},
    "another verb": {"container": {"command": ["python", "-m", "hone_trainer", "serve", "/etc/hone/plan.json"]}},
    "another plan": {"container": {"command": ["python", "-m", "hone_trainer", "run", "/store/plan.json"]}},
    "nodes of no match expression": {
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["control-plane-1"]}]}
                    ]
                }
            }
        }
    },
    "hostPath": volume(hostPath={"path": "/"}),
    "CSI volume": volume(csi={"driver": "secrets-store.csi.k8s.io"}),
    "NFS volume": volume(nfs={"server": "10.0.0.1", "path": "/"}),
    "token for the API server": token(),
    "token for somebody else": token(audience="vault"),
    "ephemeral claim": volume(
        ephemeral={
            "volumeClaimTemplate": {
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
            }
        }
    ),
    "claim of devices": {"resourceClaims": [{"name": "a", "resourceClaimTemplateName": "all-gpus"}]},
    "claim that others share": {"resourceClaims": [{"name": "a", "resourceClaimName": "gpu-shared"}]},
    "another runtime": {"runtimeClassName": "runc-privileged"},
    "service account": {"serviceAccountName": "strong"},
    "deprecated service account": {"serviceAccount": "strong"},
    "token mounted": {"automountServiceAccountToken": True},
    "token mounted by default": {"automountServiceAccountToken": None},
    "host network": {"hostNetwork": True},
    "host processes": {"hostPID": True},
    "host IPC": {"hostIPC": True},
    "node chosen": {"nodeName": "control-plane-1"},
    "privileged": secure(privileged=True, allowPrivilegeEscalation=None),
    "escalation": secure(allowPrivilegeEscalation=True),
    "capability": secure(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    "root in the container": secure(runAsUser=0, runAsNonRoot=False),
    "root in the pod": {"securityContext": {"runAsUser": 0}},
    "unmasked proc": {**secure(procMount="Unmasked"), "hostUsers": False},
    "unconfined": secure(seccompProfile={"type": "Unconfined"}),
    "foreign image": {"container": {"image": "docker.io/library/busybox"}},
    "own image by another tag": {"container": {"image": "example.org/hone/trainer:other"}},
    "shell": {"container": {"command": ["sh", "-c", "id"]}},
    "program by python -c": {"container": {"command": ["python", "-c", "print(1)"]}},
    "no command": {"container": {"command": None}},
    "hook": {"container": {"lifecycle": {"postStart": {"exec": {"command": ["id"]}}}}},
    "exec probe": {"container": {"livenessProbe": {"exec": {"command": ["id"]}}}},
    "host port": {"container": {"ports": [{"containerPort": 80, "hostPort": 80}]}},
    "secret in the environment": {"container": {"envFrom": [{"secretRef": {"name": "keys"}}]}},
    "secret key in a variable": {
        "container": {"env": [{"name": "NCCL_DEBUG", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "a"}}}]}
    },
    "whole store": mounted(),
    "all runs": mounted(subPath="runs"),
    "models of another run": mounted(subPath="models/other"),
    "run whose uid begins alike": mounted(subPath="runs/yy"),
    "folder below another's": mounted(subPath="runs/other/runs/y"),
    "rows": mounted(subPath="datasets"),
    "folder by a variable": mounted(subPathExpr="$(FOLDER)", readOnly=True),
    "init container": {"initContainers": [{"name": "i", "image": IMAGE}]},
}


OWNER = job()["metadata"]["ownerReferences"]
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
ISOLATION = rank_network.isolation(
    {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "x", "namespace": "n", "uid": "y"}},
    1,
    platform_with("i", metrics_from=(MONITORING,)),
)
RANKS = ISOLATION["spec"]["podSelector"]
ROLE = f"{SYSTEM}-hone-namespace"
GROUP = "rbac.authorization.k8s.io"
OBJECTS = {
    "Job": ("/apis/batch/v1/namespaces/{}/jobs", job()),
    "ConfigMap": (
        "/api/v1/namespaces/{}/configmaps",
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "x-1-0123abcd", "ownerReferences": OWNER},
            "immutable": True,
        },
    ),
    "Service": (
        "/api/v1/namespaces/{}/services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "x-1", "ownerReferences": OWNER},
            "spec": {"clusterIP": "None", "ports": [{"port": 29500}]},
        },
    ),
    "NetworkPolicy": (
        "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
        {**ISOLATION, "metadata": {"name": ISOLATION["metadata"]["name"], "ownerReferences": OWNER}},
    ),
    "PersistentVolumeClaim": (
        "/api/v1/namespaces/{}/persistentvolumeclaims",
        {**store.claim("x", platform_with("i")), "metadata": {"name": "hone-store"}},
    ),
    "FineTuneJob": (
        "/apis/hone.dev/v1alpha1/namespaces/{}/finetunejobs",
        {
            "apiVersion": "hone.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": "m-r1", "ownerReferences": [{**OWNER[0], "kind": "Model", "name": "m"}]},
            "spec": {
                "model": {"uri": "hf://a/b"},
                "datasets": [{"name": "rows"}],
                "output": {"modelName": "m"},
                "submittedBy": "ada",
            },
        },
    ),
    "RoleBinding": (
        "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": ROLE},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": ROLE},
            "subjects": [{"kind": "ServiceAccount", "name": "hone", "namespace": SYSTEM}],
        },
    ),
}


def changed(kind, **fields):
    """An object of the operator with other fields."""
    return kind, {**OBJECTS[kind][1], **fields}


def policy(**spec):
    """The NetworkPolicy of ranks with other fields of its spec."""
    return changed("NetworkPolicy", spec={**ISOLATION["spec"], **spec})


def of_dataset(name="x", **spec):
    """The NetworkPolicy of the pods of Dataset `name`, owned by Dataset `x`."""
    pods = {"matchLabels": {"hone.dev/dataset": name}}
    kind, body = policy(**{"podSelector": pods, "ingress": [{"from": [{"podSelector": pods}]}], **spec})
    owner = {**OWNER[0], "kind": "Dataset", "name": "x"}
    return kind, {**body, "metadata": {"name": "x-pods", "ownerReferences": [owner]}}


def of_content(name="x-1", content="0" * 16, **spec):
    """The NetworkPolicy of the pods that encode content 0…, owned by the Job `x-1` of those that do not lead."""
    pods = {"matchLabels": {"hone.dev/content": content}}
    kind, body = policy(**{"podSelector": pods, "ingress": [{"from": [{"podSelector": pods}]}], **spec})
    owner = {**OWNER[0], "apiVersion": "batch/v1", "kind": "Job", "name": "x-1"}
    labels = {"hone.dev/content": "0" * 16}
    return kind, {**body, "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]}}


def of_namespace(**spec):
    """The NetworkPolicy of all pods of Hone in a labelled namespace, with other fields of its spec."""
    body = NamespaceSetup(ENABLED, ROLE, "y").closed_ports([{"namespaceSelector": {}}])
    return "NetworkPolicy", {**body, "spec": {**body["spec"], **spec}}
