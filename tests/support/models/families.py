"""Tiny random models, one of each family that the tests hold Hone to, and the page that says what was seen of each.

`PYTHONPATH=tests python -m support.models.families` trains, exports and serves all of them,
one after the other, and writes the page.
"""

from __future__ import annotations

import re
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "bos_token_id": 1,
}
"""Heads of 32, and matrices of multiples of 32, which vLLM's kernels for CPUs ask for."""
_ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GROUPED = {**_ROUTED, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_GATED = {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}
"""In the config of DeepSeek's checkpoints; vLLM asks for it, transformers takes it for granted."""
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 32, "v_head_dim": 32}
_GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64}
Family = tuple[str, dict[str, Any]]
MIXTURES: dict[str, Family] = {
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**_ROUTED, "num_experts": 4, "shared_expert_intermediate_size": 64, "mlp_only_layers": [0]},
    ),
    "qwen3_moe": ("Qwen3MoeConfig", {**_ROUTED, "num_experts": 4, "head_dim": 32, "mlp_only_layers": [0]}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "olmoe": ("OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v3": ("DeepseekV3Config", {**_GROUPED, **_GATED, **_LATENT}),
    "glm4_moe": ("Glm4MoeConfig", {**_GROUPED, "head_dim": 32}),
    "gpt_oss": ("GptOssConfig", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32}),
}
"""Config class of transformers and its sizes, by model type. Layer 0 is dense where the family has dense layers."""
DENSE: dict[str, Family] = {
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "gemma2": ("Gemma2Config", _GEMMA),
    "gemma3_text": ("Gemma3TextConfig", _GEMMA),
    "phi3": ("Phi3Config", {}),
}
FAMILIES = {**DENSE, **MIXTURES}


def config(family: str) -> Any:
    """Config of a model of two layers; a mixture has four experts."""
    import transformers

    kind, sizes = FAMILIES[family]
    return getattr(transformers, kind)(**SIZES, **sizes)


def build(family: str, sizes: Any = None) -> Any:
    """The model with random weights, the same for each call.

    Args:
        sizes: a config in place of the family's.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(sizes or config(family))


def adapted_layers(family: str) -> list[str]:
    """Names of the layers that an adapter without targets is put on."""
    from hone_trainer.models import adapters, targets

    network = adapters.without_weights(config(family))
    chosen = targets.choose(network, None)
    if chosen.modules == targets.ALL_LINEAR:
        return targets.adaptable_names(network)
    return [*chosen.modules, *(name.removesuffix(".weight") for name in chosen.parameters)]


# -- the page --------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[3] / "docs/reference/families.md"
START, END = "<!-- families: generated -->\n", "<!-- end of families -->\n"
HEAD = """\
| Model type | Layers with an adapter | Exported | Merged model | Adapter, attention | Adapter, all layers |
| --- | --- | --- | --- | --- | --- |
"""


def start_of_row(family: str) -> str:
    """What needs no vLLM."""
    return f"| `{family}` | {', '.join(f'`{name}`' for name in adapted_layers(family))} | adapter, merged |"


def row(family: str, seen: Any) -> str:
    """A line of the table; `seen` is from `serving_families.look`."""
    return f"{start_of_row(family)} {seen.merged} | {seen.attention} | {seen.everything} |"


def rows_of_page() -> dict[str, str]:
    """The lines of the table as they stand, by family."""
    table = PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    return {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` .*$", table, re.M)}


def write_page(rows: list[str], versions: str) -> None:
    """Put the table on its page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    seen_with = textwrap.fill(f"Seen with {versions}.", 120, break_on_hyphens=False)
    table = HEAD + "\n".join(rows) + f"\n\n{seen_with}\n"
    PAGE.write_text(f"{before}{START}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> None:
    """Look at every family, or only at those named; the page is written once all were seen."""
    from support.models import serving_families

    print(versions := serving_families.versions())
    with tempfile.TemporaryDirectory() as folder:
        seen = serving_families.look(sys.argv[1:] or list(FAMILIES), Path(folder))
    rows = [row(family, found) for family, found in seen.items()]
    print("\n".join(rows))
    if not sys.argv[1:]:
        write_page(rows, versions)


if __name__ == "__main__":
    main()
