"""The sizes of a language model, from its config.json and the headers of its weights: what an estimate needs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from hone_api.base.meta import MAX_COUNT, ApiModel, ShortText

UNGATED = frozenset(
    {"gpt2", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "starcoder2", "gpt_bigcode", "codegen", "xglm", "mpt"}
)
"""Model types whose feed-forward has two matrices; all others also have a gate."""


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")
"""Config keys for the number of routed experts in a layer."""
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
"""Config keys for the number of them that a token is sent to."""


LONGEST_TYPE = 128
"""Characters of a model type that is recorded."""


class LatentAttention(ApiModel):
    """Attention whose keys and values are compressed into one latent (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""

    query_rank: int = Field(
        default=0, ge=0, le=10_000_000, description="Width of compressed queries; 0: not compressed."
    )
    rank: int = Field(ge=1, le=10_000_000, description="Width of the latent.")
    rotary: int = Field(ge=0, le=10_000_000, description="Width of the part of the keys that all heads share.")
    expanded: int = Field(ge=1, le=10_000_000, description="Width after expansion of the latent, over all heads.")
    value: int = Field(ge=1, le=10_000_000, description="Width of all values.")


class ModelShape(ApiModel):
    """A causal transformer. Widths are in numbers per token."""

    parameters: int = Field(ge=1, le=MAX_COUNT, description="Total number of weights.")
    layers: int = Field(ge=1, le=100_000, description="Transformer layers.")
    hidden: int = Field(ge=1, le=10_000_000, description="Width of the residual stream.")
    query: int = Field(ge=1, le=10_000_000, description="Width of all queries: heads x head size.")
    key_value: int = Field(ge=1, le=10_000_000, description="Width of all keys; the values have the same width.")
    intermediate: int = Field(
        ge=1, le=100_000_000, description="Width of the feed-forward; for experts, the total width that a token uses."
    )
    experts: int = Field(default=0, ge=0, le=1_000_000, description="Routed experts per layer; 0 if none.")
    expert_width: int = Field(default=0, ge=0, le=100_000_000, description="Width of one routed expert.")
    routed: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Weights of all routed experts in the files; absent: not counted."
    )
    shared_width: int = Field(default=0, ge=0, le=100_000_000, description="Width of the shared experts per layer.")
    dense_layers: int = Field(
        default=0, ge=0, le=100_000, description="Layers without experts in a mixture of experts."
    )
    dense_width: int = Field(default=0, ge=0, le=100_000_000, description="Width of the feed-forward of those layers.")
    matrices: int = Field(default=3, ge=2, le=3, description="Matrices of the feed-forward: 3 with a gate.")
    vocabulary: int = Field(ge=1, le=100_000_000, description="Rows of the embedding.")
    tied: bool = Field(default=False, description="Whether embedding and head are one matrix.")
    latent: LatentAttention | None = Field(default=None, description="For models with multi-head latent attention.")
    context: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Number of tokens that the model can attend to."
    )

    model_type: ShortText | None = Field(default=None, description="model_type of its config.json, e.g. gpt_oss.")

    @property
    def embeddings(self) -> int:
        """Weights of embedding and head: neither adapted nor quantised."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def expert_parameters(self) -> int:
        """Weights of all routed experts: counted, or two input matrices and one output matrix of each."""
        if self.routed is not None:
            return self.routed
        return (self.layers - self.dense_layers) * self.experts * 3 * self.hidden * self.expert_width

    @property
    def used(self) -> int:
        """Weights that a token is multiplied with: of routed experts, those that it is sent to."""
        unused = 1 - min(1, self.intermediate / (self.experts * self.expert_width)) if self.expert_parameters else 0
        return self.parameters - int(unused * min(self.expert_parameters, self.parameters))

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each kind of linear layer of a layer, by the names that most families give them."""
        wide = ("gate_proj", "up_proj") if self.matrices == 3 else ("up_proj",)
        return {
            **self.attention,
            **{name: (self.hidden, self.intermediate) for name in wide},
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def attention(self) -> dict[str, tuple[int, int]]:
        """The attention layers of `linear`."""
        if (latent := self.latent) is None:
            return {
                "q_proj": (self.hidden, self.query),
                "k_proj": (self.hidden, self.key_value),
                "v_proj": (self.hidden, self.key_value),
                "o_proj": (self.query, self.hidden),
            }
        compressed = {
            "q_a_proj": (self.hidden, latent.query_rank),
            "q_b_proj": (latent.query_rank, self.query),
        }
        return {
            **(compressed if latent.query_rank else {"q_proj": (self.hidden, self.query)}),
            "kv_a_proj_with_mqa": (self.hidden, latent.rank + latent.rotary),
            "kv_b_proj": (latent.rank, latent.expanded),
            "o_proj": (latent.value, self.hidden),
        }


def expert_count(config: Mapping[str, Any]) -> int:
    """Number of routed experts in a layer, from a config.json; 0 if none."""
    text = {**config, **(config.get("text_config") or {})}
    return next((int(text[name]) for name in EXPERTS if isinstance(text.get(name), int)), 0)


def shape_of(config: Mapping[str, Any], parameters: int, routed: int | None = None) -> ModelShape | None:
    """The shape in a config.json; None if it has other parameters (state-space models).

    Args:
        config: of a causal model, or of one with more parts, whose language model is in `text_config`.
        parameters: counted in the files, because a config is not sufficient.
        routed: those of routed experts, likewise; None if nobody counted them.
    """
    text = {**config, **(config.get("text_config") or {})}

    def number(*names: str) -> int | None:
        return next((int(text[n]) for n in names if isinstance(text.get(n), int)), None)

    hidden = number("hidden_size", "n_embd", "d_model")
    heads = number("num_attention_heads", "n_head", "n_heads")
    layers = number("num_hidden_layers", "n_layer", "n_layers")
    vocabulary = number("vocab_size")
    if not (hidden and heads and layers and vocabulary):
        return None
    latent = _latent(text, heads)
    # With latent attention, head_dim is only the part with positions.
    head_dim = (number("qk_rope_head_dim") or 0) + (number("qk_nope_head_dim") or 0) if latent else number("head_dim")
    head = head_dim or hidden // heads
    experts = number(*CHOSEN) or 1
    wide = number("moe_intermediate_size") if experts > 1 else None
    wide = wide or number("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    return ModelShape(
        parameters=parameters,
        layers=layers,
        hidden=hidden,
        query=heads * head,
        key_value=(number("num_key_value_heads") or heads) * head,
        intermediate=wide * experts,
        matrices=2 if _model_type(text) in UNGATED else 3,
        routed=routed,
        **_mixture(text, layers, wide),
        latent=latent,
        vocabulary=vocabulary,
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        context=number("max_position_embeddings", "n_positions", "max_seq_len"),
        model_type=_model_type(config),
    )


def _model_type(config: Mapping[str, Any]) -> str | None:
    """Of the whole model, by which servers choose their code; None where a config.json has no such name."""
    name = config.get("model_type")
    return name if isinstance(name, str) and 0 < len(name) <= LONGEST_TYPE else None


def _latent(text: Mapping[str, Any], heads: int) -> LatentAttention | None:
    """As in transformers' DeepseekV3Attention; None if keys and values are not compressed."""
    sizes = [text.get(name) for name in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")]
    if not all(isinstance(size, int) for size in sizes):
        return None
    rank, rotary, plain, value = (int(size or 0) for size in sizes)
    query_rank = text.get("q_lora_rank")
    return LatentAttention(
        query_rank=query_rank if isinstance(query_rank, int) else 0,
        rank=rank,
        rotary=rotary,
        expanded=heads * (plain + value),
        value=heads * value,
    )


def _mixture(text: Mapping[str, Any], layers: int, width: int) -> dict[str, int]:
    """The fields of a mixture of experts; empty for a dense model.

    Args:
        width: of one expert.
    """
    if not (experts := expert_count(text)):
        return {}

    def number(name: str) -> int:
        return value if isinstance(value := text.get(name), int) else 0

    plain, step = text.get("mlp_only_layers") or [], number("decoder_sparse_step") or 1
    dense = sum(i < number("first_k_dense_replace") or i in plain or (i + 1) % step != 0 for i in range(layers))
    shared = number("shared_expert_intermediate_size") or number("n_shared_experts") * width
    return {
        "experts": experts,
        "expert_width": width,
        "shared_width": shared,
        "dense_layers": dense,
        "dense_width": number("intermediate_size") if dense else 0,
    }
