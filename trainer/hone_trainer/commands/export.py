"""`python -m hone_trainer export`: a checkpoint as a model, during or long after its run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hone_api.contract.manifest import MANIFEST
from hone_api.contract.plan_reading import parse_plan
from hone_api.kinds.modelversion import Artifact
from hone_api.plan import TrainingPlan, plan_paths
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts import export
from hone_trainer.encoding import rendering
from hone_trainer.errors import TrainerError
from hone_trainer.models import adapters, base_model
from hone_trainer.reporting import live
from hone_trainer.run import pipeline
from hone_trainer.signals import Stop
from hone_trainer.store import finished, manifest
from hone_trainer.training import checkpoints
from hone_trainer.training.loop import Run

PLAN = "plan.json"
"""In a run's work folder: the plan, with absolute paths."""


def main(options: argparse.Namespace) -> None:
    """Print the artifacts as JSON lines, in the form of a ModelVersion's `spec.artifacts`."""
    plan = _plan(options.plan or options.checkpoint.resolve().parent.parent / PLAN)
    more: dict[str, Any] = {"merge": True} if options.merge else {}
    more |= {"formats": ["Safetensors", "GGUF"]} if options.gguf else {}
    output = plan.output.model_copy(update=more)
    plan = plan.model_copy(
        update={"output": output, "output_path": str(options.output.resolve()), "export_folder": None}
    )
    for artifact in export_checkpoint(options.checkpoint.resolve(), plan, options.weight):
        print(json.dumps(artifact.to_json()))


def _plan(file: Path) -> TrainingPlan:
    if not file.is_file():
        raise TrainerError(FailureCode.FILE_NOT_FOUND, f"{file} does not exist: name the run's plan with --plan")
    plan = parse_plan(file.read_bytes())
    if not isinstance(plan, TrainingPlan):
        raise TrainerError(FailureCode.INVALID_ARGUMENT, f"{file} is a {plan.kind} plan, not that of a run")
    return plan_paths.absolute(plan, file.resolve().parent)


def export_checkpoint(checkpoint: Path, plan: TrainingPlan, weight: float = 1.0) -> list[Artifact]:
    """Write the checkpoint's model as the plan's run would have: below `plan.output_path`, with card and report.

    Args:
        checkpoint: a complete one: every file is compared with its manifest.
        plan: the run's plan; its model and data must still be at the same paths.
        weight: 1 for the checkpoint's weights, less for a point on the line to the base (see interpolation.py).

    Raises:
        StoreError: ManifestMismatch.
        TrainerError: InvalidConfiguration, for an impossible weight, a folder that is not a checkpoint, or an
            output that holds a finished export.
    """
    finished.place(plan)
    wrong = _wrong(checkpoint, plan, weight)
    if wrong:
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, "; ".join(wrong))
    manifest.verify(checkpoint)
    # One process exports what any number of ranks has trained.
    training = plan.training.model_copy(update={"sequence_parallel": None})
    alone = plan.model_copy(update={"deepspeed": None, "nodes": 1, "processes_per_node": 1, "training": training})
    with rendering.of_run(plan.template_date, plan.training.thinking):
        run = pipeline.prepare(alone, Stop(), live.Reporters())
    step, history = checkpoints.step_of(checkpoint), _history(checkpoint)
    trained = _weights(checkpoint, run)
    if weight != 1:
        trained = _towards_base(trained, run, weight)
    title = f"Exported from the checkpoint of step {step}" + (f", weight {weight:g}." if weight != 1 else ".")
    record = export.RunRecord(
        numbers=[],
        samples=[],
        resolved=pipeline.chosen_numbers(run) | {"weight": f"{weight:g}"},
        steps=step,
        curves=history,
        data=run.data,
        example=run.example,
        advice=[title, *_newest_metrics(history)],
    )
    folder = finished.begin(plan)
    artifacts = export.write(run, trained, _shell(checkpoint, run), record, folder)
    finished.close(folder)
    return artifacts


def _wrong(checkpoint: Path, plan: TrainingPlan, weight: float) -> list[str]:
    out = []
    if not (checkpoint / MANIFEST).is_file():
        out.append(f"{checkpoint} is not a complete checkpoint: it has no {MANIFEST}")
    if not 0 < weight <= 1:
        out.append(f"--weight {weight:g} must be above 0 and at most 1")
    elif weight != 1 and (plan.adapter.type == "DoRA" or plan.method == "Reward"):
        out.append("--weight: neither DoRA's update nor a reward head has a point between base and tuned weights")
    if "GGUF" in plan.output.formats and plan.adapter.type != "None" and not plan.output.merge:
        out.append("--gguf holds a whole model: add --merge")
    return out


def _history(checkpoint: Path) -> list[dict[str, Any]]:
    """transformers' `state.log_history` up to this step."""
    return list(json.loads((checkpoint / "trainer_state.json").read_text())["log_history"])


def _newest_metrics(history: Sequence[dict[str, Any]]) -> list[str]:
    """The newest held-out metrics that the run had measured by then."""
    evaluations = [entry for entry in history if any(name.startswith("eval_") for name in entry)]
    if not evaluations:
        return []
    newest = evaluations[-1]
    words = ", ".join(f"{name} {newest[name]:.4f}" for name in newest if name.startswith("eval_"))
    return [f"Held-out metrics that the run measured at step {newest['step']}: {words}."]


def _weights(checkpoint: Path, run: Run) -> dict[str, Any]:
    """As `export.weights` gives them."""
    from safetensors.torch import load_file

    pattern = "adapter_model.safetensors" if adapters.is_adapter(run.plan.adapter) else "model*.safetensors"
    files = sorted(checkpoint.glob(pattern))
    if not files:
        message = f"{checkpoint} holds no {pattern}: let the run continue from it, and export its end"
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, message)
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    left_out = f".{run.method.training_only}."
    return {name: tensor for name, tensor in tensors.items() if left_out not in f".{name}"}


def _towards_base(trained: dict[str, Any], run: Run, weight: float) -> dict[str, Any]:
    """The point on the line; of an adapter, whose update is B A, B times the weight."""
    import torch

    if adapters.is_adapter(run.plan.adapter):
        return {n: tensor * weight if "lora_B" in n else tensor for n, tensor in trained.items()}
    base = _load_unquantized(run).state_dict()
    return {n: torch.lerp(base[n].to(t), t, weight) if t.is_floating_point() else t for n, t in trained.items()}


def _shell(checkpoint: Path, run: Run) -> Any:
    """What `export.write` reads configuration from."""
    if not adapters.is_adapter(run.plan.adapter):
        return _load_unquantized(run)
    from peft import PeftConfig

    return SimpleNamespace(peft_config={"default": PeftConfig.from_pretrained(str(checkpoint))})


def _load_unquantized(run: Run) -> Any:
    return base_model.load(run.base, bf16=False, cpu=True, quantize=False, frozen=False, head=run.method.head)
