"""`hone upload` at a real API server, next to a real operator; the pod's server runs here instead of in a pod."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from support.cluster.rights import installed
from support.servers.app_server import running
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.errors import CommandError
from hone_cli.reach import receiving
from hone_cli.reach import running as pods
from hone_cli.reach.incoming import Incoming
from hone_cli.reach.kube import Kube
from hone_cli.reach.tunnel import Tunnel

pytestmark = pytest.mark.apiserver


@pytest.fixture
def upload(namespace, apiserver, monkeypatch):
    """Runs `hone upload` and gives what it printed, or raises its error."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(apiserver))

    def run(*words):
        done = CliRunner().invoke(application(["upload"]), ["upload", *map(str, words), "--namespace", namespace.name])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"text": "é $(X)"}\n')
    return tmp_path / "rows.jsonl"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """50,000 rows: more than any ConfigMap holds."""
    rows = "".join(f'{{"question": "How often is {i}?", "answer": "Once."}}\n' for i in range(50_000))
    (tmp_path / "rows.jsonl").write_text(rows)
    return tmp_path / "rows.jsonl"


def test_a_small_file_becomes_a_config_map_once(namespace, upload, small) -> None:
    assert upload(small, "support") == "configmap://support/rows.jsonl"
    first = namespace.get("ConfigMap", "support")
    assert first["data"] == {"rows.jsonl": small.read_text()}
    assert upload(small, "support") == "configmap://support/rows.jsonl"
    assert namespace.get("ConfigMap", "support")["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    small.write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="has other rows"):
        upload(small, "support")
    upload(small, "support", "--replace")
    replaced = namespace.get("ConfigMap", "support")
    assert (replaced.get("data"), replaced["binaryData"]) == (None, {"rows.jsonl": "//4="})


def test_what_others_made_is_left_alone(namespace, upload, small, large) -> None:
    namespace.create("ConfigMap", "app", data={"a": "b"})
    small.write_text("{}\n")
    for words in ((), ("--replace",)):
        with pytest.raises(CommandError, match=r"ConfigMap app exists.*kubectl label configmap app hone.dev/component"):
            upload(small, "app", *words)
    assert namespace.get("ConfigMap", "app")["data"] == {"a": "b"}


def test_what_kubectl_made_is_replaced_after_the_label_that_the_message_names(namespace, upload, small) -> None:
    namespace.create("ConfigMap", "app", data={"rows.jsonl": "{}"})
    namespace.patch("ConfigMap", "app", {"metadata": {"labels": {"hone.dev/component": "upload"}}})
    assert upload(small, "app", "--replace") == "configmap://app/rows.jsonl"
    assert namespace.get("ConfigMap", "app")["data"] == {"rows.jsonl": small.read_text()}


def test_the_dataset_of_an_upload_that_was_killed_is_removed_by_the_next(namespace, upload, large, monkeypatch) -> None:
    spec, labels = {"suspend": True, "source": {"uri": "pvc://data/rows"}}, {"hone.dev/component": "upload"}
    for name in ("support-upload-1", "mine"):
        namespace.create("Dataset", name, spec)
    namespace.patch("Dataset", "support-upload-1", {"metadata": {"labels": labels}})
    monkeypatch.setattr("hone_cli.rows.upload._OPERATOR_SECONDS", 0.1)
    for idle, left in ((600.0, ["mine", "support-upload-1"]), (-1.0, ["mine"])):
        monkeypatch.setattr("hone_cli.rows.upload._IDLE_SECONDS", idle)
        with pytest.raises(CommandError, match="does not answer"):
            upload(large, "support")
        assert sorted(namespace.names("Dataset")) == left


@pytest.fixture
def rights(request, kube, apiserver, namespace, monkeypatch):
    """Sends requests as a user with this role in the namespace; `admin` is the kubeconfig's own user."""
    if request.param == "admin":
        yield
        return
    system, group = f"hone-{namespace.name}", "rbac.authorization.k8s.io"
    with installed(kube, apiserver, system, {}):
        roles = kube.call("GET", f"/apis/{group}/v1/clusterroles")["items"]
        labels = {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in ("view", request.param)}
        for role in roles:
            name, theirs = role["metadata"]["name"], role["metadata"].get("labels") or {}
            if name.startswith(("system:aggregate", system)) and labels.items() & theirs.items():
                subject = {"kind": "User", "name": "ann", "apiGroup": group}
                ref = {"apiGroup": group, "kind": "ClusterRole", "name": name}
                body = {"metadata": {"name": name.replace(":", "-")}, "roleRef": ref, "subjects": [subject]}
                kube.call("POST", f"/apis/{group}/v1/namespaces/{namespace.name}/rolebindings", body)
        begin = Kube.__post_init__

        def as_user(self):
            begin(self)
            self._api.set_default_header("Impersonate-User", "ann")
            self._api.set_default_header("Impersonate-Group", "system:authenticated")

        monkeypatch.setattr(Kube, "__post_init__", as_user)
        yield


@pytest.mark.parametrize("rights", ["admin", "edit"], indirect=True)
def test_a_large_file_goes_to_a_claim_like_the_store(
    namespace, operator, rights, upload, large, tmp_path, monkeypatch
) -> None:
    """The pod is created, so the API server has admitted it; what kubelet would run listens here."""
    (tmp_path / "volume").mkdir()

    @contextlib.contextmanager
    def reached(kube, name):
        body = namespace.get("Pod", name)
        environment = {e["name"]: e["value"] for e in body["spec"]["containers"][0]["env"]}
        _, file, size, digest = body["spec"]["containers"][0]["command"][4:8]
        assert body["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "support"}
        incoming = Incoming(tmp_path / "volume", file, int(size), digest)
        with running(receiving.application(incoming, environment["HONE_REVIEW_TOKEN_SHA256"])) as url:
            import socket

            address = url.removeprefix("http://").partition(":")

            def stream() -> tuple[socket.socket, Any]:
                far = socket.create_connection((address[0], int(address[2])))
                return far, far.close

            tunnel = Tunnel(stream)
            yield tunnel
            tunnel.close()
        namespace.delete("Pod", name)

    monkeypatch.setattr(pods, "reached", reached)
    assert large.stat().st_size > 2**20
    assert upload(large, "support") == "pvc://support/rows.jsonl"
    assert (tmp_path / "volume" / "rows.jsonl").read_bytes() == large.read_bytes()
    claim = namespace.get("PersistentVolumeClaim", "support")["spec"]
    assert claim["accessModes"] == namespace.get("PersistentVolumeClaim", "hone-store")["spec"]["accessModes"]
    assert claim["resources"]["requests"] == {"storage": "1Gi"}
    assert namespace.names("Dataset") == [], "the Dataset that named the image is gone"
    assert upload(large, "support") == "pvc://support/rows.jsonl"


def test_without_an_operator_it_says_whom_to_ask(namespace, upload, large, monkeypatch) -> None:
    monkeypatch.setattr("hone_cli.rows.upload._OPERATOR_SECONDS", 1.0)
    with pytest.raises(CommandError, match=r"the operator of Hone does not answer.*hone.dev/enabled=true"):
        upload(large, "support")
    assert namespace.names("Dataset") == []
    assert "support" not in namespace.names("PersistentVolumeClaim")


def test_a_claim_of_others_is_left_alone(namespace, operator, upload, large) -> None:
    with pytest.raises(CommandError, match="PersistentVolumeClaim data exists, and hone upload did not create it"):
        upload(large, "data")
    assert namespace.names("Pod") == []
