"""Chooses the modules that get an adapter. Pure functions over a module tree; no weight is read.

PEFT's own `all-linear` differs between families of mixtures of experts: in some it adapts the router, in others it
skips the experts, in others the dense layers and shared experts. Here it means the same everywhere: attention, dense
layers, shared experts and all routed experts, but never a router or the gate of a shared expert.

transformers stores the routed experts of most families as one parameter with three dimensions. PEFT adapts it as such
(`target_parameters`). For some of these families PEFT also rewrites targets called `gate_proj`, `up_proj` and
`down_proj` and thereby loses dense layers with these names; we name the weights of those layers as parameters, which
PEFT does not rewrite. The tensors in the adapter have the same names and shapes either way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hone_trainer.models.network import Generating

ALL_LINEAR = "all-linear"
ROUTER = re.compile(r"(^|_)(gate|router)$")
"""Last part of the name of a router, or of the gate of a shared expert."""
REWRITTEN = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""Names that peft.utils.transformers_weight_conversion treats as experts, wherever they are."""
FUSED_FROM = {
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "w1": "gate_up_proj",
    "w3": "gate_up_proj",
    "w2": "down_proj",
}
"""The parameter for a name that only checkpoints use."""
GROUPED = "GroupedLinear"
"""Linear layers, by the end of their name, that multiply groups of inputs: an adapter would have the wrong shape."""
READ_DIRECTLY = frozenset({"out_proj", "dt_proj"})
"""Layers of a Mamba mixer whose weights it reads itself, past an adapter around them; PEFT refuses `out_proj`."""
LONGEST = 240
"""Maximum characters of a description."""


@dataclass(frozen=True)
class Targets:
    """The modules and parameters that PEFT is to adapt."""

    modules: list[str] | str
    parameters: list[str]
    """Weights that are adapted as parameters, matched like in peft: the whole name, or its end after a dot."""
    experts: bool = False
    """Whether experts that are parameters are adapted: this excludes dropout, DoRA and QLoRA."""


def choose(network: Generating, wanted: list[str] | None) -> Targets:
    """Choose what an adapter is put on.

    Args:
        network: a model, possibly on the meta device.
        wanted: names of layers, matched like in peft; None: all except routers and the head.
    """
    fused, every = expert_parameters(network), [name for name, _ in _modules(network)]
    linear = [name for name in linear_modules(network) if wanted is None or any(matches(name, w) for w in wanted)]
    if not is_mixture(network):
        is_narrow = len(linear_modules(network, everywhere=True)) > len(linear_modules(network))
        return Targets(_shortened(linear, every) if is_narrow else wanted or ALL_LINEAR, [])
    experts = [name for name in fused if wanted is None or any(_matches_experts(name, w) for w in wanted)]
    modules = [name for name in linear if not (fused and _leaf(name) in REWRITTEN)]
    weights = [f"{name}.weight" for name in linear if name not in set(modules)]
    if wanted is None:  # no router's name ends like this, so one name covers all layers
        modules = _shortened(modules, every)
    if wanted is None and text_part(network) is None:
        weights, experts = sorted({_end(name, 3) for name in weights}), sorted({_end(name, 2) for name in experts})
    return Targets(modules, [*experts, *weights], bool(experts))


def unknown(network: Generating, wanted: list[str]) -> list[str]:
    """Names in `wanted` that match nothing adaptable."""
    linear, fused = linear_modules(network), expert_parameters(network)
    return [
        w
        for w in wanted
        if not any(matches(name, w) for name in linear) and not any(_matches_experts(name, w) for name in fused)
    ]


def adaptable_names(network: Generating) -> list[str]:
    """Last parts of the names of all adaptable modules, sorted."""
    return sorted({_leaf(name) for name in (*linear_modules(network), *expert_parameters(network))})


def half_fused(network: Generating, wanted: list[str]) -> list[str]:
    """Names in `wanted` for half of a fused parameter whose other half is not wanted."""
    if not any(name.endswith(".gate_up_proj") for name in expert_parameters(network)):
        return []
    pairs = ({"gate_proj", "up_proj"}, {"w1", "w3"})
    leaves = {_leaf(w) for w in wanted}
    lone = {leaf for pair in pairs if len(pair & leaves) == 1 for leaf in pair & leaves}
    return [w for w in wanted if _leaf(w) in lone and any(_matches_experts(n, w) for n in expert_parameters(network))]


def is_mixture(network: Generating) -> bool:
    """Whether a model is a mixture of experts."""
    return any("experts" in name.split(".") or type(m).__name__.endswith("Experts") for name, m in _modules(network))


def expert_parameters(network: Generating) -> list[str]:
    """Names of the parameters that hold all routed experts of a layer: (experts, in, out) or (experts, out, in)."""
    part = text_part(network)
    return [
        f"{name}.{own}"
        for name, module in _modules(network)
        if is_below(name, part) and ("experts" in name.split(".") or type(module).__name__.endswith("Experts"))
        for own, parameter in module.named_parameters(recurse=False)
        if len(getattr(parameter, "ds_shape", parameter.shape)) == 3
    ]


def linear_modules(network: Generating, *, everywhere: bool = False) -> list[str]:
    """Names of the linear modules, except the head and, in a mixture of experts, the routers.

    Args:
        everywhere: also those that text does not pass through, those that a mixer reads past an adapter, and those
            that multiply groups.
    """
    import torch
    from transformers.pytorch_utils import Conv1D  # the linear layer of GPT-2

    head, mixture = network.get_output_embeddings(), is_mixture(network)
    part, past = text_part(network), set[str]() if everywhere else _read_directly(network)
    return [
        name
        for name, module in _modules(network)
        if isinstance(module, torch.nn.Linear | Conv1D)
        and module is not head
        and name != "score"
        and not (mixture and ROUTER.search(_leaf(name)))
        and (everywhere or (is_below(name, part) and not type(module).__name__.endswith(GROUPED)))
        and name not in past
    ]


def text_part(network: Generating) -> str | None:
    """Name of the module that computes text in a model that also takes images or sound; None: all of it does."""
    text = network.config.get_text_config()
    if text is network.config:
        return None
    parts = (name for name, module in _modules(network) if type(getattr(module, "config", None)) is type(text))
    return next(parts, None)


def freeze_other_parts(network: Generating) -> None:
    """Leave weights that text does not pass through as they are: those of other kinds of input."""
    part, head = text_part(network), network.get_output_embeddings()
    of_head = {id(weight) for weight in head.parameters()} if head is not None else set[int]()
    for name, weight in network.named_parameters():
        if not is_below(name, part) and id(weight) not in of_head:
            weight.requires_grad_(False)


def is_below(name: str, part: str | None) -> bool:
    """Whether a module or parameter is in the module `part`; everything is in None."""
    return part is None or name.startswith(f"{part}.")


def _read_directly(network: Generating) -> set[str]:
    return {
        f"{name}.{own}"
        for name, module in _modules(network)
        if hasattr(module, "ssm_state_size")
        for own, _ in module.named_children()
        if own in READ_DIRECTLY
    }


def _shortened(names: list[str], every: list[str]) -> list[str]:
    """The last parts of the names, if they match no other module of a network; else the names."""
    leaves = {_leaf(name) for name in names}
    return sorted(leaves if all(_leaf(name) not in leaves for name in set(every) - set(names)) else names)


def count_adapted(network: Generating) -> Counter[str]:
    """Number of modules with an adapter, by name."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    counts: Counter[str] = Counter()
    for name, module in _modules(network):
        if isinstance(module, ParamWrapper):
            path = name.replace(".base_layer", "")
            own = module.parameter_name
            counts[_leaf(path) if own == "weight" else f"{_leaf(path)}.{own}"] += 1
        elif isinstance(module, LoraLayer):
            counts[_leaf(name)] += 1
    return counts


def describe(network: Generating) -> dict[str, int | str]:
    """The adapted modules for a status: their number, and the count for each name, highest first."""
    counts = count_adapted(network)
    if not counts:
        return {}
    words = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    words = words if len(words) <= LONGEST else f"{words[: LONGEST - 4].rsplit(',', 1)[0]}, …"
    return {"adaptedModules": counts.total(), "adaptedLayers": words}


def matches(name: str, wanted: str) -> bool:
    """Match like peft: the whole name, or its end after a dot."""
    return name == wanted or name.endswith(f".{wanted}")


def _matches_experts(name: str, wanted: str) -> bool:
    """Match by the parameter's own name, its module's name, or the names that its halves have in a checkpoint."""
    container, leaf = name.rsplit(".", 1)
    *path, last = wanted.split(".")
    renamed = ".".join([*path, FUSED_FROM[last]]) if FUSED_FROM.get(last) == leaf else wanted
    return matches(name, renamed) or matches(container, wanted)


def _modules(network: Generating) -> Iterator[tuple[str, Any]]:
    return iter(network.named_modules())


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _end(name: str, parts: int) -> str:
    return ".".join(name.split(".")[-parts:])
