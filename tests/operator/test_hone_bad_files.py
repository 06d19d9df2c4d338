"""Bad files, names that are taken, and rights that lack one verb, for each command that they concern.

The API server is real. After each error, the namespace has what it had before.
"""

from __future__ import annotations

import io
import json
import sys
from typing import NamedTuple

import pytest
import yaml
from support.cluster.rights import Account, token
from support.lives.filled import fill, stored

from hone_cli.__main__ import main
from hone_cli.errors import CliExit

pytestmark = pytest.mark.apiserver
ROWS = json.dumps({"prompt": "a", "completion": "b"}) + "\n"
JOB = """\
apiVersion: hone.dev/v1alpha1
kind: FineTuneJob
metadata: {name: job}
spec:
  model: {uri: hf://Qwen/Qwen2.5-0.5B-Instruct}
  datasets: [{name: rows}]
  output: {modelName: bot}
"""
DATASET = """\
apiVersion: hone.dev/v1alpha1
kind: Dataset
metadata: {name: rows}
spec: {source: {uri: pvc://data/rows.jsonl}, suspend: true}
---
"""


class Said(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: list[str]


@pytest.fixture
def hone(namespace, apiserver, monkeypatch, capsys, tmp_path):
    """Runs a command as a shell does, in a folder with a manifest and rows."""
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "both.yaml").write_text(DATASET + JOB)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    (tmp_path / "large.jsonl").write_text(ROWS * 40_000)
    monkeypatch.chdir(tmp_path)

    def run(words: str, kubeconfig=apiserver) -> Said:
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        monkeypatch.setattr(sys, "argv", ["hone", *words.split(), "-n", namespace.name])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err.splitlines())

    return run


FILES = {
    "cut in a word": (DATASET + JOB).encode()[:-30],
    "cut in a list": JOB.encode()[: JOB.index("rows}]") + 3],
    "cut after a line": JOB.encode()[: JOB.index("  output")],
    "UTF-16": JOB.encode("utf-16"),
    "NUL": JOB.replace("bot", "b\0t").encode(),
    "Latin-1": JOB.replace("bot", "b\xf6t").encode("latin-1"),
    "empty": b"",
    "rows": ROWS.encode() * 2,
    "absent": None,
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "command", ["plan bad.yaml", "run bad.yaml --yes", "sweep bad.yaml --vary adapter.rank=8,16 -y"]
)
def test_a_manifest_that_is_damaged_is_one_line_and_applies_nothing(hone, namespace, tmp_path, command, file) -> None:
    if (content := FILES[file]) is not None:
        (tmp_path / "bad.yaml").write_bytes(content)
    before = stored(namespace)
    said = hone(command)
    if said.code == CliExit.REFUSED:  # what is left is YAML, and the API server has refused it
        assert (file, "spec.output: Required value" in said.out) == ("cut after a line", True), said
    else:
        assert (said.code, said.out, len(said.err)) == (CliExit.FAILED, "", 1), said
        assert said.err[0].startswith("hone: "), said
    assert stored(namespace) == before


WRITES = {
    "upload rows.jsonl new": 'patch resource "configmaps"',
    "upload large.jsonl new": 'create resource "datasets"',
    "run both.yaml --yes --detach": 'patch resource "finetunejobs"',
    "suspend job": 'patch resource "finetunejobs"',
    "resume job": 'patch resource "finetunejobs"',
    "cancel job --yes": 'delete resource "finetunejobs"',
    "sweep job.yaml --vary adapter.rank=8,16 -y": 'create resource "finetunejobs"',
    "approve bot:1": 'patch resource "modelversions"',
    "reject bot:1 --comment bad": 'patch resource "modelversions"',
    "retrain bot": 'patch resource "models"',
    "dataset review synthetic": 'create resource "pods"',
    "download bot:1 copy": 'create resource "pods"',
    "report bot:1": 'create resource "pods"',
    "chat bot:1": 'create resource "pods"',
}
"""Commands that write, and the right that each asks for first."""


@pytest.fixture
def reader(kube, namespace, apiserver, tmp_path):
    """A person who may read all, and write nothing."""
    path, meta = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.name}", {"name": "reader"}
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    kube.call("POST", f"{path}/roles", {"metadata": meta, "rules": rules})
    namespace.create("ServiceAccount", "reader")
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace.name}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    kube.call("POST", f"{path}/rolebindings", {"metadata": meta, "roleRef": ref, "subjects": [subject]})
    account = Account(kube, token(kube, namespace.name, "reader"))
    home = f"/apis/hone.dev/v1alpha1/namespaces/{namespace.name}/finetunejobs"
    namespace.until(lambda: account.call("GET", home).code == 200, "the role is in force")
    return account.kubeconfig(apiserver, tmp_path / "reader")


@pytest.mark.parametrize("command", WRITES)
def test_who_may_only_read_sees_which_right_a_command_needs(hone, namespace, reader, command) -> None:
    fill(namespace)
    before = stored(namespace)
    said = hone(command, reader)
    if said.code == CliExit.REFUSED:  # a plan names the right of each object
        assert said.err[-1].startswith("Nothing was "), said
        text = said.out + "\n".join(said.err)
    else:
        assert (said.code, len(said.err)) == (CliExit.FAILED, 1), said
        (text,) = said.err
    assert f" cannot {WRITES[command]}" in text, said
    assert stored(namespace) == before


OTHER = {"rows.jsonl": "{}\n"}
ELSE = JOB.replace("0.5B", "1.5B")
"""The same job with another base, which cannot change."""
UPLOADED = {"labels": {"hone.dev/component": "upload"}}
TAKEN: dict[str, tuple[int, str]] = {
    "upload rows.jsonl ours": (CliExit.FAILED, "ConfigMap ours already has other rows"),
    "upload rows.jsonl theirs": (CliExit.FAILED, "ConfigMap theirs exists, and hone upload did not create it"),
    "upload rows.jsonl theirs --replace": (CliExit.FAILED, "ConfigMap theirs exists"),
    "run else.yaml --yes": (CliExit.REFUSED, "spec.model is immutable"),
    "run rows.yaml --yes": (CliExit.REFUSED, "conflict"),
    "run job.yaml job.yaml --yes": (CliExit.FAILED, "FineTuneJob job is there twice"),
    "sweep else.yaml --vary adapter.rank=8,16 -y --name job-sweep": (CliExit.REFUSED, "job-sweep-1"),
    "download bot:1 full": (CliExit.FAILED, "full"),
}
"""Commands whose name is taken, the exit code, and what they say. `test_hone_upload.py` has claims of others."""


@pytest.mark.parametrize("command", TAKEN)
def test_a_name_that_is_taken_stays_what_it_was(hone, namespace, tmp_path, command) -> None:
    fill(namespace)
    metadata = {"name": "ours", **UPLOADED}
    namespace.create("ConfigMap", "ours", data=OTHER, metadata=metadata)
    namespace.create("ConfigMap", "theirs", data=OTHER)
    namespace.create("FineTuneJob", "job-sweep-1", yaml.safe_load(JOB)["spec"] | {"suspend": True})
    (tmp_path / "else.yaml").write_text(ELSE)
    namespace.delete("FineTuneJob", "job")
    assert hone("run job.yaml --yes --detach").code == 0
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"rows.jsonl": ROWS}}
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump(theirs))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    before = stored(namespace)
    said = hone(command)
    code, words = TAKEN[command]
    assert said.code == code, said
    assert words in said.out + "\n".join(said.err), said
    assert code == CliExit.REFUSED or len(said.err) == 1, said
    assert stored(namespace) == before
    assert [(each.name, each.read_text()) for each in (tmp_path / "full").iterdir()] == [("mine.txt", "mine")]
