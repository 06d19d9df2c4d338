"""What PEFT scales layer by layer, or stores next to an adapter, becomes what servers read: one rank, one scale."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hone_trainer.artifacts import servable
from hone_trainer.artifacts.importing.adapter import FOLDED

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_EMBEDDING, _HEAD = "embed_tokens.weight", "lm_head.weight"


def fold(folder: Path, base: Any) -> None:
    """Multiply `lora_B` of each layer by the scale that PEFT has for it, and pad all layers with zeros to the largest
    rank, if the config has scales or ranks of single layers. Nothing is lost: a scaled tensor is kept in float32.

    Args:
        folder: an adapter that fits its base.
        base: config of the base.

    Raises:
        ValueError: patterns for experts that are one parameter, whose layers have no rank of their own.
    """
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    if not any(config.get(name) for name in FOLDED):
        return
    if config.get("target_parameters"):
        raise ValueError(f"{' and '.join(FOLDED)} together with target_parameters: merge the adapter first")
    scales = servable.scales(folder, base)
    tensors, rank = _read(folder), max(layer.rank for layer in scales.values())
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".lora_")
        if layer in scales and part.startswith(("A", "embedding_A")):
            tensors[name] = _padded(tensor, (rank, tensor.shape[1]))
        elif layer in scales and part.startswith(("B", "embedding_B")):
            tensors[name] = _padded(tensor.float() * scales[layer].scale, (tensor.shape[0], rank))
    _write(folder, tensors)
    config |= {**{name: {} for name in FOLDED}, "r": rank, "lora_alpha": rank, "use_rslora": False}
    (folder / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def drop_base_weights(folder: Path, base: Path) -> None:
    """Drop the weights of embedding and head that PEFT stores next to an adapter of them and that are the base's own.

    A tensor that differs stays, and is then none that the adapter's config asks for.
    """
    tensors = _read(folder)
    stored = {name: _base_name(name) for name in tensors if ".lora_" not in name}
    if not stored:
        return
    own = _ends(base, {_end(name) for name in stored.values()})
    same = [name for name, layer in stored.items() if _is_equal(tensors[name], own.get(_end(layer)))]
    if same:
        _write(folder, {name: tensor for name, tensor in tensors.items() if name not in same})


def _base_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _end(name: str) -> str:
    """The last two parts, e.g. embed_tokens.weight: families differ in what is before them."""
    return ".".join(name.split(".")[-2:])


def _ends(base: Path, ends: Collection[str]) -> dict[str, Any]:
    """The base's tensors whose names end so; a head that is not stored is the embedding."""
    from safetensors import safe_open

    tensors: dict[str, Any] = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            names = [name for name in opened.keys() if _end(name) in {*ends, _EMBEDDING}]  # noqa: SIM118 - not a dict
            tensors |= {_end(name): opened.get_tensor(name) for name in names}
    return {_HEAD: tensors[_EMBEDDING], **tensors} if _EMBEDDING in tensors else tensors


def _is_equal(tensor: Any, own: Any) -> bool:
    return own is not None and tensor.shape == own.shape and bool((tensor == own.to(tensor.dtype)).all())


def _padded(tensor: Any, shape: tuple[int, int]) -> Any:
    padded = tensor.new_zeros(shape)
    padded[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded


def _read(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / _WEIGHTS))


def _write(folder: Path, tensors: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), folder / f"{_WEIGHTS}.new", metadata={"format": "pt"})
    (folder / f"{_WEIGHTS}.new").replace(folder / _WEIGHTS)
