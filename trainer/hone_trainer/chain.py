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

from hone_api.plan import TrainingPlan
from hone_trainer import manifest, store
from hone_trainer.errors import TrainerError

FOLDER = "base"
"""Name of the merged base in the run's work folder."""
WAIT_SECONDS = 900
"""How long the other nodes wait for the first one's merge."""


def prepare(plan: TrainingPlan, first: bool) -> TrainingPlan:
    """The plan with a base that loads by itself; before any rank starts.

    Args:
        first: whether this is the first node, which merges; the others wait for it.

    Raises:
        StoreError: ManifestMismatch, when a ModelVersion is no longer what was pinned.
        TrainerError: StorageError, when the first node did not merge in time.
    """
    folders = [(plan.model_path, plan.model_digest), *((m.path, m.digest) for m in plan.models.values())]
    adapters = [a for a in (plan.model_adapter, *(m.adapter for m in plan.models.values())) if a]
    for path, digest in [*folders, *((a.path, a.digest) for a in adapters)]:
        if digest is not None:
            manifest.check(path, digest)
    if plan.model_adapter is None:
        return plan
    target = Path(plan.work_path) / FOLDER
    if first and not manifest.is_complete(target):
        # In a process of its own: its memory is not the run's.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(merge, plan.model_path, plan.model_adapter.path, str(target)).result()
    _await(target)
    return plan.model_copy(update={"model_path": str(target)})


def merge(base: str, adapter: str, target: str) -> None:
    """Write base and adapter as one model to `target`, with the adapter's tokenizer; complete or not at all.

    An adapter of a QLoRA run was fitted to the dequantised 4-bit weights, so it is merged into those.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    from hone_trainer import model

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    report = json.loads((Path(adapter) / "report.json").read_text())
    quantized = report["plan"]["adapter"]["type"] == "QLoRA"
    bf16 = report["resolved"]["precision"] == "BFloat16"
    network = model.load(model.open_base(base), bf16=bf16, cpu=True, quantize=quantized, frozen=True)
    if quantized:
        network = network.dequantize()
    merged = PeftModel.from_pretrained(network, adapter).merge_and_unload()
    with store.work_folder(Path(target).parent) as folder:
        merged.save_pretrained(folder)
        AutoTokenizer.from_pretrained(adapter, local_files_only=True).save_pretrained(folder)
        for name in ("generation_config.json", "report.json"):
            if (Path(adapter) / name).is_file():
                (folder / name).write_bytes((Path(adapter) / name).read_bytes())
        manifest.write(folder)
        store.publish(folder, Path(target))


def _await(folder: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not manifest.is_complete(folder):
        if time.monotonic() > deadline:
            raise TrainerError("StorageError", f"the first node did not merge the base into {folder}")
        time.sleep(1)
