"""Rows encoded by several pods, here processes of one machine: the same files as by one, also if a pod is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract import encoding
from hone_api.contract.report import EncodeResult
from hone_api.plan import TrainingPlan, WorkerPods
from hone_dev.cluster.objectstore import free_port
from hone_trainer.encoding import chunks, writing
from hone_trainer.errors import ConfigError
from hone_trainer.run import encode, launch

pytestmark = pytest.mark.trainer


@contextmanager
def _pod(plan: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pod that works for another one, as a process group."""
    command = [sys.executable, "-m", "hone_trainer", "work", str(plan)]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _done(plan: TrainingPlan) -> tuple[EncodeResult, dict[str, bytes]]:
    result = encode.run(plan)
    folder = Path(str(plan.encoded_path))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return result.model_copy(update={"tokens_per_second": None}), files


def test_three_pods_encode_the_same_as_one_although_one_is_killed(
    make_plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LEAST", 300)
    monkeypatch.setattr(encode, "cores", lambda: 1)
    alone = make_plan("run", encodedPath=str(tmp_path / "one"))
    result, files = _done(alone)
    pods = WorkerPods(pods=3, host="127.0.0.1", port=free_port("127.0.0.1"))
    plan = alone.model_copy(update={"workers": pods, "encoded_path": str(tmp_path / "three")})
    # The other pods have no file of the first one.
    told = plan.model_copy(update={"encoded_path": "/nowhere", "model_path": "/nowhere", "work_path": "/nowhere"})
    (tmp_path / "plan.json").write_text(told.model_dump_json(by_alias=True))
    places, lead, killed, whole = tmp_path / "places", os.getpid(), tmp_path / "killed", writing.encode_chunk
    places.mkdir()

    def encode_chunk(task: writing.Task, chunk: chunks.Chunk) -> writing.Part:
        """Waits until both other pods work, and ends the first of them while it has rows."""
        import time

        if os.getppid() != lead:
            assert chunk.data is not None
            (places / str(os.getpgid(0))).touch()
            mine = sorted(places.iterdir())[0].name == str(os.getpgid(0))
            if mine and len(list(places.iterdir())) == 2 and not killed.exists():
                killed.touch()
                os.killpg(0, signal.SIGKILL)
        deadline = time.monotonic() + 600
        while len(list(places.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        return whole(task, chunk)

    monkeypatch.setattr(writing, "encode_chunk", encode_chunk)
    with ExitStack() as stack:
        others = [stack.enter_context(_pod(tmp_path / "plan.json")) for _ in range(2)]
        assert _done(plan) == (result, files)
        assert killed.exists()
        assert sorted(pod.wait(600) for pod in others) == [-signal.SIGKILL, 0]
    assert len({name.partition("/")[0] for name in files}) == len(encoding.keys(plan) or ()) == 2


def test_a_run_has_no_other_pods(make_plan: Any, tmp_path: Path) -> None:
    plan = make_plan().model_copy(update={"workers": WorkerPods(pods=2, host="127.0.0.1")})
    with pytest.raises(ConfigError, match="`workers` of a plan is for `encode`"):
        launch.run(plan, tmp_path)
