"""A model that only scores rows: another version, or an exported one again."""

from __future__ import annotations

from hone_api.training import Adapter
from hone_trainer.models import adapters, base_model
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Generating


def load(opened: Base, adapter: Adapter, *, bf16: bool, quantize: bool = True) -> Generating:
    """The model with TRL's fused loss head, on the GPU where there is one, with the precision of a run.

    Args:
        adapter: of the run, which says whether its base is frozen and in 4 bits.
        quantize: whether a base that QLoRA reads in 4 bits is loaded so.
    """
    import torch
    from trl.trainer.utils import add_fused_lm_head

    cuda = torch.cuda.is_available()
    quantize = quantize and adapters.is_quantized(adapter)
    network = base_model.load(opened, bf16=bf16, cpu=not cuda, quantize=quantize, frozen=adapters.is_adapter(adapter))
    add_fused_lm_head(network, outputs=("log_probs", "is_top1"))
    return network if quantize or not cuda else network.cuda()


def read_the_same(one: Base, other: Base) -> bool:
    """Whether both models get the same tokens for the same row, so that their losses can be compared."""
    first, second = one.tokenizer, other.tokenizer
    return bool(first.get_vocab() == second.get_vocab() and first.chat_template == second.chat_template)
