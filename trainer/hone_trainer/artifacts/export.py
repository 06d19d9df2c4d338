"""Exports artifacts: written, read back and compared, then closed by their manifest."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hone_api.blocks.delivery import ArtifactForm
from hone_api.kinds.modelversion import AnsweredPrompt, Artifact, EvaluationNumber
from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.artifacts import model_card, run_page, servable, usage
from hone_trainer.artifacts.run_summary import Effort
from hone_trainer.encoding import rendering
from hone_trainer.encoding.split_file import Example
from hone_trainer.errors import TrainerError
from hone_trainer.models import adapters, base_model, gguf
from hone_trainer.models.network import Generating, Tokenizer
from hone_trainer.models.weights import naming_foreign_errors, repair_generation
from hone_trainer.models.whole import whole_models
from hone_trainer.store import manifest
from hone_trainer.training.checkpoints import naming_disk_errors
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.selfcheck import Shown

MERGE_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25}
"""Limit for the difference of a logit between base with adapter and merged model: the rounding of one more matrix
sum."""
TASKS = {"LanguageModel": "text-generation", "Reward": "text-classification"}
"""The hub's pipeline tag for each head."""
PROBES = 2
"""Training rows on which merged model and adapter are compared."""


@dataclass
class RunRecord:
    """What an artifact records about its run."""

    numbers: list[EvaluationNumber]
    samples: list[AnsweredPrompt]
    resolved: dict[str, int | str]
    steps: int
    curves: list[dict[str, Any]]
    data: dict[str, str] = field(default_factory=dict)
    """What happened to the rows of each split, as sentences."""
    example: list[Shown] = field(default_factory=list)
    """A training row with its mask."""
    advice: list[str] = field(default_factory=list)
    rejected: str = ""
    """Why the model fails its gate."""
    interpolation: list[dict[str, Any]] = field(default_factory=list)
    """Points between base and tuned weights."""
    lowest: list[str] = field(default_factory=list)
    """Metrics of evaluation.harness for which lower is better, as <metric> on <task>."""
    effort: Effort | None = None
    """Time and memory of the run; None for a checkpoint that is exported later."""


def weights(trainer: Loop) -> dict[str, Any]:
    """The trained weights on the CPU, by their names in the file: those of the adapter, or of the whole model.

    A collective: sharded weights are gathered. Tied weights appear once. Only the first rank's return value counts.
    """
    from peft import PeftModel, get_peft_model_state_dict

    is_adapter = isinstance(trainer.model, PeftModel)
    if not trainer.is_deepspeed_enabled:
        state = trainer.model.state_dict()
    elif is_adapter and trainer.model_wrapped.zero_optimization_stage() == 3:
        state = trainer.model_wrapped._zero3_consolidated_16bit_state_dict(exclude_frozen_parameters=True)
    else:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not ranks.is_first():
        return {}
    if is_adapter:
        state = get_peft_model_state_dict(trainer.model, state_dict=state)
    else:
        tied = set(trainer.model.all_tied_weights_keys)
        state = {name: tensor for name, tensor in state.items() if name not in tied}
    left_out = f".{trainer.run.method.training_only}."
    state = {name: tensor for name, tensor in state.items() if left_out not in f".{name}"}
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}


def check_weights(stored: Iterable[tuple[str, Any]], expected: dict[str, Any]) -> None:
    """Check that the weights read back are the trained ones: same names, bit-equal, not empty, finite.

    Args:
        stored: names and tensors, which may come one by one.

    Raises:
        TrainerError: naming the first tensors that are wrong; Diverged if one is not finite.
    """
    import torch

    wrong, missing = [], set(expected)
    for name, tensor in stored:
        missing.discard(name)
        if name not in expected:
            wrong.append(f"{name}: unexpected")
        elif tensor.numel() == 0:
            wrong.append(f"{name}: empty")
        elif not torch.isfinite(tensor).all():
            raise TrainerError(FailureCode.DIVERGED, f"the trained weights are not finite: {name}")
        elif not torch.equal(tensor, expected[name]):
            wrong.append(f"{name}: differs from the trained weights")
    wrong += [f"{name}: missing" for name in sorted(missing)]
    if wrong:
        raise TrainerError(FailureCode.TRAINER_ERROR, f"the exported weights are wrong: {'; '.join(wrong[:5])}")


def write(run: Run, trained: dict[str, Any], network: Any, record: RunRecord, output: Path) -> list[Artifact]:
    """Write every artifact that the plan asks for. On the first rank only.

    Args:
        trained: from `weights`.
        network: the trained model, for its configuration; its weights are not read.
        output: from `finished.begin`: the plan's outputPath, or a folder in it.
    """
    plan = run.plan
    with naming_disk_errors(output), whole_models():
        if not adapters.is_adapter(plan.adapter):
            artifacts = [_full(run, output / "full", trained, network, record)]
            return artifacts + _gguf(run, output / "full", record)
        artifacts = [_adapter(run, output / "adapter", trained, network, record)]
        if plan.output.merge or plan.model_adapter:  # the adapter's base was merged only for this run
            artifacts.append(_export_merged(run, output / "merged", output / "adapter", record))
            artifacts += _gguf(run, output / "merged", record)
        return artifacts


def _adapter(run: Run, folder: Path, trained: dict[str, Any], network: Any, record: RunRecord) -> Artifact:
    from safetensors.torch import save_file

    _fresh(folder)
    trained = servable.as_stored(trained, run.base.config)
    save_file(trained, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    check_weights(_read_tensors(folder), trained)
    config = network.peft_config["default"]
    config.base_model_name_or_path = servable.base_name(run.plan.model_uri)
    config.revision = run.plan.model_commit
    config.inference_mode = True
    if run.method.training_only:
        config.modules_to_save = config.exclude_modules = None
    config.save_pretrained(str(folder))
    servable.check(folder, run.base.config, run.method.head)
    return _finish(run, folder, "Adapter", record)


def _full(run: Run, folder: Path, trained: dict[str, Any], network: Generating, record: RunRecord) -> Artifact:
    import torch

    _fresh(folder)
    if run.settings.bf16:
        trained = {name: t.to(torch.bfloat16) if t.is_floating_point() else t for name, t in trained.items()}
        network.config.dtype = torch.bfloat16
    network.save_pretrained(folder, state_dict=dict(trained))
    check_weights(_read_back(folder, network, trained), trained)
    return _finish(run, folder, "Full", record)


def _export_merged(run: Run, folder: Path, adapter: Path, record: RunRecord) -> Artifact:
    """Base and adapter as one model, merged from the exported adapter: this also proves that the adapter loads.

    A QLoRA adapter is merged into the dequantised 4-bit base, since it was fitted to that. The model in training, and a
    server that loads the base in 4 bits, round differently in each layer: the card has both differences.
    """
    from peft import PeftModel

    _fresh(folder)
    base = base_model.load(
        run.base, bf16=run.settings.bf16, cpu=True, quantize=_is_quantized(run), frozen=True, head=run.method.head
    )
    probes = run.rows[:PROBES]
    tuned = PeftModel.from_pretrained(base, adapter)
    trained = before = _logits(tuned, probes)
    if _is_quantized(run):
        tuned = PeftModel.from_pretrained(tuned.unload().dequantize(), adapter)
        before = _logits(tuned, probes)
    merged = tuned.merge_and_unload()
    after = _logits(merged, probes)
    drift = _difference(before, after)
    limit = MERGE_TOLERANCE[str(merged.dtype).removeprefix("torch.")]
    if drift > limit:
        raise TrainerError(
            FailureCode.TRAINER_ERROR, f"a logit of the merged model is off by {drift:.2g} (limit {limit:g})"
        )
    merged.save_pretrained(folder)
    expected = _untied_tensors(merged)
    check_weights(_read_back(folder, merged, expected), expected)
    note = f"Largest difference of a logit from base with adapter, on {len(probes)} training rows: {drift:.2g}."
    if _is_quantized(run):
        note = note.replace("from base", "from the dequantised base")
        note += f" From the base in 4 bits with adapter, as it was trained: {_difference(trained, after):.2g}."
    return _finish(run, folder, "Merged", record, note)


def _gguf(run: Run, source: Path, record: RunRecord) -> list[Artifact]:
    """The same model for llama.cpp if the plan asks for it. The file includes the tokenizer and its template."""
    if "GGUF" not in run.plan.output.formats:
        return []
    folder, precision = source.with_name("gguf"), run.plan.output.gguf_precision
    _fresh(folder)
    name = run.plan.output.model_name
    drift = gguf.write(source, folder / f"{name}.gguf", precision, name)
    note = f"Largest difference of a weight from the safetensors, relative to its tensor's largest: {drift:.2g}."
    return [_finish(run, folder, "GGUF", record, f"Precision {precision}.", note)]


def _finish(run: Run, folder: Path, form: ArtifactForm, record: RunRecord, *notes: str) -> Artifact:
    """Write what comes with the weights; then the manifest, which is read back."""
    _describe(run, folder, form, record, notes)
    digest = manifest.write(folder)
    verified = manifest.verify(folder, digest)
    uri = folder.relative_to(run.plan.output_path).as_posix()
    return Artifact(format=form, uri=uri, digest=verified.digest, size_bytes=verified.size_bytes)


def rehearse(run: Run) -> None:
    """Write what comes with the weights, and a small adapter, into temporary folders: what cannot be exported is not
    trained.

    Raises:
        TrainerError: UnsupportedModel, for a generation config, tokenizer or config that cannot be written;
            ModelUnsuitable, for an adapter that cannot be loaded again.
    """
    record = RunRecord([], [], run.settings.to_resolved(), 0, [], run.data, run.example, run.advice)
    form: ArtifactForm = "Adapter" if adapters.is_adapter(run.plan.adapter) else "Full"
    with tempfile.TemporaryDirectory(prefix="hone-rehearsal-") as folder, naming_foreign_errors(run.base.path):
        run.base.config.save_pretrained(folder)
        _describe(run, Path(folder), form, record)
        if form == "Adapter":
            servable.rehearse(run.plan.adapter, run.base.config, run.method.head)


def _describe(run: Run, folder: Path, form: ArtifactForm, record: RunRecord, notes: Sequence[str] = ()) -> None:
    """Write tokenizer, generation settings, card, report and curves."""
    _tokenizer(run).save_pretrained(folder)
    if run.method.head == "LanguageModel":
        _generation_config(run).save_pretrained(folder)
    report = {
        "form": form,
        "plan": run.plan.to_json(),
        "resolved": record.resolved,
        "steps": record.steps,
        "rows": len(run.rows),
        "effort": record.effort.to_json() if record.effort else None,
        "numbers": [n.to_json() for n in record.numbers],
        "samples": [s.to_json() for s in record.samples],
        "data": record.data,
        "example": [asdict(piece) for piece in record.example],
        "advice": record.advice,
        "rejected": record.rejected,
        "interpolation": record.interpolation,
        "lowest": record.lowest,
        "notes": list(notes),
    }
    (folder / "README.md").write_text(
        model_card.render(
            run.plan,
            form,
            task=TASKS[run.method.head],
            numbers=record.numbers,
            samples=record.samples,
            resolved=record.resolved,
            steps=record.steps,
            warnings=record.advice,
            notes=notes,
            use=usage.steps(report),
        )
    )
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / run_page.NAME).write_text(run_page.render(report, record.curves, run.method), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in record.curves))


def _tokenizer(run: Run) -> Tokenizer:
    """The base's tokenizer, whose chat template makes the prompts of this run unless a request sets its switch."""
    tokenizer, thinking = copy(run.base.tokenizer), run.plan.training.thinking
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = rendering.with_default(tokenizer.chat_template, thinking)
    return tokenizer


def _generation_config(run: Run) -> Any:
    """The base's generation config, which stops at every end-of-turn token that the rows trained."""
    from transformers import GenerationConfig

    if (run.base.path / "generation_config.json").is_file():
        config = GenerationConfig.from_pretrained(run.base.path, local_files_only=True)
    else:
        config = GenerationConfig.from_model_config(run.base.config)
    config.eos_token_id = sorted(run.stop_ids)
    config.pad_token_id = run.base.tokenizer.pad_token_id
    repair_generation(config)
    return config


def _fresh(folder: Path) -> None:
    if folder.exists():  # left by an attempt that was killed while exporting
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _is_quantized(run: Run) -> bool:
    return adapters.is_quantized(run.plan.adapter)


def _read_tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """The tensors of an artifact, one at a time: the whole model need not fit in memory twice."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                yield name, file.get_tensor(name)


def _untied_tensors(network: Generating) -> dict[str, Any]:
    tied = set(network.all_tied_weights_keys)
    return {name: tensor for name, tensor in network.state_dict().items() if name not in tied}


def _read_back(folder: Path, network: Generating, expected: Collection[str]) -> Iterable[tuple[str, Any]]:
    """The tensors of an artifact, by their names in the model.

    Experts are one tensor in memory but separate tensors in the file, in the layout of their family (transformers 5).
    Such a file is loaded the way it will be used, which takes the memory of the model a second time.
    """
    names = {name for name, _ in _read_tensors(folder)}
    if names == set(expected) or not getattr(network, "_weight_conversions", None):
        return _read_tensors(folder)
    kind: Any = type(network)
    loaded = kind.from_pretrained(folder, dtype="auto", use_safetensors=True, local_files_only=True)
    return _untied_tensors(loaded).items()


def _logits(network: Generating, rows: Sequence[Example]) -> list[Any]:
    import torch

    network.eval()
    with torch.no_grad():
        return [network(input_ids=torch.tensor([row.sequences[0]])).logits.float() for row in rows]


def _difference(left: Sequence[Any], right: Sequence[Any]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))
