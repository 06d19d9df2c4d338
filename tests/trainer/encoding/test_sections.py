"""Every beginning of a conversation has the tokens that the tokenizer gives it, and the long ones cost nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.models.chat_templates import CORPUS, IM, TOKENIZERS, byte_level, chat
from tokenizers import AddedToken

from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.row import Row, RowRefusedError
from hone_trainer.encoding.sections import Sections

pytestmark = pytest.mark.trainer
CHAT = chat(
    "Where is it?", " near  the\n\nriver ", "<|im_x é 1234?", "<think> 北京 </think>", "x", "\n", system="Be  brief."
)


def _direct(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _check(tokenizer: Any, text: str) -> int:
    """Compares every beginning; gives the characters that were tokenised for all of them."""
    seen: list[int] = []

    def tokenize(text: str) -> list[int]:
        seen.append(len(text))
        return _direct(tokenizer, text)

    sections = Sections(tokenizer, tokenize)
    sections.take(text)
    for end in range(len(text) + 1):
        assert sections.ids(text[:end]) == _direct(tokenizer, text[:end]), text[:end]
    return sum(seen)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_beginning_of_a_conversation(tokenizers: dict[str, Any], name: str) -> None:
    tokenizer = tokenizers[name]
    text = tokenizer.apply_chat_template(
        [turn for turn in CHAT["messages"] if turn["role"] != "system"], tokenize=False
    )
    tokenised = _check(tokenizer, text)
    whole = sum(range(len(text) + 1))
    # Mistral and Llama 2 have an added token only where an answer ends.
    assert tokenised < whole / (1.5 if name in ("Mistral", "Llama2") else 3)


@pytest.mark.parametrize(
    "options",
    [{"lstrip": True}, {"rstrip": True}, {"normalized": True}, {"single_word": True}, {"special": False}],
    ids=str,
)
def test_added_tokens_of_every_kind(options: dict[str, bool]) -> None:
    """Some take white space, some are not found inside a word, and one is the beginning of another."""
    tokenizer = byte_level(IM, "{{ messages }}", eos_token="<|im_end|>")
    plain = {"special": True, "normalized": False}
    tokenizer.add_tokens([AddedToken(token, **{**plain, **options}) for token in ("<A>", "<A>\n", "A>x", "  ")])
    rng = random.Random(0)
    pieces = ["<A>", "<A>\n", "A>x", "<", " ", "  ", "\n", "a", "<|im_end|>", "<|im_start|>", "é"]
    for _ in range(12):
        _check(tokenizer, "".join(rng.choices(pieces, k=14)))


def test_rows_are_those_of_turns_that_are_proved_one_by_one(tokenizers: dict[str, Any]) -> None:
    """With nothing prepared, each turn is rendered and tokenised by itself, as the tokenizer's own call does it."""
    rng = random.Random(1)
    records = [chat(*(rng.choice(CORPUS) for _ in range(rng.choice((2, 4, 6, 8))))) for _ in range(12)]

    def rows(encoder: Encoder) -> list[list[Row] | str]:
        return [_encoded(encoder, record) for record in records]

    for tokenizer in tokenizers.values():
        plain = Encoder(tokenizer)
        plain._is_plain = False
        plain._prepared = lambda *_: None
        expected = rows(plain)
        assert any(isinstance(each, list) for each in expected)
        assert rows(Encoder(tokenizer)) == expected


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_conversations_begin_with_is_tokenised_once(tokenizers: dict[str, Any], name: str) -> None:
    """With two system prompts, and turns that are the same; each has the tokens that the tokenizer gives it."""
    tokenizer, rng, seen = tokenizers[name], random.Random(2), list[int]()

    def tokenize(text: str) -> list[int]:
        seen.append(len(text))
        return _direct(tokenizer, text)

    sections, characters = Sections(tokenizer, tokenize), 0
    for number in range(40):
        system = rng.choice(CORPUS[:2]) * 9 if name in ("ChatML", "Llama3", "Qwen3") else None
        turns = [rng.choice(("Where?", "  é\n", f"No. {number}")) for _ in range(4)]
        text = tokenizer.apply_chat_template(chat(*turns, system=system)["messages"], tokenize=False)
        sections.take(text)
        characters += len(text)
        assert sections.ids(text) == _direct(tokenizer, text)
    assert sum(seen) < characters / (4 if system else 1)


@pytest.mark.parametrize("options", [{"lstrip": True}, {"normalized": True}, {"single_word": True}], ids=str)
def test_sections_are_not_kept_where_a_token_may_reach_into_two(options: dict[str, bool]) -> None:
    tokenizer = byte_level(IM, "{{ messages }}", eos_token="<|im_end|>")
    tokenizer.add_tokens([AddedToken("b", special=True, **{"normalized": False, **options}), "x<A>", "<A>"])
    sections = Sections(tokenizer, lambda text: _direct(tokenizer, text))
    for text in ("a  b<A>a", "ab<|im_end|>b", "x<A>b<A>b", "b<A>  b<|im_end|>x<A>") * 4:
        sections.take(text)
        assert sections.ids(text) == _direct(tokenizer, text), text


def _encoded(encoder: Encoder, record: Any) -> list[Row] | str:
    """The rows, or why there are none."""
    try:
        return encoder.encode(record)
    except RowRefusedError as error:
        return f"{error.code} {error}"


def test_a_conversation_of_many_turns_is_tokenised_about_once(tokenizers: dict[str, Any]) -> None:
    encoder = Encoder(tokenizers["ChatML"])
    seen: list[int] = []
    tokenize = encoder._sections._tokenize
    encoder._sections._tokenize = lambda text: (seen.append(len(text)), tokenize(text))[1]
    record = chat(*["Where is the tower?", "It is near the river."] * 20)
    (row,) = encoder.encode(record)
    length = len(encoder.tokenizer.decode(row.input_ids))
    assert sum(seen) < 1.2 * length


def test_settings_that_others_left_on_the_tokenizer_change_nothing(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["ChatML"]
    encoder = Encoder(tokenizer)
    before = encoder.encode(chat("Where?", "Near the river."))
    tokenizer(["a", "b c d e f g h"], padding=True, truncation=True, max_length=3, split_special_tokens=True)
    assert encoder.encode(chat("Where?", "Near the river.")) == before
