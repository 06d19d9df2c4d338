"""A real tokenizer of at most 512 tokens with a ChatML template, and the sentences that it was made of."""

from __future__ import annotations

from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLACES = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Tokyo", "Paris", "Delhi", "Accra", "Seoul", "Hanoi", "Bern"]
THINGS = ["river", "tower", "bridge", "market", "harbour", "garden", "station", "museum"]


def sentences() -> list[tuple[str, str]]:
    """96 questions and answers, of 8 to 20 words."""
    return [
        (f"Where is the {thing} of {place}?", f"The {thing} of {place} is near the {THINGS[(i + j) % 8]}.")
        for i, place in enumerate(PLACES)
        for j, thing in enumerate(THINGS)
    ]


def tokenizer() -> Any:
    """The tokenizer; its end-of-turn token is 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        (text for pair in sentences() for text in pair),
        trainers.BpeTrainer(vocab_size=512, special_tokens=marks, initial_alphabet=alphabet, show_progress=False),
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    made.chat_template = TEMPLATE
    return made
