"""A model that only scores rows: another version, or an exported one again."""

from __future__ import annotations

from pathlib import Path

from hone_trainer.models import base_model
from hone_trainer.models.base_model import Base, Head
from hone_trainer.models.network import Generating
from hone_trainer.training.batches.unpadded import Unpadded, body_of
from hone_trainer.training.model_check import TOKENS, Look, choose_attention, has_own_head


def load(
    opened: Base, *, bf16: bool, frozen: bool, quantize: bool, head: Head = "LanguageModel", seed: int = 0
) -> Generating:
    """The model on the GPU where there is one, without padding where a run of it has none; a language model with TRL's
    fused loss head, or one that takes the log-probabilities from its own logits, where they differ. A collective.

    Args:
        frozen: whether the weights may be in bfloat16, as those of a base; else they are in float32.
        quantize: whether they are rounded to 4 bits, as those of a base for QLoRA.
        seed: for a reward head that the model does not have.
    """
    import torch
    from trl.trainer.utils import add_fused_lm_head

    from hone_trainer.training import chunked_loss  # loads torch

    cuda = torch.cuda.is_available()
    network = base_model.load(opened, bf16=bf16, cpu=not cuda, quantize=quantize, frozen=frozen, head=head, seed=seed)
    network = network if quantize or not cuda else network.cuda()
    row = list(range(min(TOKENS, opened.vocabulary)))
    look = Look(network if head == "LanguageModel" else body_of(network), [row, row[1::2]], network.device, bf16)
    choice, why = choose_attention(look)
    if choice.keeps_rows_apart and not why:
        Unpadded(network, choice)
    if head == "LanguageModel":
        is_unlike = has_own_head(look)
        add_fused_lm_head(network, outputs=("log_probs", "is_top1"))
        if is_unlike:
            chunked_loss.use_logits(network)
        else:
            chunked_loss.install(network)  # the head of a run: another rounds otherwise, and ties are none
    return network


def with_adapter(network: Generating, folder: Path) -> Generating:
    """An adapter on its loaded base."""
    from peft import PeftModel

    tuned: Generating = PeftModel.from_pretrained(network, folder)
    return tuned


def read_the_same(one: Base, other: Base) -> bool:
    """Whether both models get the same tokens for the same row, so that their losses can be compared."""
    first, second = one.tokenizer, other.tokenizer
    return bool(first.get_vocab() == second.get_vocab() and first.chat_template == second.chat_template)
