"""Changes that reduce the memory of a run that does not fit, the cheapest first. Pure."""

from __future__ import annotations

from dataclasses import replace

from hone_api.blocks.training import AdapterType, Recompute
from hone_api.estimate.memory import Setup, estimate
from hone_api.methods import METHODS, Method


def cheaper(s: Setup) -> list[tuple[str, Setup]]:
    """Changes that reduce memory, each with its price in words, the cheapest first."""
    out = []
    if s.method == Method.KTO:  # its micro batches have at least two rows
        if s.micro_batch > 2 and s.micro_batch % 2 == 0:
            out.append(("training.microBatchSize: 2 (KTO's KL of fewer rows)", replace(s, micro_batch=2)))
    elif s.micro_batch > 1:
        result = "the same result" if METHODS[Method(s.method)].row_by_row else "nearly the same result"
        out.append((f"training.microBatchSize: 1 ({result}, a little slower)", replace(s, micro_batch=1)))
    if s.recompute in (Recompute.NONE, Recompute.SELECTIVE):
        words = "training.activationCheckpointing: Full (the same result, about 30 % slower)"
        out.append((words, s.with_recompute(Recompute.FULL)))
    if s.teacher:
        words = "distillation.level: Sequence (the teacher answers beforehand, in separate memory)"
        out.append((words, replace(s, teacher=None)))
    elif s.ranks > 1 and s.zero_stage < 3 and s.adapter != AdapterType.QLORA:
        out.append(("deepspeed.zeroStage: 3 (the same result, more traffic)", replace(s, zero_stage=3)))
    elif not (s.adapted or s.zero_stage or s.in_8_bits):  # deepspeed keeps the state itself
        words = "training.optimizer: AdamW8bit (nearly the same result)"
        out.append((words, replace(s, in_8_bits=True)))
    if 1 < s.may_share_rows <= 64 and s.ranks_of_row == 1:
        words = f"training.sequenceParallel: {s.may_share_rows} (the same result, more traffic; not with every model)"
        out.append((words, replace(s, ranks_of_row=s.may_share_rows)))
    if not s.adapted:
        out.append(
            ("adapter.type: LoRA (trains low-rank updates)", replace(s, adapter=str(AdapterType.LORA), zero_stage=0))
        )
    if s.adapter != AdapterType.QLORA:
        fewer = replace(s, adapter=str(AdapterType.QLORA), zero_stage=min(s.zero_stage, 2))
        out.append(("adapter.type: QLoRA (the base in 4 bits)", fewer))
    if s.max_length > 1024:
        out.append(("training.maxLength: 1024 (longer rows are dropped)", replace(s, max_length=1024)))
    return out


def change_that_fits(s: Setup, capacity: int) -> str | None:
    """The cheapest change with which the run fits into `capacity` bytes a rank; several changes if one is not
    enough."""
    words_so_far: list[str] = []
    while options := cheaper(s):
        for words, changed in options:
            if estimate(changed).total <= capacity:
                return "; ".join((*words_so_far, words))
        words, s = options[0]
        words_so_far.append(words)
    return None
