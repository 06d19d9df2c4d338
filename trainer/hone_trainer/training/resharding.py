"""A checkpoint of DeepSpeed ZeRO that is read by another number of ranks than saved it.

DeepSpeed has each rank read the one file with its own part of the optimizer's state: float32 weights and their moments.
Here that file is put together while it is read: a rank maps the files of the ranks that saved, and copies the numbers
that are its own now. Nothing is written, so a crash leaves nothing. A rank needs the memory that its own file would.

DeepSpeed's converter to "universal" checkpoints is not used: it writes every number twice to the volume, in files of
whole weights that each rank then reads. In stage 3 it loads the settings of the first parameter group into all of them
(weight decay also where there is none), and one shared counter of steps, which grows with each group (0.19.8).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.errors import TrainerError

if TYPE_CHECKING:
    from torch import Tensor

_OPTIMIZER_FILE = re.compile(r"^(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt$")
_MODEL_FILES = "*mp_rank_00_model_states.pt"
_FIRST_MODEL_FILES = "zero_pp_rank_0_mp_rank_*_model_states.pt"
"""With sharded weights each rank has one; they differ in nothing that is read."""
_OPTIMIZER, _FROZEN, _RANKS = "optimizer_state_dict", "frozen_param_fragments", "dp_world_size"
_TORCH = {False: "base_optimizer_state", True: "optimizer_state_dict"}
"""Key of torch's optimizer state, by whether weights are sharded (stage 3)."""
_WEIGHTS = {False: "single_partition_of_fp32_groups", True: "fp32_flat_groups"}
"""Key of the float32 weights: one flat tensor for each group."""
_ALIGNED = 2
"""A rank's part of a whole group is a multiple of it: DeepSpeed's `nccl_start_alignment_factor`."""


@dataclass(frozen=True)
class Span:
    """Numbers that all ranks hold together, each an equal part: one weight, or all weights of a group."""

    group: int
    """Index of the flat tensor that has a rank's part, next to those of other spans."""
    offset: int
    """Where in the flat tensor the part begins; the same on each rank."""
    size: int
    """Numbers of a part, with the zeros at the end of the last one."""
    count: int
    """Numbers of all parts, without those zeros."""


@dataclass(frozen=True)
class Layout:
    """Which rank has which numbers of weights and optimizer state."""

    groups: Sequence[Mapping[str, int]]
    """Numbers of each weight, by name, for each flat tensor in order."""
    world_size: int
    by_weight: bool
    """Each weight is divided among the ranks, as in stage 3. Stages 1 and 2 divide a group as a whole."""

    def spans(self) -> dict[str, Span]:
        """The spans by name; layouts of one model that divide alike have the same names."""
        spans: dict[str, Span] = {}
        for group, weights in enumerate(self.groups):
            if not self.by_weight:
                count = sum(weights.values())
                spans[f"group {group}"] = Span(group, 0, -(-count // (_ALIGNED * self.world_size)) * _ALIGNED, count)
                continue
            offset = 0
            for name, count in weights.items():
                spans[name] = Span(group, offset, -(-count // self.world_size), count)
                offset += spans[name].size
        return spans

    def sizes(self) -> list[int]:
        """Numbers of each flat tensor of a rank."""
        spans = self.spans().values()
        return [sum(span.size for span in spans if span.group == group) for group in range(len(self.groups))]

    def in_order(self) -> list[tuple[str, int]]:
        """All weights with their numbers. Groups may be cut differently: their sizes depend on the ranks."""
        return [weight for weights in self.groups for weight in weights.items()]


def copy_part(held: Sequence[Tensor], span: Span, target: Tensor, start: int) -> None:
    """Fill `target` with the numbers of a span from number `start` on. Behind the last one it stays as it is.

    Args:
        held: the flat tensor of each rank that saved, shape (numbers,).
        target: shape (numbers,).
    """
    done, wanted = 0, min(len(target), span.count - start)
    while done < wanted:
        rank, inner = divmod(start + done, span.size)
        length = min(span.size - inner, wanted - done)
        target[done : done + length].copy_(held[rank].narrow(0, span.offset + inner, length))
        done += length


def state_of(rank: int, layout: Layout, saved: Layout, states: Sequence[dict[str, Any]], owners: Sequence[int]) -> Any:
    """DeepSpeed's optimizer state of one rank, from those of all ranks that saved. Pure.

    Args:
        layout: of the ranks that there are now.
        saved: of the ranks that saved.
        states: of each of them, as DeepSpeed saves it.
        owners: the parameter group of each flat tensor of `layout`, in rising order.
    """
    weights, torch_state = _WEIGHTS[layout.by_weight], _TORCH[layout.by_weight]
    spans, before, sizes = layout.spans(), saved.spans(), layout.sizes()

    def flat(group: int, held: Sequence[Sequence[Tensor]]) -> Tensor:
        """A flat tensor of the rank, from all flat tensors of each rank that saved."""
        target = held[0][0].new_zeros(sizes[group])
        for name, span in spans.items():
            if span.group == group:
                source = [tensors[before[name].group] for tensors in held]
                copy_part(source, before[name], target[span.offset : span.offset + span.size], rank * span.size)
        return target

    def moment(group: int, key: str, first: Tensor) -> Tensor:
        if not first.dim():  # the count of steps: groups must not share one, the optimizer raises it in place
            return first.clone()
        moments = [state[torch_state]["state"] for state in states]
        return flat(group, [[of_rank[number][key] for number in range(len(of_rank))] for of_rank in moments])

    moments = {}
    for group in range(len(sizes)):
        first = before[next(name for name, span in spans.items() if span.group == group)].group
        source = states[0][torch_state]["state"][first]
        moments[group] = {key: moment(group, key, value) for key, value in source.items()}
    settings = [
        {**options, "params": [group for group, owner in enumerate(owners) if owner == number]}
        for number, options in enumerate(states[0][torch_state]["param_groups"])
    ]
    held = [state[weights] for state in states]
    return {
        **states[0],
        weights: [flat(group, held) for group in range(len(sizes))],
        torch_state: {"state": moments, "param_groups": settings},
    }


def optimizer_files(folder: Path) -> list[Path]:
    """The optimizer's file of each rank that saved, in the order of ranks."""
    files = {int(match.group(1)): file for file in folder.iterdir() if (match := _OPTIMIZER_FILE.match(file.name))}
    return [files[rank] for rank in sorted(files)]


def allow_other_ranks(engine: Any) -> None:
    """From now on DeepSpeed's `engine` also loads checkpoints that another number of ranks saved."""
    files_of = engine._get_all_ckpt_names

    def load(path: str, map_location: Any = None) -> Any:
        folder = Path(path).parent
        saved = optimizer_files(folder)
        if len(saved) in (0, ranks.world_size()):
            return _read(path, map_location)
        if _OPTIMIZER_FILE.match(Path(path).name):
            return _own_file(engine, folder, saved)
        # The base has its frozen weights already: they are those of the run.
        return {**_read(path, map_location), _RANKS: ranks.world_size(), _FROZEN: None}

    def model_files(folder: str, tag: str) -> list[str]:
        """DeepSpeed's, or those of the first rank where this rank is one more than saved."""
        return files_of(folder, tag) or sorted(map(str, (Path(folder) / tag).glob(_FIRST_MODEL_FILES)))

    engine.checkpoint_engine.load = load
    engine._get_all_ckpt_names = model_files


def _own_file(engine: Any, folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """What the optimizer's file of this rank would hold, had as many ranks saved as there are now.

    Raises:
        TrainerError: the weights that were saved are not those of the model, or this version of DeepSpeed divides them
            in another way.
    """
    held = [_mapped(file) for file in files]
    shapes = _mapped(sorted(folder.glob(_MODEL_FILES))[0])["param_shapes"]
    layout, sizes, owners = _layout_of(engine)
    counts = [{name: prod(shape) for name, shape in group.items()} for group in shapes]
    saved = Layout(counts, len(files), layout.by_weight)
    states = [content[_OPTIMIZER] for content in held]
    first = states[0][_TORCH[layout.by_weight]]
    then = [next(len(value) for value in first["state"][g].values() if value.dim()) for g in range(len(counts))]
    if layout.in_order() != saved.in_order() or layout.sizes() != sizes or saved.sizes() != then:
        raise TrainerError(
            FailureCode.TRAINER_ERROR,
            f"{folder.parent.name} of {len(files)} ranks cannot be resumed on {layout.world_size}: its weights are "
            f"{sum(map(len, counts))} in flat tensors of {then} numbers, the model has {len(layout.in_order())} in "
            f"{sizes}. Resume on {len(files)} ranks, without resources.minNodes",
        )
    return {**held[0], _OPTIMIZER: state_of(ranks.rank(), layout, saved, states, owners)}


def _layout_of(engine: Any) -> tuple[Layout, list[int], list[int]]:
    """The layout of the running engine; the numbers of its flat tensors; the parameter group of each."""
    optimizer = engine.optimizer
    if engine.zero_optimization_stage() == 3:
        groups, flat = optimizer.fp16_groups, optimizer.fp32_partitioned_groups_flat
        owners = [optimizer.sub_group_to_group_id[group] for group in range(len(groups))]
        counts = [{optimizer.param_names[weight]: weight.ds_numel for weight in group} for group in groups]
    else:
        groups, flat = optimizer.round_robin_bit16_groups, optimizer.single_partition_of_fp32_groups
        owners = list(range(len(groups)))
        counts = [{optimizer.param_names[weight]: weight.numel() for weight in group} for group in groups]
    by_weight = engine.zero_optimization_stage() == 3
    return Layout(counts, ranks.world_size(), by_weight), [len(tensor) for tensor in flat], owners


def _mapped(file: Path) -> Any:
    """Content of a file of a checkpoint; its tensors are read from the volume when they are used."""
    return _read(str(file), map_location="cpu", mmap=True)


def _read(path: str, map_location: Any = None, mmap: bool | None = None) -> Any:
    """What `torch.load` reads, and of classes only those that DeepSpeed puts into a checkpoint: whoever can write to
    the run's folder can also write its manifest, but must not run code here."""
    import torch
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    def member(kind: Any, name: str) -> Any:
        """In place of getattr, by which Python stores the member of an enumeration."""
        if kind is not ZeroStageEnum or name not in ZeroStageEnum.__members__:
            raise pickle.UnpicklingError(f"{path} asks for {name} of {kind}")
        return ZeroStageEnum[name]

    classes = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address, (member, "builtins.getattr")]
    with torch.serialization.safe_globals(classes):
        return torch.load(path, map_location=map_location, mmap=mmap, weights_only=True)
