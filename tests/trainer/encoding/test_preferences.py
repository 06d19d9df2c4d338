"""Pairs of answers to labels: one prompt, both answers with their end-of-turn tokens, or the row is refused."""

import pytest
from support.models.chat_templates import HEADS, IM, TOKENIZERS, byte_level, chat, write

from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.preferences import JudgedEncoder, Pair, PairEncoder
from hone_trainer.encoding.row import IGNORED, RowRefusedError
from hone_trainer.encoding.split_file import encode_split
from hone_trainer.errors import DataError

pytestmark = pytest.mark.trainer


def pair(question: str, chosen: str, rejected: str) -> dict:
    answers = {"chosen": chosen, "rejected": rejected}
    turns = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
    return {"prompt": [{"role": "user", "content": question}], **turns}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_pair_is_one_prompt_and_two_answers_with_their_end_of_turn_tokens(tokenizers, name):
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1]
    (found,) = PairEncoder(tokenizer).encode(pair("What is a pod?", "Containers in pods.", "I don't know, 3"))
    for ids, text in ((found.chosen_ids, "Containers in pods."), (found.rejected_ids, "I don't know, 3")):
        assert tokenizer.decode(ids).strip() == HEADS.get(name, "") + text + mark
        (row,) = Encoder(tokenizer).encode(chat("What is a pod?", text))
        assert row.input_ids == found.prompt_ids + ids
        assert row.labels == [IGNORED] * len(found.prompt_ids) + ids
    assert found.trained == len(found.chosen_ids) + len(found.rejected_ids)


def test_only_the_last_answer_of_a_longer_prompt_is_compared(tokenizers):
    record = pair("And nodes?", "Machines.", "Pods.")
    record["prompt"] = [*chat("What is a pod?", "A group.")["messages"], *record["prompt"]]
    (found,) = PairEncoder(tokenizers["ChatML"]).encode(record)
    assert tokenizers["ChatML"].decode(found.chosen_ids) == "Machines.<|im_end|>"
    assert "A group.<|im_end|>" in tokenizers["ChatML"].decode(found.prompt_ids)


def test_pairs_of_texts_are_read_with_and_without_a_template(tokenizers):
    record = {"prompt": "What is a pod?", "chosen": "A group.", "rejected": "No."}
    assert PairEncoder(tokenizers["ChatML"]).encode(record) == PairEncoder(tokenizers["ChatML"]).encode(
        pair("What is a pod?", "A group.", "No.")
    )
    plain = byte_level(IM, "", eos_token="<|im_end|>")
    plain.chat_template = None
    (found,) = PairEncoder(plain).encode(record)
    assert plain.decode(found.prompt_ids) == "What is a pod?"
    assert plain.decode(found.rejected_ids) == "No.<|im_end|>"


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (pair("Hi", "Hello", "Hello"), "SameAnswers"),
        (pair("Hi", "Hello", "<|eot_id|>"), "ControlToken"),
        (pair("Hi", "Hello ", " Hello"), "SameAnswers"),  # the template trims
    ],
)
def test_pairs_that_prefer_nothing_or_say_too_much_are_refused(tokenizers, record, code):
    with pytest.raises(RowRefusedError) as caught:
        PairEncoder(tokenizers["Llama3"]).encode(record)
    assert caught.value.code == code


def test_a_pair_is_two_judged_answers(tokenizers):
    (whole,) = PairEncoder(tokenizers["ChatML"]).encode(pair("Hi", "Hello", "No"))
    good, bad = JudgedEncoder(tokenizers["ChatML"]).encode(pair("Hi", "Hello", "No"), 7)
    assert (good.prompt_ids, good.completion_ids, good.label, good.number) == (
        whole.prompt_ids,
        whole.chosen_ids,
        True,
        7,
    )
    assert (bad.completion_ids, bad.label) == (whole.rejected_ids, False)


def test_a_cut_pair_must_still_differ():
    whole = Pair([1, 2], [3, 4, 5], [3, 6], 1)
    assert whole.cut(4) == Pair([1, 2], [3, 4], [3, 6], 1)
    assert whole.cut(3) is None
    assert whole.cut(2) is None


@pytest.mark.parametrize(
    ("encoder", "record"),
    [(PairEncoder, chat("hi", "hello")), (JudgedEncoder, {"text": "a"}), (Encoder, pair("Hi", "Hello", "No"))],
)
def test_rows_of_another_kind_are_refused_with_their_line(tmp_path, tokenizers, encoder, record):
    path = write(tmp_path / "t.jsonl", [record])
    with pytest.raises(DataError, match=r"t\.jsonl, line 1: has n") as caught:
        encode_split(path, encoder(tokenizers["ChatML"]), max_length=None)
    assert caught.value.code == "DatasetFormatMismatch"
