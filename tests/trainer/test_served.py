"""A server of samples as the trainer sees it; `test_vllm` has the real one."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone_trainer.datasets.synthesis.endpoint import Access, Endpoint, in_parallel
from hone_trainer.errors import SourceError, TrainerError
from hone_trainer.methods import served
from hone_trainer.stop import Stop

pytestmark = pytest.mark.trainer


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def generation(url: str, folder: Path, stop: Stop) -> served.Served:
    endpoint = Endpoint(url, Access(allow_private=True, most_seconds=served.SECONDS))
    return served.Served(endpoint, None, folder, "run", {}, served.Patience(stop))


def test_a_server_that_does_not_answer_is_given_up_before_the_other_ranks_do(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One limit for all tries of a prompt."""
    monkeypatch.setattr(served, "SECONDS", 2.0)
    begun = time.monotonic()
    with pytest.raises(SourceError, match="Read timed out") as raised:
        generation(silent, tmp_path, Stop()).generate([[1], [2]])
    assert raised.value.code == "EndpointUnreachable"
    assert time.monotonic() - begun < 60


def test_a_signal_ends_the_waiting(silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "GRACE", 1.0)
    stop = Stop()
    stop.requested = True
    with pytest.raises(TrainerError, match="while waiting for vLLM") as raised:
        generation(silent, tmp_path, stop).generate([[1], [2]])
    assert raised.value.code == "Interrupted"


def test_answers_keep_their_order() -> None:
    def ask(number: int) -> int:
        time.sleep(0.01 * (5 - number))
        return number

    assert in_parallel(ask, range(5), 3) == [0, 1, 2, 3, 4]
    assert in_parallel(ask, [], 3) == []


def test_the_first_error_ends_what_is_not_under_way() -> None:
    asked = []

    def ask(number: int) -> None:
        asked.append(number)
        if number == 0:
            raise SourceError("EndpointRefused", "no")
        time.sleep(0.01)

    with pytest.raises(SourceError, match="no"):
        in_parallel(ask, range(1000), 1)
    assert len(asked) < 1000
