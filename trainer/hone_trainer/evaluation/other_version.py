"""The version that `evaluation.against` means, measured on the held-out rows of the run: is the new model better?

It is measured before the run's own weights are loaded, so that both are never in memory, and once for all attempts:
another version may be in use when the last attempt ends. What is kept are values of each row, which the method's
`compared` turns into scores when the run has its reference, its rewards or its judge.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hone_api.plan import ModelInput, TrainingPlan
from hone_trainer import ranks
from hone_trainer.encoding import mapped
from hone_trainer.evaluation import scoring_model
from hone_trainer.models import base_model, merge_base
from hone_trainer.models.base_model import Head
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Values
from hone_trainer.scoring.scores import Score
from hone_trainer.signals import interrupted
from hone_trainer.store.manifest import write_atomically
from hone_trainer.training.loop import Loop, Run, RunPoll

KINDS: dict[Head, str] = {"LanguageModel": "language model", "Reward": "reward model"}


@dataclass(frozen=True)
class OtherVersion:
    """What is known of the version to compare with."""

    values: Sequence[Values] | None = None
    """Of the rows of each held-out split; None: not measured."""
    advice: str = ""
    """Why it was not measured, for people."""

    def scores(self, trainer: Loop) -> list[Score] | None:
        """One a held-out split, with the run's own reference, rewards or judge; None: not measured. A collective."""
        if self.values is None:
            return None
        splits = zip(trainer.run.held_out, self.values, strict=True)
        return [trainer.run.method.compared.score(trainer, split, values, trainer.poll) for split, values in splits]


def measure(run: Run) -> OtherVersion:
    """Measure the version. A collective, before the weights of the run are loaded.

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
    if file.is_file() and (saved := json.loads(file.read_text()))["of"] == mark and "values" in saved:
        return OtherVersion(saved["values"])
    if (head := _head(model)) != run.method.head:
        return OtherVersion(advice=f"{name} is a {KINDS[head]}, and this model is a {KINDS[run.method.head]}")
    opened = base_model.open_base(model.path, "LanguageModel" if model.adapter else head)
    if not scoring_model.read_the_same(run.base, opened):
        words = f"{name} has another tokenizer or chat template, so its numbers cannot be compared with this model's"
        return OtherVersion(advice=words)
    if (length := longest(run.plan, run.held_out)) > opened.context:
        words = f"{name} reads {opened.context} tokens, and a held-out row takes {length}, so they cannot be compared"
        return OtherVersion(advice=words)
    values = _values(run, opened, name, Path(model.adapter.path) if model.adapter else None)
    if ranks.is_first():
        write_atomically(file, json.dumps({"of": mark, "values": values}).encode())
    ranks.barrier()
    return OtherVersion(values)


def longest(plan: TrainingPlan, splits: Sequence[HeldOut]) -> int:
    """Tokens that a model must be able to read to be measured on these rows: the longest one and its answer."""
    sampled = plan.grpo or plan.ppo
    return max(mapped.most(split.rows) for split in splits) + (sampled.max_completion_length if sampled else 0)


def _head(model: ModelInput) -> Head:
    """What the version ends in, by its configuration."""
    if model.adapter:
        config = json.loads((Path(model.adapter.path) / "adapter_config.json").read_text())
        return "Reward" if config.get("task_type") == "SEQ_CLS" else "LanguageModel"
    config = json.loads((Path(model.path) / "config.json").read_text())
    named = config.get("architectures") or ()
    return "Reward" if any(name.endswith("ForSequenceClassification") for name in named) else "LanguageModel"


def _values(run: Run, opened: base_model.Base, name: str, adapter: Path | None) -> list[Values]:
    """Args: adapter: folder of an adapter on that base; it is not merged, so a base for QLoRA stays in 4 bits."""
    import torch

    poll = RunPoll(run, lambda: interrupted(f"while evaluating {name}"))
    run.reporters.begin_rows("EvaluatingOtherVersion", sum(len(split.rows) for split in run.held_out))
    run.reporters.log(f"measuring {name}, the version to compare with, on {len(run.held_out)} held-out splits")
    quantize = adapter is not None and merge_base.is_for_4_bits(adapter)
    bf16, head = run.settings.bf16, run.method.head
    network = scoring_model.load(opened, bf16=bf16, frozen=True, quantize=quantize, head=head)
    if adapter:
        network = scoring_model.with_adapter(network, adapter)
    values = [run.method.compared.values(run, network, split, poll) for split in run.held_out]
    del network
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return values
