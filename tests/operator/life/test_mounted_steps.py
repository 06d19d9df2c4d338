"""The two containers that make rows, with the mounts that the operator gives them: the kernel holds them apart."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.cluster.desired_objects import PLATFORM, all_containers, owner

from hone_api.contract.termination import TerminationMessage, parse_outcome
from hone_api.dataset.dataset import DatasetSpec
from hone_operator.desired.dataset.materialize import materialize

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.attack("Pod Security"),
    pytest.mark.skipif(
        subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
        reason="mounts of its own need a user namespace",
    ),
]
OWN = ("incoming/rows-data-", "source-files/0000-uid/")
"""Folders of this Dataset: the rows that it makes, and what its next attempt goes on with."""
ROWS = "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(50))
OVERWRITE = """
import os, sys
for folder, _, files in os.walk(sys.argv[1]):
    for path in [os.path.join(folder, "planted"), *(os.path.join(folder, name) for name in files)]:
        try:
            open(path, "w").write("taken over")
        except OSError:
            pass
"""


@dataclass
class Node:
    """A volume with other Datasets' files, and what a pod sees of it below `view`."""

    folder: Path
    config: dict[str, Any]
    job: dict[str, Any]

    def __post_init__(self) -> None:
        plan = json.loads(self.config["data"]["plan.json"]) | {"sourcePath": str(self.folder / "rows.jsonl")}
        text = json.dumps(plan).replace("/store", str(self.folder / "view/store"))
        (self.folder / "plan.json").write_text(text)
        (self.folder / "rows.jsonl").write_text(ROWS)
        for name in ("datasets/other/train.jsonl", "reports/other/report.html", "exports/model.gguf", "models/m/w"):
            file = self.folder / "volume" / name
            file.parent.mkdir(parents=True)
            file.write_text(f"somebody else's {name}")

    def runs(self, container: dict[str, Any], command: list[str]) -> subprocess.CompletedProcess[str]:
        """A program where the container's mounts of the store are, as a kubelet makes them."""
        script = ["set -e"]
        # The kubelet mounts a folder before the folders inside it.
        for mount in sorted(container["volumeMounts"], key=lambda m: m["mountPath"]):
            if mount["name"] == "store":
                source, seen = (
                    self.folder / "volume" / mount.get("subPath", ""),
                    self.folder / f"view{mount['mountPath']}",
                )
                script.append(f"mkdir -p {source}; mkdir -p {seen}; mount --bind {source} {seen}")
                if mount.get("readOnly"):
                    script.append(f"mount -o remount,bind,ro {seen}")
        script.append(f"exec {shlex.join(command)}")
        env = {**os.environ, "HONE_TERMINATION_LOG": str(self.folder / "log"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            ["unshare", "-rm", "bash", "-c", "\n".join(script)], env=env, capture_output=True, text=True
        )

    def carries_out(self, container: dict[str, Any]) -> TerminationMessage:
        """The container to its end."""
        command = [sys.executable, *container["command"][1:4], str(self.folder / "plan.json")]
        done = self.runs(container, command)
        assert done.returncode == 0, done.stderr
        return parse_outcome((self.folder / "log").read_text()) or TerminationMessage()

    def others(self) -> dict[str, bytes]:
        """All files of the volume but those in the two folders of this Dataset."""
        volume = self.folder / "volume"
        found = {str(path.relative_to(volume)): path.read_bytes() for path in volume.rglob("*") if path.is_file()}
        return {name: text for name, text in found.items() if not name.startswith(OWN)}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    spec = DatasetSpec.model_validate({"source": {"uri": "pvc://data/rows.jsonl"}})
    config, job = materialize(owner("Dataset", "rows"), spec, 1, PLATFORM)
    return Node(tmp_path, config, job)


def test_rows_are_made_and_published_through_the_mounts(node: Node) -> None:
    reader, publisher = all_containers(node.job)
    before = node.others()
    assert node.carries_out(reader) == TerminationMessage()
    assert node.others() == before
    result = node.carries_out(publisher).result
    splits = (node.folder / "volume" / result.path).glob("*.jsonl")
    rows = [line for file in splits if file.stem in ("train", "validation", "test") for line in file.open()]
    assert len(rows) == result.rows == 50
    assert node.others().items() >= before.items()
    assert not any((node.folder / "volume" / "incoming").iterdir())


def test_what_parses_foreign_data_cannot_overwrite_other_datasets_reports_and_exports(node: Node) -> None:
    """Whatever code it is made to run: here one that writes to every file that it sees."""
    reader = all_containers(node.job)[0]
    before = node.others()
    done = node.runs(reader, [sys.executable, "-c", OVERWRITE, str(node.folder / "view")])
    assert done.returncode == 0, done.stderr
    assert node.others() == before
    own = [folder for parent in ("incoming", "source-files") for folder in (node.folder / "volume" / parent).iterdir()]
    assert [(folder / "planted").read_text() for folder in own] == ["taken over"] * len(OWN)


def test_what_publishes_sees_nothing_that_the_other_could_have_prepared_but_its_rows(node: Node) -> None:
    reader, publisher = all_containers(node.job)
    written = {m["name"] for m in reader["volumeMounts"] if not m.get("readOnly")}
    assert {m["name"] for m in publisher["volumeMounts"]} & written == {"store"}
    assert not {m["name"] for m in publisher["volumeMounts"]} & {"source", "credentials"}
