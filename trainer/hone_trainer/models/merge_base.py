"""The base of a stage in a chain: compared with its pinned digest, and merged if its ModelVersion is an adapter.

Tools do not load an adapter on an adapter, and the second adapter's reference would not be the first stage. So
the earlier adapter is merged into its base first. The run trains on whole weights and also exports whole weights.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from hone_api.plan import ModelInput, TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.models.imports import uncollected
from hone_trainer.store import folders, manifest, signature

FOLDER = "base"
"""Name of the merged base in the run's work folder."""
WAIT_SECONDS = 900
"""Seconds that the other nodes wait for the first node's merge."""


def prepare(plan: TrainingPlan, first: bool) -> TrainingPlan:
    """The plan with models that load without another model. Call before any rank starts.

    Args:
        first: whether this is the first node, which merges; the others wait for it.

    Raises:
        StoreError: ManifestMismatch, if a file of a model differs from what was pinned or is not listed. Every file is
            hashed, once on each node. SignatureMissing or SignatureInvalid, where the plan wants signatures.
        TrainerError: StorageError, if the first node did not merge in time.
    """
    models = {FOLDER: plan.base, **{f"models/{name}": model for name, model in plan.models.items()}}
    compared = [plan.compared_model] if plan.compared_model else []  # its adapter stays apart: see other_version
    for model in (*models.values(), *compared):
        signature.compare(model)
    prepared = {name: without_adapter(model, Path(plan.work_path) / name, first) for name, model in models.items()}
    others = {name: prepared[f"models/{name}"] for name in plan.models}
    return plan.model_copy(update={"model_path": prepared[FOLDER].path, "models": others})


def without_adapter(model: ModelInput, target: Path, first: bool) -> ModelInput:
    """The model unchanged, or merged with its adapter in `target`; only the first node merges."""
    if model.adapter is None:
        return model
    if first and not manifest.is_complete(target):
        # In a separate process, so that its memory is freed before the run.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(merge, model.path, model.adapter.path, str(target)).result()
    _await(target)
    return ModelInput(path=str(target))


def merge(base: str, adapter: str, target: str) -> None:
    """Merge base and adapter into one model in `target`, with the adapter's tokenizer; complete or absent.

    An adapter of a QLoRA run was fitted to the dequantised 4-bit weights, so it is merged into those.
    """
    with uncollected():
        import torch
        from peft import PeftModel
        from transformers import AutoTokenizer

        from hone_trainer.models import base_model

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    report = json.loads((Path(adapter) / "report.json").read_text())
    quantized = is_for_4_bits(Path(adapter))
    bf16 = report["resolved"]["precision"] == "BFloat16"
    head: base_model.Head = "Reward" if report["plan"]["method"] == "Reward" else "LanguageModel"
    network = base_model.load(
        base_model.open_base(base), bf16=bf16, cpu=True, quantize=quantized, frozen=True, head=head
    )
    if quantized:
        network = network.dequantize()
    merged = PeftModel.from_pretrained(network, adapter).merge_and_unload()
    with folders.work_folder(Path(target).parent) as folder:
        merged.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(adapter, local_files_only=True, trust_remote_code=False)
        tokenizer.save_pretrained(folder)
        for name in ("generation_config.json", "report.json"):
            if (Path(adapter) / name).is_file():
                (folder / name).write_bytes((Path(adapter) / name).read_bytes())
        manifest.write(folder)
        folders.publish(folder, Path(target))


def is_for_4_bits(adapter: Path) -> bool:
    """Whether an exported adapter was trained on a base in 4 bits."""
    report = json.loads((adapter / "report.json").read_text())
    return bool(report["plan"]["adapter"]["type"] == "QLoRA")


def _await(folder: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not manifest.is_complete(folder):
        if time.monotonic() > deadline:
            raise TrainerError(FailureCode.STORAGE_ERROR, f"the first node did not merge the base into {folder}")
        time.sleep(1)
