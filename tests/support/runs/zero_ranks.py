"""Trains a few weights by DeepSpeed on three ranks, and goes on from their checkpoint on two, three and one.

    python zero_ranks.py FOLDER CASES

CASES: JSON of options by name, see `OPTIONS`. A folder for each has the checkpoints, and `losses.json`: those of the
steps that follow the checkpoint, by part. On CPUs; the ranks are forks of this process.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STEPS, ROWS = 3, 12
PARTS = (("saved", 3, None), ("fewer", 2, "saved"), ("more", 3, "fewer"), ("alone", 1, "more"))
"""A checkpoint, the number of ranks that save it, and the checkpoint that they go on from."""
OPTIONS = {"zeroStage": 2, "offload": "None", "bf16": False, "frozen": False, "subGroup": 0, "forgets": False}
"""frozen: the first layer is not trained. subGroup: numbers after which stage 3 begins a flat tensor. forgets: first
moments are lost after a checkpoint was read."""


def model(frozen: bool) -> Any:
    """Layers of sizes that do not divide evenly over ranks; the first may be frozen, like a base under an adapter."""
    import torch
    from torch import nn

    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(7, 13), nn.Tanh(), nn.Linear(13, 11), nn.Tanh(), nn.Linear(11, 1))
    network[0].requires_grad_(not frozen)
    return network


def optimizer(network: Any) -> Any:
    """As transformers makes it: without weight decay for biases."""
    import torch

    trained = [weight for weight in network.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.dim() > 1], "weight_decay": 0.1},
        {"params": [weight for weight in trained if weight.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.02)


def rows(step: int) -> tuple[Any, Any]:
    """The batch of a step."""
    import torch

    inputs = torch.randn(ROWS, 7, generator=torch.Generator().manual_seed(step))
    return inputs, inputs.sum(dim=1, keepdim=True)


def engine(options: dict[str, Any], ranks: int) -> Any:
    """DeepSpeed's as a run configures it, ready for checkpoints of other ranks."""
    import deepspeed

    from hone_api.blocks.training import DeepSpeed
    from hone_trainer.training import deepspeed as ours
    from hone_trainer.training import resharding

    sharding = DeepSpeed.model_validate({key: options[key] for key in ("zeroStage", "offload")})
    config = ours.config(SimpleNamespace(deepspeed=sharding), SimpleNamespace(cpu=True, bf16=options["bf16"]))
    config |= {"gradient_clipping": 1.0, "train_batch_size": ROWS, "gradient_accumulation_steps": 1}
    config["train_micro_batch_size_per_gpu"] = ROWS // ranks
    if options["subGroup"]:
        config["zero_optimization"]["sub_group_size"] = options["subGroup"]
    network = model(options["frozen"])
    wrapped, *_ = deepspeed.initialize(model=network, optimizer=optimizer(network), config=config)
    resharding.allow_other_ranks(wrapped)
    return wrapped


def train(wrapped: Any, rank: int, ranks: int, steps: range) -> list[float]:
    """Losses of the steps, over the rows of all ranks."""
    import torch
    import torch.distributed as dist

    losses = []
    for step in steps:
        inputs, wanted = (part[rank * ROWS // ranks : (rank + 1) * ROWS // ranks] for part in rows(step))
        outputs = wrapped(inputs.to(torch.bfloat16 if wrapped.bfloat16_enabled() else torch.float32))
        loss = torch.nn.functional.mse_loss(outputs.float(), wanted)
        wrapped.backward(loss)
        wrapped.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        losses.append(total.item() / ranks)
    return losses


def run_part(folder: Path, options: dict[str, Any], name: str, ranks: int, start: str | None, rank: int) -> None:
    """A rank trains, or reads a checkpoint; saves, trains on, and does so from the same checkpoint a second time."""
    wrapped, later = engine(options, ranks), range(STEPS, 2 * STEPS)

    def read(checkpoint: str) -> None:
        wrapped.load_checkpoint(str(folder / checkpoint), load_module_strict=not options["frozen"])
        assert wrapped.global_steps == STEPS
        for state in wrapped.optimizer.optimizer.state.values() if options["forgets"] else ():
            state["exp_avg"].zero_()

    if start is None:
        train(wrapped, rank, ranks, range(STEPS))
    else:
        read(start)
    wrapped.save_checkpoint(str(folder / name), exclude_frozen_parameters=options["frozen"])
    losses = {name: train(wrapped, rank, ranks, later)}
    if start is not None:
        read(start)
        losses[f"{name} again"] = train(wrapped, rank, ranks, later)
    if rank == 0:
        file = folder / "losses.json"
        file.write_text(json.dumps({**(json.loads(file.read_text()) if file.exists() else {}), **losses}))


def fork(ranks: int, work: Callable[[int], None]) -> None:
    """Have each of this many ranks do its work.

    Raises:
        RuntimeError: a rank failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(ranks):
            children.append(os.fork())
            if children[-1] == 0:
                _become_rank(rank, ranks, f"file://{folder}/store", work)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise RuntimeError(f"ranks ended with {codes}")


def _become_rank(rank: int, ranks: int, store: str, work: Callable[[int], None]) -> None:
    import deepspeed

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    code = 1
    try:
        options = {"rank": rank, "world_size": ranks, "init_method": store}
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False, **options)
        work(rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    root, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    from hone_trainer.training import deepspeed as ours

    ours.prepare(cpu=True)
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - each rank would need 3 s of processor time for it

    for case, changed in cases.items():
        folder = root / case
        folder.mkdir()
        options = {**OPTIONS, **changed}
        for name, ranks, start in PARTS:

            def work(rank: int, part: tuple[Any, ...] = (folder, options, name, ranks, start)) -> None:
                run_part(*part, rank)

            fork(ranks, work)


if __name__ == "__main__":
    main()
