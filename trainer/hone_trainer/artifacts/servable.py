"""Makes an exported adapter loadable for other tools: the name of its base, and the tensor names that PEFT expects."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hone_api.blocks.training import Adapter
from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.models import adapters
from hone_trainer.models.base_model import Head
from hone_trainer.models.network import Generating
from hone_trainer.models.whole import whole_models


def base_name(uri: str) -> str:
    """The name of a base model for adapter_config.json.

    For hf:// `owner/name`, which tools resolve and servers serve. For pvc:// the path in the volume, e.g.
    `/models/llama`:
    a server either has the volume mounted there, or serves the base under that name.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "hf":
        return rest.split("@")[0]
    if scheme == "pvc":
        return f"/{rest.partition('/')[2].strip('/')}"
    return uri


_ADAPTER = "default"
"""PEFT's name of the only adapter."""
STORED = {
    "mixtral": (".mlp.experts.", ".block_sparse_moe.experts."),
    "laguna": (".mlp.shared_experts.", ".mlp.shared_expert."),
}
"""By model type: names that differ between memory (transformers 5) and checkpoints, whose names vLLM uses. Of laguna,
transformers also renames the names in memory, to names that nothing has."""


def as_stored(tensors: dict[str, Any], base: Any) -> dict[str, Any]:
    """The tensors of an adapter under the names of a checkpoint, which PEFT also accepts.

    vLLM loads an adapter of Mixtral by the names in memory, and silently skips the experts.

    Args:
        base: config of the base model.
    """
    own, stored = STORED.get(base.model_type, ("", ""))
    return {name.replace(own, stored): tensor for name, tensor in tensors.items()} if own else tensors


def rehearse(adapter: Adapter, base: Any, head: Head) -> None:
    """Check that PEFT loads an adapter of this kind, by one of rank 1 with random weights.

    Raises:
        TrainerError: ModelUnsuitable, naming the first tensors that it does not load.
    """
    import torch
    from safetensors.torch import save_file

    small, base = adapter.model_copy(update={"rank": 1}), copy.deepcopy(base)
    with tempfile.TemporaryDirectory(prefix="hone-rehearsal-") as name:
        folder = Path(name)
        adapters.to_peft(small, adapters.without_weights(base), head).save_pretrained(name)
        shapes = {name: tensor.shape for name, tensor in _state(_network(folder, base, head)).items()}
        tensors = as_stored({name: torch.randn(shape) for name, shape in shapes.items()}, base)
        save_file(tensors, folder / "adapter_model.safetensors")
        wrong = problems(folder, base, head)
    if wrong:
        message = (
            f"PEFT does not load an adapter of a {base.model_type} again ({'; '.join(wrong[:5])}): set adapter.targets "
            "without these layers, or adapter.type None"
        )
        raise TrainerError(FailureCode.MODEL_UNSUITABLE, message)


def check(folder: Path, base: Any, head: Head) -> None:
    """Check that PEFT loads the adapter in `folder`, see `problems`.

    Raises:
        TrainerError: naming the first tensors that are wrong.
    """
    if wrong := problems(folder, base, head):
        raise TrainerError(FailureCode.TRAINER_ERROR, f"PEFT cannot load the exported adapter: {'; '.join(wrong[:5])}")


def problems(folder: Path, base: Any, head: Head) -> list[str]:
    """Why PEFT does not load the adapter in `folder`: all of its tensors, by name and shape, and each one's values.

    Everything is read from the folder. The base is created on the meta device, so none of its weights is read and any
    size
    of model works. A separate process would take 15 s at each export to import the libraries; instead, what this
    process
    changed in them is restored (`whole_models`), and the tests load an export in a fresh process.

    Args:
        base: config of the base model.
    """
    from safetensors import safe_open

    network = _network(folder, base, head)
    expected = as_stored({name: tuple(tensor.shape) for name, tensor in _state(network).items()}, base)
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    tensors = as_stored(shapes, base)
    wrong = [
        f"{name}: {_words(tensors.get(name))}, PEFT expects {_words(expected.get(name))}"
        for name in sorted(tensors.keys() | expected.keys())
        if tensors.get(name) != expected.get(name)
    ]
    return wrong or _not_loaded(folder, network, base)


def _not_loaded(folder: Path, network: Generating, base: Any) -> list[str]:
    """The file's tensors that differ in the network after PEFT has loaded the file as PeftModel.from_pretrained
    does."""
    import torch
    from peft import set_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights

    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None and weight.requires_grad:
                empty = torch.full_like(weight, torch.nan, device="cpu")
                module._parameters[name] = torch.nn.Parameter(empty)
    stored = load_peft_weights(str(folder), device="cpu")
    set_peft_model_state_dict(network, dict(stored))
    loaded, stored = as_stored(_state(network), base), as_stored(stored, base)
    return [
        f"{name}: not what the file has"
        for name, tensor in stored.items()
        if loaded[name].is_meta or not torch.equal(loaded[name], tensor.to(loaded[name].dtype))
    ]


class LayerScale(NamedTuple):
    """How PEFT computes the update of one layer."""

    rank: int
    scale: float


def scales(folder: Path, base: Any) -> dict[str, LayerScale]:
    """What PEFT makes of the config in `folder`, by the layer's name in the adapter's weights."""
    from peft.tuners.lora import LoraLayer

    return {
        name: LayerScale(module.r[_ADAPTER], float(module.scaling[_ADAPTER]))
        for name, module in _network(folder, base, "LanguageModel").named_modules()
        if isinstance(module, LoraLayer)
    }


def _state(network: Generating) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    state: dict[str, Any] = get_peft_model_state_dict(network, save_embedding_layers=False)
    return state


def _network(folder: Path, base: Any, head: Head) -> Any:
    """The model with the adapter that its config describes, without values."""
    from accelerate import init_empty_weights
    from peft import PeftConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind: Any = AutoModelForCausalLM
    if head == "Reward":
        kind, base = AutoModelForSequenceClassification, copy.deepcopy(base)
        base.num_labels = 1
    with whole_models(), init_empty_weights():
        network = kind.from_config(base, trust_remote_code=False)
        settings = PeftConfig.from_pretrained(str(folder))
        settings.inference_mode = False  # so that the adapter's weights can be distinguished from the base's
        return get_peft_model(network, settings)


def _words(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else "x".join(map(str, shape))
