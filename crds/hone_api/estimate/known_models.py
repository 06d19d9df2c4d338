"""Sizes of well-known models, for estimates before anything is staged, and where no hub can be asked. Pure."""

from __future__ import annotations

from hone_api.blocks.shape import ModelShape

HEADS = 128
"""Size of an attention head, unless `_shape` is given another."""


def _shape(
    parameters: int,
    layers: int,
    hidden: int,
    heads: tuple[int, int],
    intermediate: int,
    vocabulary: int,
    *,
    context: int,
    head: int = HEADS,
    tied: bool = False,
) -> ModelShape:
    """A dense model, with the numbers of its config.json.

    Args:
        heads: of queries, and of keys and values.
    """
    return ModelShape(
        parameters=parameters,
        layers=layers,
        hidden=hidden,
        query=heads[0] * head,
        key_value=heads[1] * head,
        intermediate=intermediate,
        vocabulary=vocabulary,
        tied=tied,
        context=context,
    )


MODELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": _shape(
        134_515_008, 30, 576, (9, 3), 1536, 49_152, head=64, tied=True, context=8_192
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": _shape(
        494_032_768, 24, 896, (14, 2), 4864, 151_936, head=64, tied=True, context=32_768
    ),
    "meta-llama/Llama-3.2-1B-Instruct": _shape(
        1_235_814_400, 16, 2048, (32, 8), 8192, 128_256, head=64, tied=True, context=131_072
    ),
    "Qwen/Qwen2.5-1.5B-Instruct": _shape(1_543_714_304, 28, 1536, (12, 2), 8960, 151_936, tied=True, context=32_768),
    "google/gemma-2-2b-it": _shape(2_614_341_888, 26, 2304, (8, 4), 9216, 256_000, head=256, tied=True, context=8_192),
    "meta-llama/Llama-3.2-3B-Instruct": _shape(
        3_212_749_824, 28, 3072, (24, 8), 8192, 128_256, tied=True, context=131_072
    ),
    "Qwen/Qwen3-4B": _shape(4_022_468_096, 36, 2560, (32, 8), 9728, 151_936, tied=True, context=40_960),
    "mistralai/Mistral-7B-Instruct-v0.3": _shape(7_248_023_552, 32, 4096, (32, 8), 14_336, 32_768, context=32_768),
    "meta-llama/Llama-3.1-8B-Instruct": _shape(8_030_261_248, 32, 4096, (32, 8), 14_336, 128_256, context=131_072),
    "Qwen/Qwen3-8B": _shape(8_190_735_360, 36, 4096, (32, 8), 12_288, 151_936, context=40_960),
    "google/gemma-2-9b-it": _shape(
        9_241_705_984, 42, 3584, (16, 8), 14_336, 256_000, head=256, tied=True, context=8_192
    ),
    "microsoft/phi-4": _shape(14_659_507_200, 40, 5120, (40, 10), 17_920, 100_352, context=16_384),
    "Qwen/Qwen2.5-14B-Instruct": _shape(14_770_033_664, 48, 5120, (40, 8), 13_824, 152_064, context=32_768),
    "Qwen/Qwen2.5-32B-Instruct": _shape(32_763_876_352, 64, 5120, (40, 8), 27_648, 152_064, context=32_768),
    "meta-llama/Llama-3.3-70B-Instruct": _shape(70_553_706_496, 80, 8192, (64, 8), 28_672, 128_256, context=131_072),
}
"""By their names on the hub, the smallest first."""
