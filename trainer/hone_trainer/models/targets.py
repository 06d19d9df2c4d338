"""Which modules an adapter is put on. Pure functions over a module tree; no weight is read.

PEFT's own `all-linear` means something else in each family of mixtures of experts: it adapts the router in some, leaves
out the experts in others, and dense layers and shared experts in others again. Here it means the same everywhere:
attention, dense layers, shared experts and all routed experts; a router, or the gate of a shared expert, never.

transformers holds the routed experts of most families as one parameter of three dimensions. PEFT adapts it as such
(`target_parameters`). It also rewrites targets called `gate_proj`, `up_proj` and `down_proj` for some of these
families, and so loses dense layers of that name; we name the weights of those layers as parameters, which it leaves
alone. The tensors in the adapter have the same names and shapes either way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ALL_LINEAR = "all-linear"
ROUTER = re.compile(r"(^|_)(gate|router)$")
"""Last part of the name of what deals tokens to experts, or weighs a shared expert."""
REWRITTEN = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""Names that peft.utils.transformers_weight_conversion takes for experts, wherever they are."""
FUSED_FROM = {
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "w1": "gate_up_proj",
    "w3": "gate_up_proj",
    "w2": "down_proj",
}
"""The parameter that holds what a checkpoint calls by another name."""
LONGEST = 240
"""Characters of a description."""


@dataclass(frozen=True)
class Targets:
    """What PEFT is to adapt."""

    modules: list[str] | str
    parameters: list[str]
    """Weights that are adapted as parameters, as peft matches: the whole name or its end after a dot."""
    experts: bool = False
    """Whether experts that are parameters are adapted: no dropout, DoRA or QLoRA then."""


def choose(network: Any, wanted: list[str] | None) -> Targets:
    """What an adapter is put on.

    Args:
        network: a model, also one on the meta device.
        wanted: names of layers, as peft matches them; None: all but routers and the head.
    """
    fused = expert_parameters(network)
    if not is_mixture(network):
        return Targets(wanted or ALL_LINEAR, [])
    linear = [name for name in linear_modules(network) if wanted is None or any(matches(name, w) for w in wanted)]
    experts = [name for name in fused if wanted is None or any(_matches_experts(name, w) for w in wanted)]
    modules = [name for name in linear if not (fused and _leaf(name) in REWRITTEN)]
    weights = [f"{name}.weight" for name in linear if name not in set(modules)]
    if wanted is None:  # no router shares such an end, so one name stands for all layers
        modules = sorted({_leaf(name) for name in modules})
        weights, experts = sorted({_end(name, 3) for name in weights}), sorted({_end(name, 2) for name in experts})
    return Targets(modules, [*experts, *weights], bool(experts))


def unknown(network: Any, wanted: list[str]) -> list[str]:
    """Names in `wanted` that match nothing which can be adapted."""
    linear, fused = linear_modules(network), expert_parameters(network)
    return [
        w
        for w in wanted
        if not any(matches(name, w) for name in linear) and not any(_matches_experts(name, w) for name in fused)
    ]


def known(network: Any) -> list[str]:
    """Last parts of the names of what can be adapted, sorted."""
    return sorted({_leaf(name) for name in (*linear_modules(network), *expert_parameters(network))})


def half_fused(network: Any, wanted: list[str]) -> list[str]:
    """Names in `wanted` of half a fused parameter, whose other half is not wanted."""
    if not any(name.endswith(".gate_up_proj") for name in expert_parameters(network)):
        return []
    pairs = ({"gate_proj", "up_proj"}, {"w1", "w3"})
    leaves = {_leaf(w) for w in wanted}
    lone = {leaf for pair in pairs if len(pair & leaves) == 1 for leaf in pair & leaves}
    return [w for w in wanted if _leaf(w) in lone and any(_matches_experts(n, w) for n in expert_parameters(network))]


def is_mixture(network: Any) -> bool:
    """Whether a model has experts that tokens are dealt to."""
    return any("experts" in name.split(".") or type(m).__name__.endswith("Experts") for name, m in _modules(network))


def expert_parameters(network: Any) -> list[str]:
    """Names of the parameters that hold all routed experts of a layer: (experts, in, out) or (experts, out, in)."""
    return [
        f"{name}.{own}"
        for name, module in _modules(network)
        if "experts" in name.split(".") or type(module).__name__.endswith("Experts")
        for own, parameter in module.named_parameters(recurse=False)
        if len(getattr(parameter, "ds_shape", parameter.shape)) == 3
    ]


def linear_modules(network: Any) -> list[str]:
    """Names of the linear modules, but the head and, in a mixture of experts, what deals tokens to the experts."""
    import torch

    head, mixture = network.get_output_embeddings(), is_mixture(network)
    return [
        name
        for name, module in _modules(network)
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and name != "score"
        and not (mixture and ROUTER.search(_leaf(name)))
    ]


def adapted(network: Any) -> Counter[str]:
    """How many modules of each name have an adapter."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    found: Counter[str] = Counter()
    for name, module in _modules(network):
        if isinstance(module, ParamWrapper):
            path = name.replace(".base_layer", "")
            own = module.parameter_name
            found[_leaf(path) if own == "weight" else f"{_leaf(path)}.{own}"] += 1
        elif isinstance(module, LoraLayer):
            found[_leaf(name)] += 1
    return found


def described(network: Any) -> dict[str, int | str]:
    """The adapted modules for a status: their number, and how many of each name, most first."""
    found = adapted(network)
    if not found:
        return {}
    words = ", ".join(f"{name} {count}" for name, count in found.most_common())
    words = words if len(words) <= LONGEST else f"{words[: LONGEST - 4].rsplit(',', 1)[0]}, …"
    return {"adaptedModules": found.total(), "adaptedLayers": words}


def matches(name: str, wanted: str) -> bool:
    """As peft matches: the whole name or its end after a dot."""
    return name == wanted or name.endswith(f".{wanted}")


def _matches_experts(name: str, wanted: str) -> bool:
    """By its own name, that of its module, or the names that its halves have in a checkpoint."""
    container, leaf = name.rsplit(".", 1)
    *path, last = wanted.split(".")
    renamed = ".".join([*path, FUSED_FROM[last]]) if FUSED_FROM.get(last) == leaf else wanted
    return matches(name, renamed) or matches(container, wanted)


def _modules(network: Any) -> Iterator[tuple[str, Any]]:
    return iter(network.named_modules())


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _end(name: str, parts: int) -> str:
    return ".".join(name.split(".")[-parts:])
