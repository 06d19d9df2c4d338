"""Each command of `hone` with an object that does not exist, without rights, and without a cluster: one clear line.

The API server is real. The commands run as from a shell: `main` prints and exits.
"""

from __future__ import annotations

import pytest
import yaml
from support.cluster.hand import Namespace
from support.cluster.kube import Kube
from support.cluster.rights import Account, token
from support.lives.shell import shell, write_files

from hone_cli.__main__ import _COMMANDS, _OF_PODS
from hone_cli.errors import CliExit
from hone_dev.cluster.controlplane import control_plane

pytestmark = pytest.mark.apiserver
LOCAL = ("check", "init", "convert", "migrate openai", "migrate report", "recipes", "explain", "mirror", "usage")
"""Those that ask no cluster: tests/cli has their bad input."""
CALLS = {
    "upload": "rows.jsonl rows",
    "plan": "job.yaml",
    "run": "job.yaml --yes",
    "watch": "nope",
    "list": "",
    "logs": "nope",
    "suspend": "nope",
    "resume": "nope",
    "cancel": "nope --yes",
    "compare": "nope nope-too",
    "sweep": "job.yaml --vary adapter.rank=8,16 --yes",
    "doctor": "",
    "bundle": "nope",
    "mcp": "",
    "ui": "",
    "dataset review": "nope",
    "download": "nope copy",
    "report": "nope",
    "chat": "nope",
    "serve": "nope",
    "models": "nope",
    "approve": "nope:1",
    "reject": "nope:1 --comment bad",
    "retrain": "nope",
}
SERVERS = ("mcp", "ui")
"""They start without a question to the cluster, and answer each request with its error."""
NAMELESS = {"upload", "plan", "run", "list", "sweep", "doctor", *SERVERS}
"""Commands that are given no object of the cluster."""


def test_every_command_is_here() -> None:
    words = {name for name in _COMMANDS if name not in _OF_PODS}
    assert {call.partition(" ")[0] for call in (*CALLS, *LOCAL)} == words


@pytest.fixture
def hone(namespace, apiserver, monkeypatch, capsys, tmp_path):
    """Runs a command as a shell does: exit code, standard output, lines of standard error."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = shell(namespace, apiserver, monkeypatch, capsys)
    return lambda name, *kubeconfig: run(f"{name} {CALLS[name]}", *kubeconfig)


def one_line(done, *words) -> None:
    code, out, err = done
    assert (code, out) == (CliExit.FAILED, ""), done
    assert len(err) == 1, err
    assert err[0].startswith("hone: ")
    assert all(word in err[0] for word in words), err


@pytest.mark.parametrize("name", [name for name in CALLS if name not in NAMELESS])
def test_what_does_not_exist_is_named(hone, name) -> None:
    one_line(hone(name), "nope")


@pytest.mark.parametrize("name", [name for name in CALLS if name not in SERVERS])
def test_without_rights_the_missing_one_is_named(hone, namespace, kube, apiserver, tmp_path, name) -> None:
    namespace.create("ServiceAccount", "nobody")
    account = Account(kube, token(kube, namespace.name, "nobody"))
    done = hone(name, account.kubeconfig(apiserver, tmp_path / "nobody"))
    if name == "doctor":
        assert done[0] == CliExit.UNHEALTHY
        assert not done[2]
        assert "cannot" in done[1] or "forbidden" in done[1], done[1]
        return
    one_line(done, "cannot", namespace.name)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in SERVERS])
def test_a_cluster_that_does_not_answer_is_one_line(hone, apiserver, tmp_path, name) -> None:
    document = yaml.safe_load(apiserver.read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    (tmp_path / "dead").write_text(yaml.safe_dump(document))
    one_line(hone(name, tmp_path / "dead"), "the cluster does not answer")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A cluster without the definitions of Hone."""
    with control_plane(tmp_path_factory.mktemp("bare"), garbage="400") as kubeconfig:
        yield kubeconfig


@pytest.mark.parametrize("name", [name for name in CALLS if name not in (*SERVERS, "upload")])
def test_a_cluster_without_hone_is_one_line_and_gets_nothing(hone, bare, namespace, tmp_path, name) -> None:
    """A small file is uploaded to a ConfigMap, which needs no Hone."""
    there = Namespace(Kube(bare, tmp_path), namespace.name)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name}}
    there.kube.call("POST", "/api/v1/namespaces", body)
    done = hone(name, bare)
    if name == "doctor":
        assert (done[0], done[2]) == (CliExit.UNHEALTHY, [])
        assert "Install Hone: docs/guides/install.md" in done[1]
        return
    one_line(done, "Hone is not installed there (docs/guides/install.md)")
    assert [there.names(kind) for kind in ("PersistentVolumeClaim", "Pod", "ConfigMap")] == [[], [], []]


@pytest.mark.parametrize("name", CALLS)
def test_no_kubeconfig_is_one_line(hone, tmp_path, name) -> None:
    one_line(hone(name, tmp_path / "absent"), "no cluster: ")
