"""`hone dataset review` at an API server: what cannot be is told in one line, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kube as raw
import pytest

pytestmark = pytest.mark.apiserver

NAMESPACE = "default"
SYNTHESIS = {"template": "Paraphrase", "endpoint": "http://model/v1", "rows": 3}


@pytest.fixture(scope="module")
def api(apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> raw.Kube:
    return raw.connect(apiserver, tmp_path_factory.mktemp("kube"))


@pytest.fixture
def dataset(api: raw.Kube) -> Iterator[Callable[..., None]]:
    """Makes Dataset `answers` with this in `status.synthetic`."""

    def make(**synthetic: Any) -> None:
        spec = {"source": {"uri": "configmap://answers/rows.jsonl"}, "synthesis": SYNTHESIS}
        body = {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": "answers"}, "spec": spec}
        api.call("POST", raw.path("Dataset", NAMESPACE), body)
        merge = "application/merge-patch+json"
        status = {"status": {"synthetic": synthetic}}
        api.call("PATCH", raw.path("Dataset", NAMESPACE, "answers", "status"), status, merge)

    yield make
    api.call("DELETE", raw.path("Dataset", NAMESPACE, "answers"))


def hone(kubeconfig: Path, *words: str) -> str:
    """What a review that does not begin says; fails where it begins, or says more than a line."""
    done = subprocess.run(
        [sys.executable, "-m", "hone_cli", "dataset", "review", "answers", *words],
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_a_dataset_that_is_not_there(api, apiserver):
    assert hone(apiserver, "-n", NAMESPACE) == 'hone: datasets.hone.dev "answers" not found'


def test_a_dataset_of_which_nothing_is_generated_yet(dataset, apiserver):
    dataset(generated=0)
    assert hone(apiserver) == ("hone: Dataset answers has no generated rows (yet): kubectl describe dataset answers")


def test_a_job_that_is_gone_and_how_to_have_another_one(dataset, apiserver):
    dataset(generated=3, pending=3, folder="synthesis/answers/0123")
    told = hone(apiserver)
    assert "the Job of Dataset answers is gone" in told
    assert "kubectl annotate dataset answers --namespace default --overwrite hone.dev/review=again" in told


def test_a_context_that_is_not_there(apiserver):
    assert "Name a folder in --path to review without one." in hone(apiserver, "--context", "nowhere")


def test_a_server_that_does_not_answer(apiserver, tmp_path):
    text = apiserver.read_text()
    (server,) = {line for line in text.splitlines() if "server:" in line}
    silent = tmp_path / "kubeconfig"
    silent.write_text(text.replace(server.split("server:")[1].strip(), "https://127.0.0.1:1"))
    assert "hone: the cluster does not answer" in hone(silent)


def test_nothing_is_left_of_reviews_that_did_not_begin(api):
    assert api.call("GET", raw.path("Pod", NAMESPACE))["items"] == []
