"""Sizes of well-known models."""

from hone_api.blocks.shape import ModelShape

LLAMA_7B = ModelShape(
    parameters=6_738_415_616,
    layers=32,
    hidden=4096,
    query=4096,
    key_value=4096,
    intermediate=11008,
    vocabulary=32000,
    context=4096,
)
LLAMA_8B = ModelShape(
    parameters=8_030_261_248,
    layers=32,
    hidden=4096,
    query=4096,
    key_value=1024,
    intermediate=14336,
    vocabulary=128256,
)
LLAMA_70B = ModelShape(
    parameters=68_976_648_192,
    layers=80,
    hidden=8192,
    query=8192,
    key_value=1024,
    intermediate=28672,
    vocabulary=32000,
    context=4096,
)
