"""The weights of a model: none is missing, has another shape or is unknown to the model.

transformers fills weights that it does not find with random numbers, drops those that the model does not have, and
prints a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.errors import SourceError, TrainerError, classify

PLAIN = {"F64", "F32", "F16", "BF16"}
"""Types of tensors that are not quantised. Files of every quantisation have others, too."""
NO_WEIGHTS = (".attn.bias", ".masked_bias", ".inv_freq", ".causal_mask", ".cos_cached", ".sin_cached")
"""Ends of the names of constants that older releases of transformers stored with the weights, and that are computed
now: causal masks and the angles of positions."""
SHOWN = 5
"""Weights that a message names."""


@contextmanager
def naming_foreign_errors(folder: Path, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Any error of a library that reads the files in `folder` is UnsupportedModel: libraries report a file that they do
    not expect by errors of any class. Errors of memory and disks keep their code.

    Args:
        but: classes of errors that the files do not explain.
    """
    try:
        yield
    except but:
        raise
    except Exception as error:
        if classify(error).code is not FailureCode.TRAINER_ERROR:
            raise
        words = " ".join(str(error).split())[:600]
        if not isinstance(error, ValueError | OSError):
            words = f"{type(error).__name__}: {words}"
        raise TrainerError(FailureCode.UNSUPPORTED_MODEL, f"{folder}: {words}") from error


def load(kind: Any, folder: Path, *, new_head: bool = False, **options: Any) -> Any:
    """The model with the weights in `folder`.

    Args:
        kind: auto class of transformers.
        new_head: whether the head may be new, and the files' own head is not used.
        options: for `from_pretrained`.

    Raises:
        TrainerError: UnsupportedModel, naming the first weights that do not fit.
    """
    import torch

    # Errors of the GPU and of other ranks are not the files'.
    others = (torch.AcceleratorError,) if ranks.world_size() == 1 else (RuntimeError,)
    with naming_foreign_errors(folder, but=others):
        network, report = kind.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    if wrong := list(_problems(network, report, new_head)):
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise TrainerError(
            FailureCode.UNSUPPORTED_MODEL,
            f"{folder}: the files are not the weights of the model in config.json: {', '.join(wrong[:SHOWN])}{more}. "
            + _way_out(network, report, len(wrong)),
        )
    if generation := getattr(network, "generation_config", None):
        repair_generation(generation)
    return network


def repair_generation(config: Any) -> None:
    """Have a generation config that sets how to sample also say that it samples: transformers reads the contradiction,
    which many models have, but does not write it."""
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True


def check(kind: Any, folder: Path, config: Any, *, new_head: bool = False) -> None:
    """The check of `load`, by the headers of the files alone. A quantised model has other tensors than its config says,
    so it is checked only when it is loaded.

    Raises:
        SourceError: UnsafeModel.
        TrainerError: UnsupportedModel.
    """
    types = check_files(folder)
    with naming_foreign_errors(folder):
        layers, tensors = getattr(config.get_text_config(), "num_hidden_layers", None), len(types)
        if layers is not None and not 0 < layers <= tensors:
            raise ValueError(f"config.json has num_hidden_layers {layers}, and the files have {tensors} tensors")
        if getattr(config, "quantization_config", None) is None:
            load(kind, folder, new_head=new_head, device_map="meta")
        elif PLAIN.issuperset(types.values()):
            raise ValueError("config.json has a quantization_config, and the files have plain weights: remove it")
        rounded = (name for name, type in types.items() if type.startswith("F8") and name.endswith("weight"))
        if bare := [name for name in rounded if not {f"{name}_scale_inv", f"{name}_scale"} & types.keys()]:
            raise ValueError(f"no scale for {', '.join(bare[:SHOWN])}: copy the model again")


def _problems(network: Any, report: dict[str, Any], new_head: bool) -> Iterator[str]:
    body = f"{network.base_model_prefix}."
    buffers = {name for name, _ in network.named_buffers()}
    buffers |= {name.removeprefix(body) for name in buffers}
    for name in sorted(report["missing_keys"]):
        if not (new_head and not name.startswith(body)):
            yield f"{name} is missing"
    for name, ours, asked in sorted(report["mismatched_keys"]):
        yield f"{name} has the size {tuple(ours)}, not {tuple(asked)}"
    for name in sorted(report["unexpected_keys"]):
        if not (name in buffers or name.endswith(NO_WEIGHTS)) and not (new_head and not name.startswith(body)):
            yield f"{name} is not a weight of the model"
    yield from report["error_msgs"]


def _way_out(network: Any, report: dict[str, Any], wrong: int) -> str:
    parts = {name for name, _ in network.named_children()}
    # Nothing else is wrong but what is of no part of the model: a head that training left, such as TRL's v_head.
    if wrong == sum(name.partition(".")[0] not in parts for name in report["unexpected_keys"]):
        kind = type(network).__name__
        return f"`{kind}.from_pretrained(folder).save_pretrained(folder)` of transformers writes the model without them"
    return "Copy the model again, with every file as its makers published it"


def check_files(folder: Path) -> dict[str, str]:
    """Read the header of every safetensors file, and check that all shards of an index are files next to it. Hidden
    files are not read: macOS writes `._model.safetensors` next to a file on a foreign disk.

    Returns:
        The type of each tensor.

    Raises:
        SourceError: UnsafeModel.
    """
    types: dict[str, str] = {}
    for path in sorted(folder.glob("[!.]*.safetensors")):
        try:
            types.update(_types(path))
        except (OSError, ValueError, RecursionError) as error:
            raise SourceError(FailureCode.UNSAFE_MODEL, f"{path.name} is not a safetensors file: {error}") from None
    here = {path.name for path in folder.glob("[!.]*.safetensors")}
    for index in sorted(folder.glob("*.safetensors.index.json")):  # not of pickles
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise SourceError(FailureCode.UNSAFE_MODEL, f"{index.name} is not an index of safetensors files") from None
        if missing := sorted(str(name)[:80] for name in shards - here):
            raise SourceError(
                FailureCode.UNSAFE_MODEL,
                f"{index.name} names what is not a safetensors file next to it: {', '.join(missing[:SHOWN])}",
            )
    return types


def _types(path: Path) -> dict[str, str]:
    """The type of each tensor in a safetensors file. A name that stands twice is an error: readers take one or the
    other."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=_unique)
    return {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(unique := dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice in its header")
    return unique
