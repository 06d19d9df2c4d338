"""Whether the loaded model may have several rows in one pass, packed or without padding: decided before the steps are
planned, by all ranks, and once for all attempts, because packing decides the number of steps.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hone_api.estimate.micro_batch import packs
from hone_api.words.failures import FailureCode
from hone_trainer import device, ranks
from hone_trainer.encoding.mapped import Examples
from hone_trainer.errors import TrainerError
from hone_trainer.methods.arguments import collective_timeout
from hone_trainer.models.network import Generating
from hone_trainer.run import auto_micro_batch, resolve, rows
from hone_trainer.store.manifest import write_atomically
from hone_trainer.training.batches.attention import AttentionChoice, AttentionKernel
from hone_trainer.training.batches.unpadded import Unpadded
from hone_trainer.training.loop import Run
from hone_trainer.training.model_check import Look, check_shared, choose_attention

if TYPE_CHECKING:
    from transformers import TrainingArguments

FILE = "packing.json"
"""In workPath: why an earlier attempt did not pack, or null if it did."""
NOISE = "NEFTune scales its noise by the length of the padded rows of a pass, which are therefore not put together"
"""Why rows are padded. The library divides by the root of all tokens in a sequence: of a pass, if rows share it."""


def decided(run: Run, network: Generating, arguments: TrainingArguments, *, record: bool = True) -> Run:
    """The run, without packing if the model mixes rows of one pass. A collective.

    Args:
        record: whether the next attempts are to decide alike.

    Raises:
        TrainerError: ModelUnsuitable, if an earlier attempt packed and this one cannot, or ranks cannot share rows.
    """
    if run.plan.sft.neftune_alpha and not packs(run.plan):
        choice = AttentionChoice(AttentionKernel.MASKS, NOISE)
        return replace(run, settings=replace(run.settings, attention=choice, padding_free=False))
    look, is_packed = Look.of(run, network, arguments.device), packs(run.plan)
    file = Path(run.plan.work_path) / FILE
    earlier = _read(file) if is_packed else []
    if earlier and earlier[0]:
        return without_packing(run, earlier[0])
    choice, why = choose_attention(look, is_packed=is_packed)
    run = _with_group(run, look, choice)
    if earlier and why:
        message = f"{why}, and an earlier attempt of this run packed rows: start a new run on this hardware and image"
        raise TrainerError(FailureCode.MODEL_UNSUITABLE, message)
    if record and is_packed and ranks.is_first():
        write_atomically(file, json.dumps(why or None).encode())
    if is_packed and why:
        return without_packing(run, why)
    free = choice.keeps_rows_apart and not why
    return replace(
        run,
        settings=replace(run.settings, attention=choice, padding_free=free),
        unpadded=Unpadded(network, choice) if free else None,
    )


def _with_group(run: Run, look: Look, choice: AttentionChoice) -> Run:
    """The run with the ranks that share its rows. A collective.

    Raises:
        TrainerError: ModelUnsuitable, if they cannot.
    """
    if run.plan.training.sequence_parallel is None:
        return run
    from hone_trainer.training.batches.shared_rows import RowGroup  # loads torch

    size = run.plan.training.ranks_of_row
    group = RowGroup.of(size, collective_timeout(run.plan))
    check_shared(look, choice, group, resolve.longest_sequence(run.plan, run.dataset, run.rows))
    return replace(run, group=group)


def _read(file: Path) -> list[str | None]:
    """What earlier attempts decided, if there was one. A collective: the first rank reads for all."""
    text = file.read_text() if ranks.is_first() and file.is_file() else ""
    text = ranks.text_of_first(text)
    return [json.loads(text)] if text else []


def without_packing(run: Run, why: str) -> Run:
    """The packed run with a sequence for each row, and the numbers that follow."""
    training = run.plan.training.model_copy(update={"packing": False})
    dapt = run.plan.dapt and run.plan.dapt.model_copy(update={"pack": False})
    plan = run.plan.model_copy(update={"training": training, "dapt": dapt})
    data = rows.Data(cast(Examples, run.rows), run.held_out, frozenset(), run.data, [], run.used)
    dataset, settings = resolve.resolve_run(plan, run.base, data, device.here())
    settings = replace(settings, padding_free=False, unpacked=True)
    result = replace(run, plan=plan, dataset=dataset, settings=settings)
    result.advise(f"{why}: each row is a sequence of its own, not packed")
    return auto_micro_batch.resolve(result)
