"""`training.microBatchSize: Auto`: the micro batch of a run is what fits on every rank, measured once for all attempts.

Each rank measures in a process of its own (`micro_batch_probe`), so nothing of the measurement is left in the weights,
the optimizer, the random numbers or the order of rows of the run.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

from hone_api.combinations.batches import at_most
from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.errors import TrainerError
from hone_trainer.run import apart, micro_batch_record
from hone_trainer.store.manifest import write_atomically
from hone_trainer.training.loop import Run

AGREED = "agreed.json"
_OF_LAUNCHER = re.compile(r"((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*")
"""Variables that make a process one of several ranks."""


def resolve(run: Run) -> Run:
    """The run with the micro batch that fits on all ranks; as it is where the plan has a number. A collective.

    An attempt with as many ranks as an earlier one takes its value, so that a resumed run has the same passes.

    Raises:
        TrainerError: GpuOutOfMemory or OutOfMemory if a pass of one row fails; what else ends the probe; Interrupted.
    """
    if not run.plan.training.has_auto_micro_batch:
        return run
    run.method.arguments(run.plan, run.settings)  # from here on the ranks can talk to each other
    world = run.settings.world_size
    agreed, of_rank = _agreed(run), run.plan.training.batch_size // world
    if (fits := agreed.get(str(world))) is None:
        fits = int(ranks.least(_probed(run)))
        if not fits:
            run.reporters.log("not even one row was measured to fit: the run tries one")
        fits = max(fits, 1)
        _record(run, {**agreed, str(world): fits})
    size = at_most(fits, of_rank, run.plan.micro_batch_limit)
    run.reporters.log(f"micro batch {size}: of the {of_rank} rows that a rank has in a step, {fits} fit at once")
    return replace(run, settings=run.settings.with_micro_batch(size))


def _probed(run: Run) -> int:
    """Rows that fit on this rank: if the kernel killed the probe, the most that were measured before.

    With cgroups v2, the kubelet lets the kernel kill all processes of the container: then this is the next attempt.
    """
    run.stop.check("before the micro batch was measured")
    file = micro_batch_record.record_file(run.plan, ranks.rank())
    if rows := _measured_by_a_killed_probe(file):
        return rows
    file.unlink(missing_ok=True)
    try:
        apart.run(micro_batch_record.PROBE, run.plan, run.stop, "the probe of the micro batch", _alone())
    except TrainerError as error:
        rows = _measured_by_a_killed_probe(file)
        if error.code != FailureCode.OUT_OF_MEMORY or not rows:
            file.unlink(missing_ok=True)
            raise
        return rows
    return int(json.loads(file.read_text())["microBatchSize"])


def _measured_by_a_killed_probe(file: Path) -> int:
    """Rows that fit by the record of a probe that did not end; 0 without one, or if it had measured nothing yet."""
    record = json.loads(file.read_text()) if file.is_file() else {}
    return int(record["microBatchSize"]) if "trying" in record else 0


def _alone() -> dict[str, str]:
    """The environment of a process that sees this rank's GPU alone, and no other ranks."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        visible = str(local)
    elif local < len(gpus := visible.split(",")):
        visible = gpus[local]  # without one it stays empty: GPUs are hidden from the run
    inherited = {name: value for name, value in os.environ.items() if not _OF_LAUNCHER.fullmatch(name)}
    return {**inherited, "CUDA_VISIBLE_DEVICES": visible, micro_batch_record.RANK_ENV: str(ranks.rank())}


def _agreed(run: Run) -> dict[str, int]:
    """What earlier attempts agreed on, by their number of ranks. A collective: the first rank reads for all."""
    file, text = _agreed_file(run), ""
    if ranks.is_first() and file.is_file():
        text = file.read_text()
    agreed: dict[str, int] = json.loads(ranks.text_of_first(text) or "{}")
    return agreed


def _record(run: Run, agreed: dict[str, int]) -> None:
    if ranks.is_first():
        write_atomically(_agreed_file(run), json.dumps(agreed).encode())


def _agreed_file(run: Run) -> Path:
    return Path(run.plan.work_path) / micro_batch_record.FOLDER / AGREED
