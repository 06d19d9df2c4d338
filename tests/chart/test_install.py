"""helm against a real API server: install, upgrade, uninstall."""

import base64
import json
import re
import shlex
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from support.cluster.chart_documents import IMAGES
from support.cluster.operator_process import Operator

from hone_dev.cluster.controlplane import control_plane
from hone_dev.tools import paths, tools
from hone_operator.desired.core.namespace import NamespaceSetup

pytestmark = pytest.mark.apiserver
CHART = paths.SOURCE / "charts" / "hone"
CRDS = CHART.with_name("hone-crds")
NAMESPACE = "hone-system"
KINDS = "finetunejobs.hone.dev,datasets.hone.dev,modelversions.hone.dev,models.hone.dev"
KEPT = {
    "apiVersion": "hone.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "kept", "namespace": NAMESPACE},
    "spec": {"model": {"uri": "hf://a/b"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}},
}


@dataclass(frozen=True)
class Server:
    """helm and kubectl against one API server."""

    kubeconfig: Path

    def helm(self, *argv: object, stdin: str | None = None, cwd: Path | None = None) -> str:
        verb, *rest = argv
        more = IMAGES if verb in ("install", "upgrade") and CRDS not in rest else ()
        if (
            verb == "upgrade"
        ):  # what the same API server has admitted by `install`: 0.4 s of parsing its OpenAPI document
            more = (*more, "--disable-openapi-validation")
        return self._run(tools.helm(), verb, *more, *rest, stdin=stdin, cwd=cwd)

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
        assert "kubectl -n team-a get dset,ftj,mv" in notes
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


def test_a_value_that_is_null_never_leaves_half_an_upgrade(server):
    """A policy with `null` in place of a list was refused by the API server, after other objects had been written."""
    space = ("--namespace", NAMESPACE)
    server.helm("upgrade", "hone", CHART, *space, "--set", "namespaces=null,networkPolicy.trainer.namespaces=null")
    revisions = server.helm("history", "hone", *space)
    with pytest.raises(AssertionError, match="missing property 'models'"):
        server.helm("upgrade", "hone", CHART, *space, "--set", "concurrency=8,tenants.models=null")
    assert server.helm("history", "hone", *space) == revisions
    assert "concurrency: 16" in server.get("configmap", "hone-config")["data"]["config.yaml"]


def test_a_field_that_only_the_api_server_knows_is_corrected_by_the_same_command(server):
    """docs/guides/install.md: helm sees it in no dry run, and the release is failed until then."""
    command = ("upgrade", "--install", "hone", CHART, "--namespace", NAMESPACE)
    extra = 'extraObjects=[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"more"},"%s":{"a":"b"}}]'
    server.helm(*command, "--dry-run=server", "--set-json", extra % "dataa")
    with pytest.raises(AssertionError, match=r"server-side apply failed for object .*dataa: field not declared"):
        server.helm(*command, "--set-json", extra % "dataa")
    server.helm(*command, "--set-json", extra % "data")
    assert server.get("configmap", "more")["data"] == {"a": "b"}
    server.helm(*command)
    assert "/more\n" not in server.kubectl("get", "configmap", f"--namespace={NAMESPACE}", "--output=name")


OWN = "watchNamespaces={other},crds.enabled=false"
EXTRA = "extraObjects[0].apiVersion=v1,extraObjects[0].metadata.name=more,extraObjects[0]."
REFUSED = {
    "unknown value": (["store.sizee=1Gi"], r"at '/store': additional properties 'sizee' not allowed"),
    "scheme": (["huggingFace.endpoint=ftp://hub"], r"at '/huggingFace/endpoint': 'ftp://hub' does not match"),
    "no registry": (["image.repository=hone/operator"], r'"hone/operator" names no registry'),
    "null": (["tenants.runtimeClasses=null"], r"at '/tenants': missing property 'runtimeClasses'"),
    "tag": (["trainer.image.tag=a b"], r"at '/trainer/image/tag': 'a b' does not match"),
    "field of Kubernetes": (["affinity.x=y"], r"at '/affinity': additional properties 'x' not allowed"),
    "extra object": (
        ["extraObjects[0].kind=ConfigMap"],
        r"at '/extraObjects/0': missing properties 'apiVersion', 'meta",
    ),
    "its kind": ([OWN, EXTRA + "kind=Thing"], r'no matches for kind "Thing" in version "v1"'),
    "second release": ([], r"Hone already runs in this cluster as release hone in namespace hone-system"),
    "no namespace": (["watchNamespaces={other,gone}", "crds.enabled=false"], r"watchNamespaces: .* no namespace gone"),
    "nor there": (["namespaces={gone}"], r"namespaces: the cluster has no namespace gone"),
    "its own": (["namespaceOverride=gone"], r"namespaceOverride: the cluster has no namespace gone"),
    "of a policy": (
        ["networkPolicy.trainer.namespaces={gone}"],
        r"trainer\.namespaces: the cluster has no namespace gone",
    ),
    "its definitions": (["watchNamespaces={other}"], r"invalid ownership metadata.*current value is \"hone\""),
}


@pytest.mark.parametrize(("values", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing(server, values, said):
    everything = "namespaces,clusterroles,clusterrolebindings,validatingadmissionpolicies,crds"
    before = server.kubectl("get", everything, "--output=name")
    given = [argument for value in values for argument in ("--set", value)]
    with pytest.raises(AssertionError, match=said):
        server.helm("install", "other", CHART, "--namespace", "other", "--create-namespace", *given)
    assert server.kubectl("get", everything, "--output=name") == before
    assert [release["name"] for release in json.loads(server.helm("list", "-A", "--output=json"))] == ["hone"]


def test_a_cluster_that_is_too_old_is_refused_before_anything_is_written(server, tmp_path):
    """An API server that says it is of 1.29; helm asks it for its version, and writes nothing."""
    verbs = set()

    class Old(BaseHTTPRequestHandler):
        def do_GET(self):
            text = server.kubectl("get", "--raw", self.path)
            if self.path.startswith("/version"):
                text = json.dumps(json.loads(text) | {"minor": "29", "gitVersion": "v1.29.9"})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_request(self, *_):
            verbs.add(self.command)

    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as old:
        threading.Thread(target=old.serve_forever, daemon=True).start()
        (config := tmp_path / "old").write_text(
            json.dumps(
                {
                    "clusters": [{"name": "old", "cluster": {"server": f"http://127.0.0.1:{old.server_port}"}}],
                    "contexts": [{"name": "old", "context": {"cluster": "old", "user": ""}}],
                    "current-context": "old",
                }
            )
        )
        with pytest.raises(AssertionError, match=r"chart requires kubeVersion: >=1\.30\.0-0 .* Kubernetes v1\.29\.9"):
            Server(config).helm("install", "hone", CHART, "--namespace", "old", "--create-namespace")
        old.shutdown()
    assert verbs == {"GET"}


def test_a_second_operator_for_namespaces_of_its_own(server):
    space = ("--namespace", "second")
    own = ("--set", "watchNamespaces={second}", "--set", "crds.enabled=false")
    server.helm("install", "second", CHART, *space, "--create-namespace", *own)
    server.helm("upgrade", "second", CHART, *space, *own)
    server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE)

    both = "Hone already runs in namespace second as release second in namespace second, and two operators"
    with pytest.raises(AssertionError, match=both):
        server.helm("install", "third", CHART, "--namespace", "third", "--create-namespace", *own)
    for value in ("allNamespaces=true", "namespaces={second}"):
        with pytest.raises(AssertionError, match=both):
            server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE, "--set", value)
    server.kubectl("label", "namespace", "second", "hone.dev/enabled=true")
    with pytest.raises(AssertionError, match=both):
        server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE)
    server.helm("uninstall", "second", *space)
    with pytest.raises(AssertionError, match="runs in namespace second as release hone in namespace hone-system"):
        server.helm("install", "second", CHART, *space, *own)
    server.kubectl("label", "namespace", "second", "hone.dev/enabled-")


@pytest.mark.parametrize("by", ["extraObjects", "a chart around it"])
def test_a_release_may_make_the_namespace_that_it_serves(server, tmp_path, by):
    name = "made-by-values" if by == "extraObjects" else "made-around"
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    values = {"watchNamespaces": [name], "crds": {"enabled": False}}
    chart = CHART
    if by == "extraObjects":
        values["extraObjects"] = [made]
    else:
        chart = tmp_path / "around"
        shutil.copytree(CHART, chart / "charts/hone")
        (chart / "templates").mkdir()
        (chart / "templates/space.yaml").write_text(json.dumps(made))
        (chart / "Chart.yaml").write_text("{apiVersion: v2, name: around, version: 0.1.0}")
        values |= yaml.safe_load(Path(IMAGES[1]).read_text())
        values = {"hone": values}
    (tmp_path / "values.yaml").write_text(json.dumps(values))
    space = ("--namespace", f"{name}-release")
    server.helm("install", "made", chart, *space, "--create-namespace", "--values", tmp_path / "values.yaml")
    server.helm("uninstall", "made", *space)


@pytest.mark.parametrize("serves", ["allNamespaces=true", "namespaces={second}"])
def test_a_second_operator_where_the_first_one_works_is_refused(server, serves):
    first = ("--namespace", NAMESPACE, "--set")
    server.helm("upgrade", "hone", CHART, *first, serves)
    own = ("--namespace=second", "--set=watchNamespaces={second},crds.enabled=false")
    with pytest.raises(AssertionError, match="runs in namespace second as release hone in namespace hone-system"):
        server.helm("install", "again", CHART, *own)
    assert server.get("clusterroles", "--selector=app.kubernetes.io/instance=again")["items"] == []
    server.helm("upgrade", "hone", CHART, *first, "allNamespaces=false")


def storage_class(name: str, provisioner: str, default: str = "false") -> dict:
    annotations = {"storageclass.kubernetes.io/is-default-class": default}
    meta = {"name": name, "annotations": annotations}
    return {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": meta, "provisioner": provisioner}


def test_the_notes_say_what_the_store_will_be(server):
    def notes(*values: str) -> str:
        given = [argument for value in values for argument in ("--set", value)]
        return server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE, "--dry-run=server", *given)

    assert "WARNING: the cluster has no default storage class: " in notes()
    classes = (storage_class("disks", "ebs.csi.aws.com", "true"), storage_class("files", "nfs.csi.k8s.io"))
    for each in classes:
        server.kubectl("apply", "--filename=-", stdin=json.dumps(each))
    said = notes()
    assert "the volume claim hone-store, 50Gi, ReadWriteMany, of the storage class disks." in said
    assert "WARNING: ebs.csi.aws.com gives a volume of files to one node at a time" in said
    said = notes("store.accessMode=ReadWriteOnce")
    assert "all pods of a namespace that use its store must run on one node" in said
    assert "WARNING" not in said
    assert "WARNING" not in notes("store.storageClassName=files")
    assert "WARNING: the cluster has no storage class gone: " in notes("store.storageClassName=gone")
    server.kubectl("delete", "storageclass", "disks", "files")


def test_the_strategy_changes_there_and_back(server):
    """The API server fills in what belongs to one strategy and is refused with the other."""
    rolling = ("--set", "strategy=RollingUpdate", "--set", "leaderElection.enabled=true")
    server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE, *rolling)
    assert server.get("deployment", "hone")["spec"]["strategy"]["type"] == "RollingUpdate"
    server.helm("rollback", "hone", "--namespace", NAMESPACE)
    assert server.get("deployment", "hone")["spec"]["strategy"] == {"type": "Recreate"}


def test_helm_test_also_trains_where_a_value_says_so(server):
    """The two pods are played here; the end-to-end tests run them."""
    server.kubectl("create", "namespace", "team-test")
    for name in ("hone-test", "hone-test-fine-tune"):  # accounts of other releases
        server.kubectl("create", "serviceaccount", name, "--namespace", NAMESPACE)
    accounts = server.kubectl("get", "serviceaccounts", "--namespace", NAMESPACE, "--output=name")
    user = server.kubectl("auth", "whoami", "--output=jsonpath={.status.userInfo.username}")
    duties = ("--set", "admission.separateDuties=true", "--set-string", f"helmTest.submittedBy={user}")
    tested_in = ("--set", "helmTest.namespace=team-test")
    server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE, *tested_in, *duties)
    ended = json.dumps({"status": {"phase": "Succeeded"}})
    with ThreadPoolExecutor() as pool:
        tested = pool.submit(server.helm, "test", "hone", "--namespace", NAMESPACE, "--timeout=1h")
        for name in ("hone-test", "hone-test-fine-tune"):
            pod = ("--namespace", NAMESPACE, "pod", name)
            while not tested.done() and f"pod/{name}\n" not in server.kubectl("get", "pods", *pod[:2], "--output=name"):
                time.sleep(0.2)
            job = server.kubectl("get", "ftj,dset,configmap", "--namespace=team-test", "--output=name")
            server.kubectl("patch", *pod, "--subresource=status", "--type=merge", f"--patch={ended}")
        assert "Succeeded" in tested.result()
    for kind in ("finetunejob.hone.dev", "dataset.hone.dev", "configmap"):
        assert f"{kind}/hone-test-fine-tune" in job
    assert "hone-test" not in server.kubectl("get", "ftj,dset,configmap", "--namespace=team-test", "--output=name")
    assert server.kubectl("get", "serviceaccounts", "--namespace", NAMESPACE, "--output=name") == accounts
    server.helm("upgrade", "hone", CHART, "--namespace", NAMESPACE)


def size(server: Server, release: str) -> int:
    """Bytes of the newest revision. A Secret holds 1 MiB."""
    labels = f"--selector=owner=helm,name={release},status=deployed"
    (secret,) = server.get("secret", labels)["items"]
    return len(base64.b64decode(secret["data"]["release"]))


def test_the_definitions_move_to_a_release_of_their_own(server):
    """docs/guides/upgrade.md: no object is lost, and each release has room in its Secret."""
    server.kubectl("apply", "--filename=-", stdin=json.dumps(KEPT))
    together = size(server, "hone")
    space = ("--namespace", NAMESPACE)
    server.helm("install", "hone-crds", CRDS, *space, "--take-ownership")
    server.helm("upgrade", "hone", CHART, *space, "--set", "crds.enabled=false")
    assert server.get("ftj", "kept")["spec"]["model"]["uri"] == "hf://a/b"
    assert size(server, "hone") < together
    assert max(together, size(server, "hone-crds")) < 2**19
    server.helm("upgrade", "hone", CHART, *space, "--take-ownership")
    server.helm("uninstall", "hone-crds", *space)
    server.kubectl("delete", "--filename=-", stdin=json.dumps(KEPT))
    assert "finetunejobs.hone.dev" in server.kubectl("get", "crd", "--output=name")


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
    server.kubectl("delete", KINDS, "--all", "--all-namespaces", "--timeout=15m")
    server.kubectl("delete", "crd", *KINDS.split(","), "--timeout=15m")
    assert "hone.dev" not in server.kubectl("get", "crd", "--output=name")
    server.kubectl("delete", "secret", "hone-operator-tls", f"--namespace={NAMESPACE}")
    assert "secret/hone" not in server.kubectl("get", "secret", f"--namespace={NAMESPACE}", "--output=name")


def test_kubectl_applies_the_manifests_in_both_ways(server, tmp_path):
    """A list that the API server completes belongs to who wrote it: another writer of the same file would conflict."""
    space = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "by-kubectl"}}
    server.kubectl("apply", "--filename=-", stdin=json.dumps(space))
    made = server.helm("template", "hone", CHART, *IMAGES, "--namespace=by-kubectl", "--skip-tests")
    (tmp_path / "install.yaml").write_text(made)
    for way in ((), ("--server-side",), ("--server-side", "--field-manager=another")):
        server.kubectl("apply", *way, f"--filename={tmp_path / 'install.yaml'}")
    server.kubectl("delete", f"--filename={tmp_path / 'install.yaml'}", "--timeout=15m")


def test_an_operator_without_definitions_says_what_installs_them(server, tmp_path):
    server.kubectl("delete", "crd", *KINDS.split(","), "--ignore-not-found", "--timeout=15m")
    operator = Operator(server.kubeconfig, tmp_path, {"HONE_PROGRESS__ENABLED": "false"}).start()
    assert operator.process.wait() == 1
    assert "no definition of FineTuneJob: install the chart with crds.enabled" in operator.log()
    assert "Traceback" not in operator.log()


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
    server.kubectl("delete", "crd", *KINDS.split(","), "--ignore-not-found", "--timeout=15m")
    for value, said in (
        ("crds.enabled=false", r"has no definitions of hone\.dev: install charts/hone-crds first"),
        ("store.storageClassName=shared-files", r"the cluster has no such StorageClass, but "),
    ):
        with pytest.raises(AssertionError, match=said):
            server.helm("install", "hone", CHART, "--namespace", "hone-install", "--set", value)
    server.kubectl("apply", "--filename=-", stdin=json.dumps(storage_class("shared-files", "nfs.csi.k8s.io")))
    (tmp_path / "values.yaml").write_text(re.search(r"^```yaml\n(.*?)^```", INSTALL, re.S | re.M)[1])
    for name in ("charts", "examples"):
        (tmp_path / name).symlink_to(paths.SOURCE / name)
    programs = {"helm": server.helm, "kubectl": server.kubectl}
    output = {}
    for words in commands_of(INSTALL):
        if words[0] in ("docker", "make") or any(words[: len(begin)] == begin for begin in NEEDS_A_NODE):
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
