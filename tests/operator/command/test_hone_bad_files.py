"""Bad files and names that are taken, for each command that they concern; `test_hone_rights.py` has missing rights.

The API server is real. After each error, the namespace has what it had before.
"""

from __future__ import annotations

import pytest
import yaml
from support.lives.filled import fill, stored
from support.lives.shell import DATASET, JOB, ROWS, shell, write_files

from hone_cli.errors import CliExit

pytestmark = pytest.mark.apiserver


@pytest.fixture
def hone(namespace, apiserver, monkeypatch, capsys, tmp_path):
    """Runs a command in a folder with manifests and rows."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return shell(namespace, apiserver, monkeypatch, capsys)


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
