"""The base of a stage in a chain: checked against what was pinned, and merged where its ModelVersion is an adapter.

An adapter on an adapter is no model that tools load, and the second one's reference would not be the first stage. So
the earlier adapter is merged into its base first, the run trains on whole weights, and exports whole weights, too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from hone_api.plan import ModelInput, TrainingPlan
from hone_trainer.errors import TrainerError
from hone_trainer.store import folders, manifest

FOLDER = "base"
"""Name of the merged base in the run's work folder."""
WAIT_SECONDS = 900
"""How long the other nodes wait for the first one's merge."""


def prepare(plan: TrainingPlan, first: bool) -> TrainingPlan:
    """The plan with models that load by themselves; before any rank starts.

    Args:
        first: whether this is the first node, which merges; the others wait for it.

    Raises:
        StoreError: ManifestMismatch, when a file of a model is no longer what was pinned, or is not
            listed: every file is hashed, once a node.
        TrainerError: StorageError, when the first node did not merge in time.
    """
    base = ModelInput(path=plan.model_path, digest=plan.model_digest, adapter=plan.model_adapter)
    models = {FOLDER: base, **{f"models/{name}": model for name, model in plan.models.items()}}
    for model in models.values():
        if model.digest is not None:
            manifest.verify(model.path, model.digest)
        if model.adapter is not None:
            manifest.verify(model.adapter.path, model.adapter.digest)
    found = {name: whole(model, Path(plan.work_path) / name, first) for name, model in models.items()}
    others = {name: found[f"models/{name}"] for name in plan.models}
    return plan.model_copy(update={"model_path": found[FOLDER].path, "models": others})


def whole(model: ModelInput, target: Path, first: bool) -> ModelInput:
    """The model as it is, or merged with its adapter in `target`; only the first node merges."""
    if model.adapter is None:
        return model
    if first and not manifest.is_complete(target):
        # In a process of its own: its memory is not the run's.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(merge, model.path, model.adapter.path, str(target)).result()
    _await(target)
    return ModelInput(path=str(target))


def merge(base: str, adapter: str, target: str) -> None:
    """Write base and adapter as one model to `target`, with the adapter's tokenizer; complete or not at all.

    An adapter of a QLoRA run was fitted to the dequantised 4-bit weights, so it is merged into those.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    from hone_trainer.models import base_model

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    report = json.loads((Path(adapter) / "report.json").read_text())
    quantized = report["plan"]["adapter"]["type"] == "QLoRA"
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


def _await(folder: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not manifest.is_complete(folder):
        if time.monotonic() > deadline:
            raise TrainerError("StorageError", f"the first node did not merge the base into {folder}")
        time.sleep(1)
