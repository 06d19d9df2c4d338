"""`python -m hone_trainer evaluate`: the numbers of a finished run again, from its artifact alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hone_api.modelversion import EvaluationNumber
from hone_api.plan import TrainingPlan
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.models import adapters, base_model
from hone_trainer.run import preflight, rows
from hone_trainer.scoring import heldout, scores
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.scores import Score


def main(options: argparse.Namespace) -> None:
    """Print the numbers as JSON lines, in the form of a ModelVersion's `spec.evaluation.numbers`."""
    for number in recompute(options.artifact, options.data, options.base):
        print(json.dumps(number.to_json()))


def recompute(artifact: Path, data: Path, base: Path | None = None) -> list[EvaluationNumber]:
    """Score an artifact on the rows of `data`, by the run's own procedure; the base too where its folder is there.

    Args:
        artifact: folder with report.json, as exported.
        base: folder of the base model; needed for an adapter unless it lies where the run had it.

    Raises:
        TrainerError: FileNotFound when `artifact` is none, or an adapter's base is not there; InvalidConfiguration.
    """
    file = artifact / "report.json"
    if not file.is_file():
        raise TrainerError("FileNotFound", f"{artifact} holds no report.json: name an exported artifact")
    report = json.loads(file.read_text())
    plan = TrainingPlan.model_validate(report["plan"])
    method = METHODS[plan.method]
    if method.score is not heldout.score_language_model:
        raise TrainerError("InvalidConfiguration", f"the numbers of method {plan.method} need the run's own reference")
    bf16 = report["resolved"]["precision"] == "BFloat16"
    base = base or Path(plan.model_path)
    is_adapter = report["form"] == "Adapter"
    if is_adapter and not (base / "config.json").is_file():
        raise TrainerError("FileNotFound", f"the base model is not in {base}: name its folder with --base")

    opened = base_model.open_base(base if is_adapter else artifact)
    encoded = rows.encode(plan, opened, str(data))
    for warning in preflight.rows(encoded, opened, str(data)):
        print(warning)
    held_out = HeldOut(str(data), encoded.rows[: plan.evaluation.max_rows], data)

    def score(network: Any) -> Score:
        pad = opened.tokenizer.pad_token_id
        return heldout.score(network, held_out.rows, pad_id=pad, bf16=bf16, poll=lambda: None)

    tuned = _load(opened, plan, bf16, quantize=is_adapter)
    if is_adapter:
        before, tuned = score(tuned), _with_adapter(tuned, artifact)
    elif (base / "config.json").is_file():
        before = score(_load(base_model.open_base(base), plan, bf16, quantize=True))
    else:
        return scores.numbers([held_out.name], method.metrics, None, [score(tuned)])
    return scores.numbers([held_out.name], method.metrics, [before], [score(tuned)])


def _load(opened: base_model.Base, plan: TrainingPlan, bf16: bool, *, quantize: bool) -> Any:
    """The model with TRL's fused loss head, on the GPU where there is one."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    cuda = torch.cuda.is_available()
    frozen = adapters.is_adapter(plan.adapter)
    quantize = quantize and adapters.is_quantized(plan.adapter)
    network = base_model.load(opened, bf16=bf16, cpu=not cuda, quantize=quantize, frozen=frozen)
    add_fused_lm_head(network, outputs=("log_probs", "is_top1"))
    return network if quantize or not cuda else network.cuda()


def _with_adapter(network: Any, artifact: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(network, artifact)
