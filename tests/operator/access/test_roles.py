"""What each role may do with the objects of Hone, at the real API server: every verb, as the guide's table has it."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from types import MappingProxyType

import pytest
from support.cluster.hand import fine_tune_job, version_of
from support.cluster.kube import wait_until
from support.cluster.rights import installed

pytestmark = [pytest.mark.apiserver, pytest.mark.outside, pytest.mark.attack("objects at the API server")]
SYSTEM, SPACE = "hone-roles", "roles-a"
DOCS = Path(__file__).parents[3] / "docs"
GROUP = "rbac.authorization.k8s.io"
ROLES = {
    "view": ["view"],
    "edit": ["view", "edit"],
    "edit and hone-approve": ["view", "edit", "approve"],
    "admin": ["view", "edit", "admin"],
}
"""As Kubernetes aggregates them."""
HONE = f"/apis/hone.dev/v1alpha1/namespaces/{SPACE}"
MAPS = f"/api/v1/namespaces/{SPACE}/configmaps"
JOBS, PODS = f"/apis/batch/v1/namespaces/{SPACE}/jobs", f"/api/v1/namespaces/{SPACE}/pods"
RECORDS = ("hone-contents", "hone-model-versions", "hone-served")
MERGE = "application/merge-patch+json"
KINDS = {"FineTuneJob": "finetunejobs", "Dataset": "datasets", "ModelVersion": "modelversions", "Model": "models"}
DRY_RUN = {"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "bait", "uid": "0"}
OWNERS = [
    *[{"apiVersion": "hone.dev/v1alpha1", "kind": kind, "name": "x", "uid": "0", "controller": True} for kind in KINDS],
    OWNER | {"name": "hone-contents", "controller": True},
    OWNER | {"kind": "PersistentVolumeClaim", "name": "hone-store", "controller": True},
]
"""Those with which a Job counts as Hone's."""


def body(kind, name):
    """A valid object of a kind."""
    if kind == "ModelVersion":
        model, _, number = name.rpartition("-v")
        return version_of(model, int(number))
    spec = {"FineTuneJob": fine_tune_job(), "Dataset": {"source": {"uri": "pvc://data/rows.jsonl"}}, "Model": {}}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec[kind]}


def record(name, owners=(), **fields):
    meta = {"name": name, "ownerReferences": list(owners)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"m": "x"}, **fields}


def job(name="new", owners=(), labels=MappingProxyType({})):
    """A Job of somebody."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "a"}]}
    meta = {"name": name, "labels": dict(labels), "ownerReferences": list(owners)}
    spec = {"suspend": True, "template": {"metadata": {"labels": dict(labels)}, "spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


class Tries:
    """The requests of each line of the guide's table, all of them dry runs: (verb, path, body)."""

    def __init__(self):
        names = {"FineTuneJob": "x", "Dataset": "x", "Model": "x", "ModelVersion": "m-v1"}
        self.lines = {
            "Read objects of the four kinds": [
                ("GET", f"{HONE}/{plural}{name}", None)
                for kind, plural in KINDS.items()
                for name in ("", f"/{names[kind]}", "?watch=1&timeoutSeconds=1")
            ],
            "Create, change and delete FineTuneJobs and Datasets": self.writes("FineTuneJob", "Dataset"),
            "Create, change and delete Models": self.writes("Model"),
            "Create ModelVersions": [("POST", f"{HONE}/modelversions", body("ModelVersion", "m-v9"))],
            "Delete ModelVersions": [("DELETE", f"{HONE}/modelversions/m-v{n}", None) for n in (1, 2)],
            "Delete all objects of a kind at once": [("DELETE", f"{HONE}/{plural}", None) for plural in KINDS.values()],
            "Change `status`": [
                (verb, f"{HONE}/{plural}/{names[kind]}/status", {"status": {"phase": "Succeeded"}})
                for kind, plural in KINDS.items()
                for verb in ("PUT", "PATCH")
            ],
            "Change `deliveries`, annotations and labels of your own of a ModelVersion": self.patches(
                {"spec": {"deliveries": [{"uri": "s3://bucket/x", "secretName": "hone-s3"}]}},
                {"metadata": {"annotations": {"a": "b"}}},
                {"metadata": {"labels": {"team": "a"}}},
            ),
            "Change `deletionPolicy` of a ModelVersion that is not approved": self.patches(
                {"spec": {"deletionPolicy": "Delete"}}, versions=(1,)
            ),
            "Change `deletionPolicy` of one that is approved": self.patches(
                {"spec": {"deletionPolicy": "Delete"}}, versions=(2,)
            ),
            "Change `ownerReferences`, `finalizers` and labels `hone.dev/*` of a ModelVersion": self.patches(
                {"metadata": {"ownerReferences": [OWNER]}},
                {"metadata": {"finalizers": ["example.org/stuck"]}},
                {"metadata": {"labels": {"hone.dev/component": "none"}}},
                {"metadata": {"labels": {"hone.dev/job": None}}},
            ),
            "Change `approval` of a ModelVersion": [
                ("PATCH", f"{HONE}/modelversions/m-v{n}", {"spec": {"approval": {"state": state, "by": "$user"}}})
                for n, state in ((1, "Approved"), (1, "Rejected"), (2, "Rejected"), (2, "Candidate"))
            ],
            "Change labels and annotations `hone.dev/*` of Hone's Jobs and their pods": [
                ("PATCH", f"{path}/x-1", {"metadata": {field: {key: value}}})
                for path in (JOBS, PODS)
                for field, key, value in (
                    ("labels", "hone.dev/component", None),
                    ("labels", "hone.dev/component", "fetch"),
                    ("labels", "hone.dev/run", "another"),
                    ("annotations", "hone.dev/resolved", "{}"),
                    ("annotations", "hone.dev/ancestors", "[]"),
                )
            ]
            + [
                ("PATCH", f"{JOBS}/x-1", {"spec": {"template": {"metadata": {field: {key: value}}}}})
                for field, key, value in (
                    ("labels", "hone.dev/component", None),
                    ("labels", "hone.dev/run", "another"),
                    ("annotations", "hone.dev/resolved", "{}"),
                )
            ],
            "Create Jobs that an object of Hone owns, or give a Job or `<job>-ended-<hash>` such an owner": [
                *[("POST", JOBS, job(owners=[owner])) for owner in OWNERS],
                *[("PATCH", f"{JOBS}/mine", {"metadata": {"ownerReferences": [owner]}}) for owner in OWNERS],
                ("POST", MAPS, record("x-ended-0123abcd", owners=OWNERS[:1])),
                ("PATCH", f"{MAPS}/mine-ended-0123abcd", {"metadata": {"ownerReferences": OWNERS[:1]}}),
            ],
            "Create Jobs and ConfigMaps without such an owner": [
                ("POST", JOBS, job()),
                ("POST", JOBS, job(labels={"hone.dev/component": "training", "hone.dev/run": "x"})),
                ("POST", JOBS, job(owners=[OWNER | {"controller": True}])),
                ("POST", MAPS, record("build-ended-0123abcd")),
                ("POST", MAPS, record("build-ended-0123abcd", owners=[OWNER])),
                ("PATCH", f"{MAPS}/mine-ended-0123abcd", {"data": {"m": ""}}),
            ],
            "Change others of theirs": [
                ("PATCH", f"{path}/x-1", {"metadata": {field: {key: "a"}}})
                for path in (JOBS, PODS)
                for field, key in (("labels", "team"), ("annotations", "kueue.x-k8s.io/note"))
            ],
            "Create, change and delete the operator's records": [
                *[("POST", MAPS, record(name)) for name in RECORDS[1:]],
                *[("POST", MAPS, record(name, immutable=True)) for name in RECORDS[1:]],
                ("PATCH", f"{MAPS}/hone-contents", {"data": {"m": ""}}),
                ("PATCH", f"{MAPS}/hone-contents", {"immutable": True}),
                ("PATCH", f"{MAPS}/hone-contents", {"metadata": {"ownerReferences": [OWNER]}}),
                ("PUT", f"{MAPS}/hone-contents", record("hone-contents", data={})),
                ("DELETE", f"{MAPS}/hone-contents", None),
                ("DELETE", MAPS, None),
            ],
        }

    def writes(self, *kinds):
        return [
            (verb, f"{HONE}/{KINDS[kind]}{name}", made)
            for kind in kinds
            for verb, name, made in (
                ("POST", "", body(kind, "new")),
                ("PATCH", "/x", {"metadata": {"labels": {"a": "b"}}}),
                ("PUT", "/x", body(kind, "x")),
                ("DELETE", "/x", None),
            )
        ]

    def patches(self, *changes, versions=(1, 2)):
        return [("PATCH", f"{HONE}/modelversions/m-v{n}", change) for change in changes for n in versions]


LINES = Tries().lines


def documented():
    """{line: {role: whether it may}} of the guide's table."""
    section = (DOCS / "guides" / "security.md").read_text().split("## What each role may do\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    head, _, *lines = rows
    roles = [cell.replace("`", "") for cell in head[1:]]
    return {line[0]: {role: cell == "yes" for role, cell in zip(roles, line[1:], strict=True)} for line in lines}


@pytest.fixture(scope="module")
def space(kube, apiserver):
    """A namespace with an object of each kind, a record, and a user for each role: Kubernetes' own and Hone's."""

    def apply(path, made):
        kube.call("PATCH", f"{path}?fieldManager=tests&force=true", made, "application/apply-patch+yaml")

    meta = {"name": SPACE, "labels": {"hone.dev/enabled": "true"}}
    apply(f"/api/v1/namespaces/{SPACE}", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    for kind, plural in KINDS.items():
        for name in ("m-v1", "m-v2") if kind == "ModelVersion" else ("x",):
            made = copy.deepcopy(body(kind, name))
            made["metadata"]["labels"] = {"hone.dev/job": "j"}
            if name == "m-v2":
                made["spec"]["approval"] = {"state": "Approved", "by": "kubernetes-admin"}
            apply(f"{HONE}/{plural}/{name}", made)
    apply(f"{MAPS}/hone-contents", record("hone-contents"))
    marks = {
        "labels": {"hone.dev/component": "training", "hone.dev/run": "x"},
        "annotations": {"hone.dev/resolved": "{..}"},
    }
    marked = job("x-1", labels=marks["labels"])
    pod, meta = marked["spec"]["template"]["spec"], {"name": "x-1", **marks}
    apply(f"{JOBS}/x-1", {**marked, "metadata": meta})
    apply(f"{JOBS}/mine", job("mine"))
    apply(f"{MAPS}/mine-ended-0123abcd", record("mine-ended-0123abcd"))
    kube.call("POST", f"/api/v1/namespaces/{SPACE}/serviceaccounts", {"metadata": {"name": "default"}})
    apply(f"{PODS}/x-1", {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod})
    with installed(kube, apiserver, SYSTEM, {}):
        for role, parts in ROLES.items():
            for part in parts:
                for cluster_role in aggregated(kube, part):
                    bind(kube, role, cluster_role)
        for role in ROLES:
            wait_until(lambda role=role: ask(kube, role, "GET", f"{HONE}/models", None)[0] == 200, f"{role} is bound")
        yield kube


def aggregated(kube, role):
    """ClusterRoles that a controller would join to Kubernetes' role of this name; there is none here."""
    items = kube.call("GET", f"/apis/{GROUP}/v1/clusterroles")["items"]
    label = f"{GROUP.removesuffix('.k8s.io')}.k8s.io/aggregate-to-{role}"
    names = [r["metadata"]["name"] for r in items if (r["metadata"].get("labels") or {}).get(label) == "true"]
    mine = [name for name in names if name.startswith(("system:aggregate", f"{SYSTEM}-"))]
    return mine or [f"{SYSTEM}-hone-{role}"]


def bind(kube, user, cluster_role):
    meta = {"name": re.sub(r"[^a-z]+", "-", f"{user} {cluster_role}")}
    binding = {"apiVersion": f"{GROUP}/v1", "kind": "RoleBinding", "metadata": meta}
    binding["roleRef"] = {"apiGroup": GROUP, "kind": "ClusterRole", "name": cluster_role}
    binding["subjects"] = [{"kind": "User", "name": user, "apiGroup": GROUP}]
    path = f"/apis/{GROUP}/v1/namespaces/{SPACE}/rolebindings/{meta['name']}?fieldManager=tests&force=true"
    kube.call("PATCH", path, binding, "application/apply-patch+yaml")


def ask(kube, role, verb, path, made):
    """(code, message) of a request of this role's user."""
    made = json.loads(json.dumps(made).replace("$user", role))
    if verb == "PUT":
        made = kube.call("GET", path.removesuffix("/status")) | {k: v for k, v in made.items() if k != "metadata"}
    made = DRY_RUN if verb == "DELETE" else made  # with a body, the API server reads no option from the path
    dry = "?dryRun=All" if verb in ("POST", "PUT", "PATCH") else ""
    kind = MERGE if verb == "PATCH" else "application/json"
    return kube.impersonate(role, verb, path + dry, made, groups="system:authenticated", content_type=kind)


def test_each_role_may_do_what_the_guide_says(space):
    tables = documented()
    assert set(tables) == set(LINES)
    wrong, tried = [], 0
    for line, requests in LINES.items():
        for role, may in tables[line].items():
            for request in requests:
                tried += 1
                code, message = ask(space, role, *request)
                if (code < 300) != may or code not in (200, 201, 403):
                    wrong.append(f"{role}: {line}: {request[:2]} {json.dumps(request[2])[:90]}: {code} {message[:160]}")
    assert "\n".join(wrong) == ""
    (row,) = (line for line in (DOCS / "outside.md").read_text().splitlines() if "test_roles.py" in line)
    assert f"| {tried} | {tried} |" in row
