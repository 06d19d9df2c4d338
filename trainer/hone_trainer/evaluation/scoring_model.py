"""A model that only scores rows: another version, or an exported one again."""

from __future__ import annotations

from pathlib import Path

from hone_trainer.models import base_model
from hone_trainer.models.base_model import Base, Head
from hone_trainer.models.network import Generating


def load(
    opened: Base, *, bf16: bool, frozen: bool, quantize: bool, head: Head = "LanguageModel", seed: int = 0
) -> Generating:
    """The model on the GPU where there is one; a language model with TRL's fused loss head.

    Args:
        frozen: whether the weights may be in bfloat16, as those of a base; else they are in float32.
        quantize: whether they are rounded to 4 bits, as those of a base for QLoRA.
        seed: for a reward head that the model does not have.
    """
    import torch
    from trl.trainer.utils import add_fused_lm_head

    cuda = torch.cuda.is_available()
    network = base_model.load(opened, bf16=bf16, cpu=not cuda, quantize=quantize, frozen=frozen, head=head, seed=seed)
    if head == "LanguageModel":
        add_fused_lm_head(network, outputs=("log_probs", "is_top1"))
    return network if quantize or not cuda else network.cuda()


def with_adapter(network: Generating, folder: Path) -> Generating:
    """An adapter on its loaded base."""
    from peft import PeftModel

    tuned: Generating = PeftModel.from_pretrained(network, folder)
    return tuned


def read_the_same(one: Base, other: Base) -> bool:
    """Whether both models get the same tokens for the same row, so that their losses can be compared."""
    first, second = one.tokenizer, other.tokenizer
    return bool(first.get_vocab() == second.get_vocab() and first.chat_template == second.chat_template)
