"""Whether the files of a foreign model are the weights that its config.json asks for."""

from __future__ import annotations

import json
from pathlib import Path


def problems(folder: Path) -> list[str]:
    """Weights that are missing in the files, or have another size; by the files' headers alone.

    A model that is quantised is not compared: its weights have other names and sizes than the config says.
    """
    from transformers import AutoModelForCausalLM

    if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config"):
        return []
    _, loading = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map="meta",
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    missing = [f"{name} is missing" for name in sorted(loading["missing_keys"])]
    sizes = [
        f"{name} has the size {tuple(ours)}, not {tuple(asked)}" for name, ours, asked in loading["mismatched_keys"]
    ]
    return [*missing, *sizes]
