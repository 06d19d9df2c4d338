"""Ranks whose weights differ end before they keep a checkpoint, and the message names them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.errors import TrainerError
from hone_trainer.training import same_weights

pytestmark = pytest.mark.trainer
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch.distributed", "hone_trainer.training.same_weights"])


def network(dtype: str = "float32") -> Any:
    import torch

    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3))
    layers[0].requires_grad_(False)
    return layers.to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_each_bit_of_each_trained_weight_counts(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    model = network(dtype)
    first = same_weights.digest(model)
    weight = model[1].weight.data
    for place in range(weight.numel()):
        before = weight.flatten()[place].clone()
        weight.view(-1)[place] = torch.nextafter(before.float(), torch.tensor(9.0)) if dtype != "bfloat16" else -before
        assert same_weights.digest(model) != first
        weight.view(-1)[place] = before
    weight.copy_(weight.flatten()[[1, 0, *range(2, weight.numel())]].view_as(weight))  # in another order
    assert same_weights.digest(model) != first
    model = network(dtype)
    model[0].weight.data += 1  # is not trained
    assert same_weights.digest(model) == first
    monkeypatch.setattr(same_weights, "_COLUMNS", 2)  # so that a sum has several words
    first = same_weights.digest(model)
    for place in range(weight.numel()):
        weight = model[1].weight.data
        weight.view(-1)[place] = -weight.view(-1)[place]
        assert same_weights.digest(model) != first
        weight.view(-1)[place] = -weight.view(-1)[place]
    whole = torch.zeros(weight.numel() + 1, dtype=weight.dtype)  # a weight may begin within a word
    model[1].weight.data = whole[1:].view_as(weight).copy_(weight)
    assert same_weights.digest(model) == first


def _rank(number: int, port: int, changed: int | None, threads: int, said: Path) -> None:
    """A rank of three. One may have another weight, the last another number of threads."""
    import torch
    import torch.distributed as dist

    os.environ |= {"WORLD_SIZE": "3", "RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo")
    torch.set_num_threads(threads if number == 2 else 1)
    model = network()
    if number == changed:
        model[1].bias.data[2] = torch.nextafter(model[1].bias.data[2], torch.tensor(9.0))
    try:
        words = same_weights.check(model, step=7) or "equal"
    except TrainerError as error:
        words = f"{error.code}: {error.message}"
    (said / str(number)).write_text(words)
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("changed", "threads"), [(None, 1), pytest.param(0, 1, marks=pytest.mark.long), (2, 1), (2, 2)]
)
def test_ranks_that_differ_in_one_bit_are_named(tmp_path: Path, changed: int | None, threads: int) -> None:
    """Where their hardware is another too, they only round unlike, and the run goes on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORKS.Process(target=_rank, args=(number, port, changed, threads, tmp_path)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    said = {(tmp_path / str(number)).read_text() for number in range(3)}
    if changed is None:
        assert said == {"equal"}
        return
    (words,) = said
    names = "1, 2" if changed == 0 else "2"
    which = f"the trained weights of rank {names} differ from those of rank 0"
    assert words.startswith(f"RanksDiffer: {which} after step 7" if threads == 1 else f"{which}, whose hardware")
