"""`python -m hone_dev.models.gguf FILE FOLDER`: SmolLM2-135M-Instruct from GGUF to what the Hub carries.

Its own process, because reading GGUF takes 1.6 GB of memory that should be given back.
"""

import sys
from pathlib import Path

CONTEXT = 8192
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


def convert(file: Path, folder: Path) -> None:
    """Write bfloat16 safetensors, tokenizer, chat template and configurations of `file` to `folder`."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # GGUF names this step only as `pre: smollm`, and transformers' reader leaves it out: each digit is a token.
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.model_max_length = CONTEXT
    tokenizer.save_pretrained(folder)

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # The weights are dequantised by now, but still marked as quantised, so that saving would refuse.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = NAME
    model.to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
