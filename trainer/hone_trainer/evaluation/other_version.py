"""The version that `evaluation.against` means, measured on the held-out rows of the run: is the new model better?

It is measured before the run's own weights are loaded, so that both are never in memory, and once for all attempts:
another version may be in use when the last attempt ends.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hone_trainer import ranks
from hone_trainer.models import base_model, merge_base, scoring_model
from hone_trainer.scoring import heldout
from hone_trainer.scoring.scores import Score
from hone_trainer.signals import interrupted
from hone_trainer.store.manifest import write_atomically
from hone_trainer.training.loop import Run


@dataclass(frozen=True)
class OtherVersion:
    """What is known of the version to compare with."""

    scores: Sequence[Score] | None = None
    """One a held-out split; None: not measured."""
    advice: str = ""
    """Why it was not measured, for people."""


def measure(run: Run) -> OtherVersion:
    """Score the version. A collective, before the weights of the run are loaded.

    Raises:
        TrainerError: Interrupted; UnsupportedModel, if the version cannot be loaded.
    """
    name, model = run.plan.compared_with, run.plan.compared_model
    if name == "":
        words = f"{run.plan.evaluation.against} pointed to no version yet, so the model is compared with the base alone"
        return OtherVersion(advice=words)
    if name is None or model is None or not run.held_out:
        return OtherVersion()
    mark = [name, (model.adapter or model).digest, [[split.name, len(split.rows)] for split in run.held_out]]
    file = Path(run.plan.work_path) / "against.json"
    if file.is_file() and (saved := json.loads(file.read_text()))["of"] == mark:
        return OtherVersion([Score.from_json(score) for score in saved["scores"]])
    opened = base_model.open_base(model.path)
    if not scoring_model.read_the_same(run.base, opened):
        words = f"{name} has another tokenizer or chat template, so its losses cannot be compared with this model's"
        return OtherVersion(advice=words)
    scores = _scores(run, opened, name, Path(model.adapter.path) if model.adapter else None)
    if ranks.is_first():
        write_atomically(file, json.dumps({"of": mark, "scores": [asdict(score) for score in scores]}).encode())
    ranks.barrier()
    return OtherVersion(scores)


def _scores(run: Run, opened: base_model.Base, name: str, adapter: Path | None) -> list[Score]:
    """Args: adapter: folder of an adapter on that base; it is not merged, so a base for QLoRA stays in 4 bits."""
    import torch

    def poll() -> None:
        run.heart.again()
        if ranks.any_rank(run.stop.requested):
            raise interrupted(f"while evaluating {name}")

    run.reporters.update(stage="EvaluatingBase")
    run.reporters.say(f"measuring {name}, the version to compare with, on {len(run.held_out)} held-out splits")
    quantize = adapter is not None and merge_base.is_for_4_bits(adapter)
    network = scoring_model.load(opened, bf16=run.settings.bf16, frozen=True, quantize=quantize)
    if adapter:
        network = scoring_model.with_adapter(network, adapter)
    pad = run.base.tokenizer.pad_token_id
    scores = [
        heldout.score(network, split.rows, pad_id=pad, bf16=run.settings.bf16, poll=poll) for split in run.held_out
    ]
    del network
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return scores
