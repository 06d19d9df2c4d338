"""Texts that are cut at spaces have the token ids that the library finds in the whole text."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from hone_trainer.encoding import words
from hone_trainer.encoding.words import Words

pytestmark = pytest.mark.trainer
LLAMA, QWEN = sorted(words._PATTERNS, key=len, reverse=True)
OF_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
ONLY_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), ONLY_BYTES])


WAYS = {
    "GPT-2": OF_BYTES,
    "SmolLM2": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), OF_BYTES]),
    "Llama 3": _split(LLAMA),
    "Qwen2": _split(QWEN),
}
FRAGMENTS = (
    *(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u2003",
        "\x1c",
        "\x85",
        "\u200b",
        "'s",
        "'",
        "' S",
        "don't",
        "I'LL",
        "DON'T",
    ),
    *(
        "the",
        " river",
        "River",
        " a",
        "x",
        "\u00fc",
        " \u00fcber",
        "e\u0301",
        " e\u0301",
        "\u0301",
        "1",
        "23",
        "4567",
        ".",
        ",",
        "...",
        "?!",
        "=>",
        "\U0001f600",
    ),
    *(
        "_",
        "(self",
        "):\n    ",
        "x1",
        "0x1F",
        "\n\n  ",
        "\\n",
        "#",
        "\t\t",
        "'1",
        '"',
        "{}",
        "\u0338",
        "\u0661",
        "\u00b2",
    ),
    *("\u00dcber", "\u00bfQu\u00e9", "\u201cHi\u201d", "\u00c9cris"),
    *("<fim_x1>", "<fim_x", "<|end|", "<<", "|", ">"),
    *("<|end|>", "<think>", "a.b", "the:river;", "<", "|>", "\u6c49\u5b57", "\u0130", "\u017f", "\x00"),
)


FOREIGN = "\u00dcber \u00bfQu\u00e9 \u201cHi\u201d \u00c9cris"


def _tokenizer(way: Any, normalizer: Any = None) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = way
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(
        ["the river is near the tower, isn't it? 12 rivers: the other ones.\n\n The", FOREIGN] * 5, trainer
    )
    made.add_special_tokens([AddedToken("<|end|>", special=True)])
    made.add_tokens([AddedToken("<think>", normalized=False), AddedToken("<fim_x1>", normalized=False)])
    return made


def _whole(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=str)
@pytest.mark.parametrize("split", [False, True])
def test_ids_are_those_of_the_whole_text(way: str, normalizer: Any, split: bool) -> None:
    tokenizer = _tokenizer(WAYS[way], normalizer)
    tokenizer.encode_special_tokens = split
    assert words.are_apart(tokenizer)
    by_words = Words(lambda texts: _whole(tokenizer, texts), words.added_tokens(tokenizer, split))
    choose = random.Random(0)
    texts = ["".join(choose.choices(FRAGMENTS, k=choose.randint(0, 60))) for _ in range(300)]
    for text in (*texts, " ".join(FRAGMENTS), *texts):  # the second time from what is kept
        assert by_words.ids(text) == _whole(tokenizer, [text])[0], repr(text)


def test_words_are_tokenised_once() -> None:
    tokenizer, asked = _tokenizer(OF_BYTES), list[str]()

    def encode(texts: list[str]) -> list[list[int]]:
        asked.extend(texts)
        return _whole(tokenizer, texts)

    by_words, text = Words(encode), "the river is near the tower, is it near the other one?"
    first = by_words.ids(text)
    first.clear()  # the list is the caller's
    assert sorted(asked) == sorted(set(asked))
    asked.clear()
    assert by_words.ids(text) == _whole(tokenizer, [text])[0]
    assert asked == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_KEPT", 20)
    tokenizer = _tokenizer(OF_BYTES)
    by_words = Words(lambda texts: _whole(tokenizer, texts))
    for start in range(0, 300, 10):
        text = " ".join([f"w{n}" for n in range(start, start + 10)] + ["x" * 100, "and", "more"])
        assert by_words.ids(text) == _whole(tokenizer, [text])[0]
    assert len(by_words._kept) < 40
    assert max(map(len, by_words._kept)) <= words._LONGEST


def _with(token: AddedToken, normalizer: Any = None) -> Tokenizer:
    made = _tokenizer(OF_BYTES, normalizer)
    made.add_tokens([token])
    return made


def _dropping() -> Tokenizer:
    made = _tokenizer(OF_BYTES)
    made.model.dropout = 0.1
    return made


def _bare(model: Any) -> Tokenizer:
    made = Tokenizer(model)
    made.pre_tokenizer = OF_BYTES
    return made


OTHERS = {
    "prefix": lambda: _tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "no words": lambda: _tokenizer(ONLY_BYTES),
    "none": lambda: Tokenizer(models.BPE()),
    "metaspace": lambda: _tokenizer(pre_tokenizers.Metaspace()),
    "another pattern": lambda: _tokenizer(_split(r"\w+\s*")),
    "another behaviour": lambda: _tokenizer(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA), "merged_with_next"), ONLY_BYTES])
    ),
    "bytes before words": lambda: _tokenizer(
        pre_tokenizers.Sequence([ONLY_BYTES, pre_tokenizers.Split(Regex(LLAMA), "isolated")])
    ),
    "lower case": lambda: _tokenizer(OF_BYTES, normalizers.Lowercase()),
    "token with a space": lambda: _with(AddedToken("of the", normalized=False)),
    "token that a mark changes": lambda: _with(AddedToken("<tool>"), normalizers.NFC()),
    "token that takes spaces": lambda: _with(AddedToken("<tool>", rstrip=True)),
    "token that is a word": lambda: _with(AddedToken("tool", single_word=True)),
    "dropout": _dropping,
    "unigram": lambda: _bare(models.Unigram()),
    "words alone": lambda: _bare(models.WordLevel({"a": 0}, "a")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_tokenizers_see_the_whole_text(name: str) -> None:
    assert not words.are_apart(OTHERS[name]())
