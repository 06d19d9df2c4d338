"""helm against a real API server: install, upgrade, uninstall."""

import json
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.cluster.chart_documents import IMAGES

from hone_dev.cluster.controlplane import control_plane
from hone_dev.tools import paths, tools
from hone_operator.desired.core.namespace import NamespaceSetup

pytestmark = pytest.mark.apiserver
CHART = paths.SOURCE / "charts" / "hone"
NAMESPACE = "hone-system"


@dataclass(frozen=True)
class Server:
    """helm and kubectl against one API server."""

    kubeconfig: Path

    def helm(self, *argv: object, stdin: str | None = None, cwd: Path | None = None) -> str:
        verb, *rest = argv
        images = IMAGES if verb in ("install", "upgrade") else ()
        return self._run(tools.helm(), verb, *images, *rest, stdin=stdin, cwd=cwd)

    def kubectl(self, *argv: object, stdin: str | None = None, cwd: Path | None = None) -> str:
        return self._run(tools.kubectl(), *argv, stdin=stdin, cwd=cwd)

    def get(self, *argv: str) -> dict:
        return json.loads(self.kubectl("get", "--namespace", NAMESPACE, *argv, "--output=json"))

    def _run(self, program: Path, *argv: object, stdin: str | None = None, cwd: Path | None = None) -> str:
        command = [program, "--kubeconfig", self.kubeconfig, *argv]
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=cwd)
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An API server of this module's own: a chart that is installed owns the definitions."""
    with control_plane(tmp_path_factory.mktemp("chart"), garbage="400") as kubeconfig:
        server = Server(kubeconfig)
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
        server.kubectl("apply", "--filename=-", stdin=json.dumps(space))
        notes = server.helm("install", "hone", CHART, "--namespace", NAMESPACE)
        assert "would violate PodSecurity" not in notes
        assert "kubectl get mv" in notes
        yield server


def test_the_definitions_are_served(server):
    server.kubectl("wait", "--for=condition=Established", "crd/finetunejobs.hone.dev", "--timeout=15m")
    assert "finetunejobs" in server.kubectl("api-resources", "--api-group=hone.dev")
    assert "lora" in _explained(server, "ftj.spec.adapter").lower()


def _explained(server: Server, path: str) -> str:
    """The API server publishes the schema of a new kind a moment after it serves the kind."""
    for _ in range(60):
        try:
            return server.kubectl("explain", path, "--recursive")
        except AssertionError as error:
            if "couldn't find resource" not in str(error):
                raise
            time.sleep(1)
    raise AssertionError(f"{path} is not explained after a minute")


def test_pods_pass_the_restricted_standard(server):
    template = server.get("deployment", "hone")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dry", **template["metadata"]}}
    pod["spec"] = template["spec"]
    said = server.kubectl("--namespace", NAMESPACE, "create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
    assert "pod/dry created (server dry run)" in said
    assert "Warning" not in said


def test_an_upgrade_keeps_the_certificates_and_changes_nothing_else(server):
    data = {"data": {"ca.crt": "Y2E=", "tls.crt": "Y2VydA=="}}
    server.kubectl(
        "--namespace", NAMESPACE, "patch", "secret", "hone-operator-tls", "--type=merge", f"--patch={json.dumps(data)}"
    )
    kinds = "deployment,configmap,service,secret,role,rolebinding,serviceaccount"
    selector = "--selector=app.kubernetes.io/instance=hone"
    before = {
        o["kind"] + o["metadata"]["name"]: o["metadata"]["resourceVersion"]
        for o in server.get(kinds, selector)["items"]
    }
    server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE)
    after = {
        o["kind"] + o["metadata"]["name"]: o["metadata"]["resourceVersion"]
        for o in server.get(kinds, selector)["items"]
    }
    assert after == before
    assert server.get("secret", "hone-operator-tls")["data"] == data["data"]


def test_the_commands_of_the_page_upgrade(server, tmp_path):
    """docs/guides/upgrade.md, in its order, from a release with a value of its own."""
    space = ("--namespace", NAMESPACE)
    server.helm("upgrade", "hone", CHART, *space, "--set", "concurrency=8")
    values = tmp_path / "values.yaml"
    values.write_text(server.helm("get", "values", "hone", *space, "--output", "yaml"))
    server.helm("upgrade", "hone", CHART, *space, "--values", values)
    assert "concurrency: 8" in server.get("configmap", "hone-config")["data"]["config.yaml"]
    server.kubectl("apply", "--server-side", "--dry-run=server", "--filename", CHART / "files" / "crds")
    revisions = server.helm("history", "hone", *space, "--output", "json")
    server.helm("rollback", "hone", *space, str(json.loads(revisions)[0]["revision"]))
    assert "concurrency: 16" in server.get("configmap", "hone-config")["data"]["config.yaml"]


def test_users_get_their_rights_by_aggregation(server):
    roles = server.get("clusterroles", "--selector=rbac.authorization.k8s.io/aggregate-to-edit=true")["items"]
    ours = [r for r in roles if r["metadata"]["name"].startswith("hone-system-hone-")]
    granted = {(x, v) for r in ours for rule in r["rules"] for x in rule["resources"] for v in rule["verbs"]}
    assert ("finetunejobs", "create") in granted
    assert ("modelversions", "delete") not in granted


def test_a_namespace_with_the_label_is_listed_afterwards(server):
    """What the operator has made in it is not in the way of what the chart makes."""
    role = f"{NAMESPACE}-hone-namespace"
    setup = NamespaceSetup("team-a", role, server.get("clusterrole", role)["metadata"]["uid"])
    server.kubectl("create", "namespace", "team-a")
    for body in (setup.binding("hone", NAMESPACE), setup.closed_ports([])):
        server.kubectl("create", "--filename=-", stdin=json.dumps(body))
    server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE, "--set", "namespaces={team-a}")
    bindings = json.loads(server.kubectl("get", "rolebindings", "--namespace=team-a", "--output=json"))["items"]
    assert [b["roleRef"]["name"] for b in bindings] == [role, role]
    server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE, "--set-json", "namespaces=[]")


KINDS = "finetunejobs.hone.dev,datasets.hone.dev,modelversions.hone.dev,models.hone.dev"
KEPT = {
    "apiVersion": "hone.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "kept", "namespace": NAMESPACE},
    "spec": {"model": {"uri": "hf://a/b"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}},
}


def test_uninstalling_keeps_the_definitions_and_the_objects(server):
    server.kubectl("apply", "--filename=-", stdin=json.dumps(KEPT))
    data = {"data": {"ca.crt": "Y2E=", "rotate": "MQ=="}}
    secret = ("--namespace", NAMESPACE, "patch", "secret", "hone-operator-tls", "--type=merge")
    server.kubectl(*secret, f"--patch={json.dumps(data)}")
    kept = server.get("secret", "hone-operator-tls")
    server.helm("uninstall", "hone", "--namespace", NAMESPACE)
    assert server.get("ftj", "kept")["spec"]["model"]["uri"] == "hf://a/b"
    assert server.get("clusterroles", "--selector=app.kubernetes.io/instance=hone")["items"] == []
    # Installed again, the release takes the definitions that are there, and the certificates that running pods trust.
    server.helm("install", "hone", CHART, "--namespace", NAMESPACE)
    taken = server.get("secret", "hone-operator-tls")
    assert (taken["metadata"]["uid"], taken["data"]) == (kept["metadata"]["uid"], kept["data"])


def test_the_commands_that_remove_everything(server):
    """docs/guides/storage.md: nothing has a finalizer, so that nothing is waited for."""
    server.kubectl("apply", "--filename=-", stdin=json.dumps(KEPT))
    columns = "custom-columns=KIND:.kind,NAME:.metadata.name,FINALIZERS:.metadata.finalizers"
    rows = server.kubectl("get", "hone", "--all-namespaces", f"--output={columns}").splitlines()
    assert [row.split() for row in rows[1:]] == [["FineTuneJob", "kept", "<none>"]]
    server.helm("uninstall", "hone", "--namespace", NAMESPACE)
    server.kubectl("delete", KINDS, "--all", "--all-namespaces", "--timeout=60s")
    server.kubectl("delete", "crd", *KINDS.split(","), "--timeout=60s")
    assert "hone.dev" not in server.kubectl("get", "crd", "--output=name")
    server.kubectl("delete", "secret", "hone-operator-tls", f"--namespace={NAMESPACE}")
    assert "secret/hone" not in server.kubectl("get", "secret", f"--namespace={NAMESPACE}", "--output=name")


INSTALL = (paths.SOURCE / "docs/guides/install.md").read_text()
NEEDS_A_NODE = (["helm", "test"], ["kubectl", "-n", "team-a", "wait"])


def commands_of(page: str) -> list[list[str]]:
    """The words of each command of a page's console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.S | re.M)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]


def test_the_commands_of_the_page_install(server, tmp_path):
    """docs/guides/install.md in its order, without Hone in the cluster; pods start in the end-to-end tests alone."""
    server.helm("uninstall", "hone", "--namespace", NAMESPACE, "--ignore-not-found")
    server.kubectl("delete", "crd", *KINDS.split(","), "--ignore-not-found", "--timeout=60s")
    (tmp_path / "values.yaml").write_text(re.search(r"^```yaml\n(.*?)^```", INSTALL, re.S | re.M)[1])
    for name in ("charts", "examples"):
        (tmp_path / name).symlink_to(paths.SOURCE / name)
    programs = {"helm": server.helm, "kubectl": server.kubectl}
    output = {}
    for words in commands_of(INSTALL):
        if words[0] == "docker" or any(words[: len(begin)] == begin for begin in NEEDS_A_NODE):
            continue
        stdin = None
        for command in " ".join(shlex.quote(word) for word in words if word != "--wait").split(" '|' "):
            renamed = command.replace(NAMESPACE, "hone-install").replace("team-a", "team-install")
            program, *argv = shlex.split(renamed)
            stdin = programs[program](*argv, stdin=stdin, cwd=tmp_path)
        output[" ".join(words[:4])] = stdin
    assert "finetunejob.hone.dev/ops-commands" in output["kubectl -n team-a get"]
    policies = output["kubectl get validatingadmissionpolicies,clusterroles -l"]
    for name in (
        "operator-jobs",
        "tenant-finetunejobs",
        "namespace",
        "tokenreview",
        "view",
        "edit",
        "admin",
        "approve",
    ):
        assert f"/hone-install-hone-{name} " in policies, name
    for kind in ("deployment.apps/hone", "configmap/hone-config", "service/hone-metrics", "service/hone-progress"):
        assert f"{kind} " in output["helm get manifest hone"], kind
    assert 'release "hone" uninstalled' in output["helm uninstall hone --namespace"]
    assert "ops-commands" in server.kubectl("get", "ftj", "--namespace=team-install"), "objects stay"
    assert "hone-operator-tls" in server.kubectl("get", "secret", "--namespace=hone-install")
