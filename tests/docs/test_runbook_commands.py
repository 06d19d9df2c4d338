"""Every command of a runbook does at a real API server what its page says; nobody finds a mistake at night.

The chart is installed, and each page has a namespace with the objects that its commands name. Commands run as they
are typed, in bash, and those that write really write. No pod runs: a kubelet is played that knows logs alone.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from support.cluster.chart_documents import CHART, IMAGES
from support.cluster.desired_objects import CASES, imported_model
from support.cluster.kube import Kube, path, wait_until

from hone_api.generate import KINDS
from hone_api.schema.schema import crd
from hone_api.words.phases import OF_STAGE
from hone_cli.runs.explain import meanings
from hone_dev.cluster import binaries, kueue
from hone_dev.cluster.controlplane import control_plane
from hone_dev.cluster.pki import Authority
from hone_dev.tools import paths, tools
from hone_operator.__main__ import JsonFormatter
from hone_operator.monitoring.metrics import API_ERRORS
from hone_operator.reconcile.core.notreconciled import WEBHOOK_FAILED

pytestmark = pytest.mark.apiserver
PAGES = sorted((paths.SOURCE / "docs" / "guides" / "runbooks").glob("*.md"))
RULES = yaml.safe_load((CHART / "files" / "rules" / "hone.yaml").read_text())["groups"]
EXPRESSIONS = {rule["alert"]: rule["expr"] for group in RULES for rule in group["rules"] if "alert" in rule}
PROGRAMS = {"kubectl", "helm", "hone", "curl"}
"""What begins a command. To add one, say here how it is run."""
AT = "2026-01-01T00:00:00Z"

OBJECT = {"finetunejob": "run", "dataset": "rows", "modelversion": "m-v1", "model": "m"}
"""What NAME stands for, by the label of the page's alert that has the object's name."""
FILLED = {
    **{"POD": "run-1", "QUEUE": "team", "CLUSTERQUEUE": "research", "QUOTA": "hone", "NODE": "node-1"},
    **{"CHART": "charts/hone", "CODE": "DiskFull", "REASON": "DiskFull", "CORRECTED": "corrected", "VARIABLE": "EXTRA"},
    **{"SECRET": "keys", "KEY": "token", "VALUE": "new", "NUMBER": "1", "ALIAS": "champion"},
}
FILLED_ON = {
    "HoneObjectsUnreadable": {"KIND": "finetunejobs", "NAME": "run"},
    "HoneWebhookFails": {"KIND": "validatingwebhookconfiguration", "NAME": "guard"}
    | {"WEBHOOK_NAMESPACE": "guards", "DEPLOYMENT": "guard"},
    "FineTuneJobQuotaExceeded": {"OTHER": "run"},
    "ModelNotServed": {"NAME": "m", "POD": "server"},
    "ModelVersionNotSigned": {"SECRET": "signing-key"},
}
"""What a page's placeholders stand for where it is something else."""
NOT_HERE = {
    "kubectl exec": (r"/exec/\S+/run-1/trainer\?command=nvidia-smi", "a process in a container"),
    "kubectl port-forward": (r"/portForward/\S+/server", "a port of a container"),
    "curl": (r"Failed to connect to localhost port 8001", "what port-forward opens"),
    "hone cancel": (r"nobody can be asked here", "a terminal; the run was found, and its state read"),
}
"""Commands that need what an API server alone does not have: what they say or ask the
kubelet for, and what that is."""
NOTHING = re.compile(r"No resources found|\(no change\)")
NO_FIELD = re.compile(r"<none>|\bnull\b")
"""What commands print that find or change nothing, and those that print fields, of one that does not exist."""
OF_OTHERS = {"ErrImagePull", "ImagePullBackOff", "ReplicaFailure", "Never", "None"}
"""Words in capitals that Kubernetes and Kueue write."""


def of_page(page: Path) -> tuple[list[str], list[str]]:
    """Commands in the blocks of a page, and in its sentences. Each block must be of a kind that is known."""
    text = page.read_text()
    fences = re.findall(r"^```(\w*)\n(.*?)^```\n", text, re.DOTALL | re.MULTILINE)
    assert {kind for kind, _ in fences} <= {"", "console", "yaml"}, "a block of a kind that is not tested"
    shown = [each for kind, block in fences for each in ([applied(block)] if kind == "yaml" else lines(block))]
    prose = " ".join(re.sub(r"^```.*?^```\n", "", text, flags=re.DOTALL | re.MULTILINE).split())
    inline = [code for code in re.findall(r"`([^`]+)`", prose) if begins_as_command(code)]
    return shown, [each for each in inline if not any(each in other for other in shown)]


def applied(manifest: str) -> str:
    return f"kubectl -n NAMESPACE apply -f - <<'END'\n{manifest}END\n"


def lines(block: str) -> Iterator[str]:
    """One command after the other; a quotation or a backslash goes on in the next line."""
    begun = ""
    for line in block.splitlines():
        begun = f"{begun}\n{line}" if begun else line.removeprefix("$ ")
        if begun.count("'") % 2 == 0 and not begun.endswith("\\"):
            yield begun
            begun = ""
    assert not begun


def begins_as_command(code: str) -> bool:
    word, _, rest = code.partition(" ")
    return bool(rest) and (word in PROGRAMS or shutil.which(word) is not None)


def filled(command: str, page: str, namespace: str) -> str:
    labels = [name for label, name in OBJECT.items() if re.search(rf"\b{label}\b", EXPRESSIONS.get(page, ""))]
    table = FILLED | {"NAMESPACE": namespace, "NAME": labels[0] if labels else ""} | FILLED_ON.get(page, {})
    for word in sorted(table, key=len, reverse=True):
        command = re.sub(rf"(?<![A-Z_]){word}(?![A-Z_:])", table[word], command)
    return re.sub("-o (jsonpath|custom-columns)", r"--allow-missing-template-keys=false -o \1", command)


# -- the world -----------------------------------------------------------------------------------------------------


def of_operator() -> str:
    """A log with each line that the operator can write, as it formats them."""
    written = []
    for file in sorted((paths.SOURCE / "operator" / "hone_operator").rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and re.match(r"log\.\w+\(['\"]", ast.unparse(call)):
                level = {"exception": "ERROR"}.get(call.func.attr, call.func.attr.upper())
                written.append((level, ast.literal_eval(call.args[0])))
    written.append(("WARNING", f"Error: {WEBHOOK_FAILED}"))
    record = logging.makeLogRecord
    return "".join(JsonFormatter().format(record({"levelname": level, "msg": said})) + "\n" for level, said in written)


class Kubelet(BaseHTTPRequestHandler):
    """Answers with the log of any container, and notes what else it is asked for."""

    log = ""
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        known = self.path.startswith("/containerLogs/")
        body = self.log.encode() if known else b""
        self.send_response(200 if known else 501)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def played_kubelet(authority: Authority) -> Iterator[int]:
    """Its port."""
    Kubelet.log = of_operator()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("kubelet", "kubelet", hosts=("127.0.0.1",)))
    with ThreadingHTTPServer(("127.0.0.1", 0), Kubelet) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def condition(type_: str, status: str, reason: str) -> dict[str, str]:
    return {"type": type_, "status": status, "reason": reason, "message": "why", "lastTransitionTime": AT}


def pod(name: str, template: dict[str, Any], namespace: str) -> dict[str, Any]:
    """A pod on the node, which is gone at once when it is deleted."""
    spec = {**template["spec"], "nodeName": "node-1", "terminationGracePeriodSeconds": 0}
    labels = template["metadata"]["labels"]
    return thing("Pod", name, namespace, spec=spec, metadata={"name": name, "namespace": namespace, "labels": labels})


def thing(kind: str, name: str, namespace: str = "", version: str = "v1", **rest: Any) -> dict[str, Any]:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": meta, **rest}


def event(reason: str, kind: str, name: str, namespace: str, version: str = "hone.dev/v1alpha1") -> dict[str, Any]:
    about = {"apiVersion": version, "kind": kind, "name": name, "namespace": namespace}
    return thing("Event", f"{name}.{reason.lower()}", namespace, involvedObject=about, reason=reason, type="Warning")


def of_cluster() -> list[dict[str, Any]]:
    hook = {
        "name": "guard.example.org",
        "clientConfig": {"service": {"name": "guard", "namespace": "guards"}},
        "rules": [{"apiGroups": ["example"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["none"]}],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kinds = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
    admission = "admissionregistration.k8s.io/v1"
    return [
        thing("Namespace", "hone-system"),
        thing("Namespace", "guards"),
        thing("Node", "node-1"),
        thing("StorageClass", "files", version="storage.k8s.io/v1", provisioner="x", allowVolumeExpansion=True),
        *(thing(kind, "guard", version=admission, webhooks=[hook]) for kind in kinds),
        thing("Deployment", "guard", "guards", "apps/v1", spec=one_container({"app": "guard"})),
        *kueue.definitions(),
    ]


def one_container(labels: dict[str, str]) -> dict[str, Any]:
    containers = {"spec": {"containers": [{"name": "c", "image": "example.org/c"}]}}
    return {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, **containers}}


SPECS: dict[str, dict[str, Any]] = {
    "Dataset": {"source": {"uri": "pvc://data/rows.jsonl"}},
    "FineTuneJob": {
        **{"model": {"uri": "hf://a/b"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}},
        "scheduling": {"queueName": "team"},
    },
    "Model": {"aliases": [{"name": "champion", "version": 1}], "imports": [{"uri": "hf://a/adapter"}]},
    "ModelVersion": {
        "modelName": "m",
        "version": 1,
        "artifacts": [
            {"format": "Adapter", "uri": "pvc://hone-store/models/1/adapter", "digest": f"sha256:{'0' * 64}"}
            | {"sizeBytes": 1}
        ],
        "lineage": {
            "baseModel": {"uri": "hf://owner/base@main", "location": "pvc://hone-store/base-models/b1"},
            **{"datasets": [], "job": {"name": "run", "uid": "x"}, "method": "SFT", "seed": 1},
            "hyperParameters": {"adapter": {"type": "LoRA", "rank": 16}},
        },
        "deliveries": [{"uri": "pvc://serving/team"}],
        "approval": {"state": "Approved", "by": "kubernetes-admin"},
    },
}
ENTRY = {"key": "0", "state": "Failed", "reason": "DestinationOccupied", "message": "why"}
STATUSES: dict[str, dict[str, Any]] = {
    "Dataset": {
        "conditions": [
            condition("Ready", "False", "SourceUnreachable"),
            condition("Reconciling", "True", "StatusRefused"),
        ],
        "failure": {"code": "SourceUnreachable", "message": "why"},
        "errors": [{"code": "UnknownRole", "count": 1, "example": "rows.jsonl:1: why"}],
    },
    "FineTuneJob": {
        "phase": "Running",
        "conditions": [
            condition("Reconciling", "True", "InternalError"),
            *(condition(f"{word}Ready", "False", "SourceUnreachable") for word in ("Dataset", "Model", "Tasks")),
            condition("RowsEncoded", "False", "Encoding"),
            condition("Admitted", "False", "QuotaExceeded"),
        ],
        "progress": {"stage": "Loading", "summary": "Loading the model"},
        "metrics": [{"name": "loss", "curve": "1:3.9 2:nan"}],
        "attempts": [
            {"number": 1, "jobName": "run-1", "outcome": "Failed", "reason": "DiskFull", "endStep": 3}
            | {"startStep": 0, "phaseSeconds": {"loading": 20}}
        ],
        "queue": {"name": "team", "reason": "Pending", "message": "why", "evictions": 1},
        "failure": {"code": "DiskFull", "message": "why", "hint": "what to do", "logTail": "the end"},
    },
    "Model": {
        "conditions": [
            condition("Ready", "False", "AliasNotFound"),
            condition("Registered", "False", "SecretNotFound"),
        ],
        "aliases": [{"name": "champion", "version": 1, "modelVersion": "m-v1", "since": AT, "writer": "Spec"}],
        "imports": [{**ENTRY, "uri": "hf://a/adapter"}],
    },
    "ModelVersion": {
        "conditions": [
            condition("Ready", "True", "Verified"),
            condition("Verified", "True", "Verified"),
            condition("Signed", "False", "SecretNotFound"),
        ],
        "deliveries": [{**ENTRY, "uri": "pvc://serving/team"}],
        "downloadPod": {"image": "hone/trainer:1"},
    },
}
WORK = ("training-one-pod", "materialize-pvc", "verify", "sign", "deliver-volume", "register")


def of_team(namespace: str) -> list[dict[str, Any]]:
    """A namespace with every object that a page names."""
    (claim,) = CASES["store"]()
    claim["spec"]["storageClassName"] = "files"
    claim["spec"]["volumeName"] = "volume"
    made = [*(CASES[name]() for name in WORK), imported_model()]
    jobs = [body for bodies in made for body in bodies if body["kind"] == "Job"]
    for body in (claim, *jobs):
        body["metadata"]["namespace"] = namespace
    queue = "kueue.x-k8s.io/v1beta2"
    server = {"metadata": {"labels": {"hone.dev/server": "follow"}}, "spec": one_container({})["template"]["spec"]}
    server["spec"]["containers"][0]["ports"] = [{"containerPort": 8001}]
    return [
        thing("Namespace", namespace),
        thing("ServiceAccount", "default", namespace),
        thing("ConfigMap", "hone-contents", namespace, data={"stored.json": '{"runs": 1}'}),
        thing("Secret", "keys", namespace, data={"token": "b2xk"}),
        thing("ResourceQuota", "hone", namespace, spec={"hard": {"count/pods": "100"}}),
        thing("LocalQueue", "team", namespace, queue, spec={"clusterQueue": "research", "stopPolicy": "Hold"}),
        thing("ClusterQueue", "research", "", queue, spec={"stopPolicy": "Hold", "namespaceSelector": {}}),
        claim,
        *jobs,
        *(pod(body["metadata"]["name"], body["spec"]["template"], namespace) for body in jobs),
        pod("server", server, namespace),
        *(thing(kind, OBJECT[kind.lower()], namespace, "hone.dev/v1alpha1", spec=spec) for kind, spec in SPECS.items()),
        event("Started", "FineTuneJob", "run", namespace),
        event("Unreadable", "FineTuneJob", "run", namespace),
        event("Unwritable", "FineTuneJob", "run", namespace),
    ]


@dataclass(frozen=True)
class World:
    """The API server, and a shell in which one types."""

    kube: Kube
    folder: Path
    env: dict[str, str]

    def run(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            **{"input": stdin, "env": self.env, "cwd": self.folder, "capture_output": True, "text": True},
        )

    def done(self, command: str, stdin: str = "") -> str:
        done = self.run(command, stdin)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        return done.stdout

    def apply(self, objects: list[dict[str, Any]]) -> None:
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.done("kubectl apply --server-side --force-conflicts --validate=false -f -", body)

    def status(self, where: str, status: dict[str, Any]) -> None:
        change = "application/merge-patch+json"
        self.kube.call("PATCH", f"{where}/status?fieldValidation=Strict", {"status": status}, change)

    def age_definitions(self) -> None:
        """As a release before has left them: helm owns fields that differ from those of this version."""
        url = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/datasets.hone.dev"
        body = self.kube.call("GET", url)
        kept = {key: body["metadata"][key] for key in ("name", "labels", "annotations") if key in body["metadata"]}
        body = {**body, "metadata": kept, "status": None}
        body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "Older."
        self.kube.call("PATCH", f"{url}?fieldManager=helm&force=true", body, "application/apply-patch+yaml")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("runbooks")
    (folder / "bin").mkdir()
    for program in (binaries.kubernetes() / "kubectl", tools.helm(), paths.SOURCE / ".venv" / "bin" / "hone"):
        (folder / "bin" / program.name).symlink_to(program)
    (folder / "charts").symlink_to(CHART.parent)
    (folder / "private-key.pem").write_text("key")
    authority = Authority(folder / "plane" / "pki")
    with control_plane(folder / "plane", garbage="400") as kubeconfig, played_kubelet(authority) as port:
        own = {"KUBECONFIG": str(kubeconfig), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "KUBE_EDITOR": "true"}
        world = World(Kube(kubeconfig, folder), folder, {**os.environ, **own, "HOME": str(folder)})
        world.apply(of_cluster())
        addresses = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
        world.status("/api/v1/nodes/node-1", addresses | {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}})
        for verb in ("install", "upgrade"):
            world.done(f"helm {verb} hone charts/hone -n hone-system --set kueue.enabled=true --values {IMAGES[1]}")
        world.done("kubectl -n hone-system set env deploy/hone EXTRA=1")
        wait_until(lambda: world.kube.call("GET", "/apis/kueue.x-k8s.io/v1beta2/clusterqueues"), "Kueue's definitions")
        yield world


@pytest.fixture
def team(world: World, request: pytest.FixtureRequest) -> str:
    """The namespace of a page."""
    name = f"team-{request.node.callspec.id.lower()}"
    deployment = world.kube.call("GET", "/apis/apps/v1/namespaces/hone-system/deployments/hone")
    operator = pod(f"hone-{name}", deployment["spec"]["template"], "hone-system")
    refused = event("FailedCreate", "ReplicaSet", "hone-0", "hone-system", "apps/v1")
    world.apply([*of_team(name), operator, refused])
    world.age_definitions()
    for kind, status in STATUSES.items():
        world.status(path(kind, name, OBJECT[kind.lower()]), status)
    world.status(path("Pod", name, "server"), {"phase": "Running"})
    queues = "/apis/kueue.x-k8s.io/v1beta2/clusterqueues/research"
    world.status(queues, {"pendingWorkloads": 1, "admittedWorkloads": 0})
    world.status(path("PersistentVolumeClaim", name, "hone-store"), {"phase": "Bound", "capacity": {"storage": "1Gi"}})
    manifest = thing("FineTuneJob", "corrected", version="hone.dev/v1alpha1", spec=SPECS["FineTuneJob"])
    (world.folder / "corrected.yaml").write_text(json.dumps(manifest))
    return name


# -- the tests -----------------------------------------------------------------------------------------------------


def complaint(world: World, command: str) -> str:
    """What is wrong with a command; empty: it ran, and found or changed something."""
    Kubelet.asked.clear()
    done = world.run(command)
    said = done.stdout + done.stderr
    expected = next((words for start, (words, _) in NOT_HERE.items() if runs(start, command)), None)
    if expected:
        return "" if re.search(expected, "\n".join([said, *Kubelet.asked])) else said
    missing = NO_FIELD.search(said) if "custom-columns" in command or "| jq" in command else None
    made = done.stdout or (" edit " in command and "no changes made" in said) or re.search(r" > \S+$", command)
    return said[:500] or "prints nothing" if done.returncode or not made or missing or NOTHING.search(said) else ""


def runs(start: str, command: str) -> bool:
    """Whether a command begins with these words, apart from a namespace."""
    return re.sub(r" -n \S+", "", command).startswith(f"{start} ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_command_runs_and_finds_something(page: Path, world: World, team: str) -> None:
    shown, inline = of_page(page)
    assert shown or page.stem == "index"
    typed = [filled(command, page.stem, team) for command in [*inline, *shown]]
    assert {command.split()[0] for command in typed} <= PROGRAMS
    wrong = [f"{command}\n{said}" for command in typed if (said := complaint(world, command))]
    assert not wrong, "\n".join(wrong)


def test_a_command_of_an_unknown_kind_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Enter `kubectl get\npods -A`, or `df -h`, or `hone explain`.\n\n```\nhone explain A \\\n  -o json\n```\n"
    )
    assert of_page(page) == (["hone explain A \\\n  -o json"], ["kubectl get pods -A", "df -h"])
    page.write_text("```python\nprint()\n```\n")
    with pytest.raises(AssertionError, match="not tested"):
        of_page(page)


@pytest.mark.parametrize(
    "command",
    [
        "kubectl get pods --frob",
        "kubectl -n hone-system get pods -l app=gone",
        "kubectl get nodes -o custom-columns=A:.status.adresses",
        "kubectl -n hone-system get deploy/hone --allow-missing-template-keys=false -o jsonpath='{.spec.replica}'",
        "kubectl -n hone-system logs deploy/hone | grep nobody-logs-this",
        "kubectl patch sc files -p '{\"allowVolumeExpansion\":true}'",
        "kubectl exec gone -- nvidia-smi",
        "helm -n hone-system rollback gone",
        "hone explain Gone",
    ],
)
def test_a_command_that_finds_nothing_is_seen(world: World, command: str) -> None:
    assert complaint(world, command)


def test_each_word_of_a_status_and_each_metric_exists() -> None:
    schemas = [crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"] for kind in KINDS]
    fields = re.findall(r'"(\w+)": \{', json.dumps(schemas))
    described = {re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name[0].upper() + name[1:]) for name in fields}
    text = "".join(page.read_text() for page in PAGES)
    words = set(re.findall(r"`([A-Z][a-z]\w*(?: [A-Z]\w+)*)(?:=\w+)?`", text))
    assert words - described - set(meanings()) - {*OF_STAGE, *API_ERRORS} == OF_OTHERS
    golden = (paths.SOURCE / "tests" / "operator" / "metrics.golden.txt").read_text()
    metrics = set(re.findall(r"`(hone_[a-z_]+)`", text))
    assert metrics
    assert metrics - set(re.findall(r"# TYPE (\w+)", golden)) == {"hone_serve_problem"}  # of a server
