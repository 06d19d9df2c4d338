"""`hone` as a shell runs it, and the files that a person has."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.cluster.hand import Namespace

from hone_cli.__main__ import main

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


def shell(
    namespace: Namespace, apiserver: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs a command in a namespace, with this kubeconfig or another, without a terminal."""

    def run(words: str, kubeconfig: Path = apiserver) -> Said:
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        monkeypatch.setattr(sys, "argv", ["hone", *words.split(), "-n", namespace.name])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err.splitlines())

    return run


def write_files(folder: Path, job: str = JOB) -> None:
    """Rows for a ConfigMap and for a claim, and manifests."""
    files = {"rows.jsonl": ROWS, "large.jsonl": ROWS * 40_000, "job.yaml": job, "both.yaml": DATASET + job}
    for name, text in files.items():
        (folder / name).write_text(text)
