"""Whether ranks that share rows learn what each learns alone, for tiny models: `python -m support.models.row_sharing`
is one of two ranks, and prints the outcome of each model as a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.models import every_family

RANKS = 2
LENGTHS = (90, 17, 1, 40)
TOLERANCE = 1e-5
SHARED, NOT_BUILT = "shared", "not built"
SCALED = {"factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 64}
_LONG = {**SCALED, "rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "one key head": ("llama", {"num_attention_heads": 4, "num_key_value_heads": 1}),
    "odd heads": ("llama", {"num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 48}),
    "yarn": ("llama", {"rope_parameters": {**SCALED, "rope_type": "yarn"}}),
    "longrope": ("llama", {"rope_parameters": _LONG}),
    "dynamic": ("llama", {"rope_parameters": {**SCALED, "rope_type": "dynamic"}, "max_position_embeddings": 64}),
}
"""Models that no family has in its small sizes."""
FAILING = {"fails on whole rows": 1, "fails on parts": 2}
"""A pass in which rank 1 alone has an error, between the layers' exchanges."""
IN_FLOAT64 = ("youtu",)
"""Which are so deep in rounding that they are compared so."""


def outcomes(names: list[str], port: int) -> dict[str, str]:
    """Of families or variants: `SHARED`, `NOT_BUILT`, or why two ranks do not share its rows."""
    found = [_start(rank, names, port) for rank in range(RANKS)]
    texts = [rank.communicate()[0] for rank in found]
    assert [rank.returncode for rank in found] == [0] * RANKS
    return dict(json.loads(line) for line in texts[0].splitlines() if line.startswith("["))


def _start(rank: int, names: list[str], port: int) -> subprocess.Popen[str]:
    one = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1"}
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "support.models.row_sharing", *names],
        env={**os.environ, **one, "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )


def _outcome(name: str, group: Any) -> str:
    import torch

    from hone_trainer.errors import TrainerError
    from hone_trainer.training import model_check

    family, more = VARIANTS.get(name, ("llama" if name in FAILING else name, {}))
    try:
        model = every_family.build(every_family.config(family, **more))
    except Exception:
        return NOT_BUILT
    make = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 500, (length,), generator=make).tolist() for length in LENGTHS]
    model = model.double() if name in IN_FLOAT64 else model
    look = model_check.Look(model, [row[:32] for row in rows[:2]], torch.device("cpu"))
    choice, _ = model_check.choose_attention(look)
    if name in FAILING and os.environ["RANK"] == "1":
        _fail(model, FAILING[name])
    try:
        model_check.check_shared(look, choice, group, 256)
    except TrainerError as error:
        return f"{error.code}: {error}"
    alone, shared = (_learned(model, rows, choice, each) for each in (None, group))
    torch.distributed.all_reduce(shared)
    unlike = float((shared - alone).abs().max() / alone.abs().max())
    return SHARED if unlike <= TOLERANCE else f"loss or gradient differ by {unlike}"


def _fail(model: Any, number: int) -> None:
    """Let the second layer have an error in the pass of this number from now on."""
    passes = iter(range(1, number + 1))

    def fails(*_: Any) -> None:
        if next(passes) == number:
            raise RuntimeError("the card of rank 1 is broken")

    model.model.layers[1].mlp.register_forward_pre_hook(fails)


def _learned(model: Any, rows: list[list[int]], choice: Any, group: Any) -> Any:
    """The sum of the losses of this rank's tokens, and its gradient at all weights."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from hone_trainer.encoding.row import IGNORED
    from hone_trainer.training.batches import attention

    model.zero_grad()
    inputs = DataCollatorForLanguageModeling(0, padding_free=True)([{"input_ids": row} for row in rows])
    with attention.by_row(model.config, choice, inputs, group):
        if group is None:
            labels = torch.nn.functional.pad(inputs.pop("labels")[:, 1:], (0, 1), value=IGNORED)
        else:
            inputs = group.part(inputs)
            labels = inputs.pop("shift_labels")
        logits = model(**inputs, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        loss.backward()
    grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in model.parameters()]
    return torch.cat([loss.detach()[None], *(grad.flatten() for grad in grads)])


def _main(names: list[str]) -> None:
    import torch

    from hone_trainer.training.batches.shared_rows import RowGroup

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    group = RowGroup.of(RANKS, timeout=600)
    for name in names:
        print(json.dumps([name, _outcome(name, group)]), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _main(sys.argv[1:])
