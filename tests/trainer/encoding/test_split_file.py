"""Files of rows to labels: truncation, refused rows, and what cannot be trained on, each counted and named."""

import json

import pytest
from support.models.chat_templates import chat, write

from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.split_file import encode_split
from hone_trainer.errors import DataError

pytestmark = pytest.mark.trainer


def long(words: int) -> dict:
    return chat("hi", " ".join(["pod"] * words))


def test_truncation_drop_counts_rows_and_tokens(tmp_path, tokenizers):
    path = write(tmp_path / "t.jsonl", [long(3), long(200), long(4)])
    free = encode_split(path, Encoder(tokenizers["ChatML"]), max_length=None)
    limit = len(free.rows[2].input_ids)
    found = encode_split(path, Encoder(tokenizers["ChatML"]), max_length=limit)
    assert [row.number for row in found.rows] == [1, 3]
    counts = found.counts
    assert (counts.lines, counts.rows, counts.too_long, counts.truncated) == (3, 2, 1, 0)
    assert counts.tokens_lost == len(free.rows[1].input_ids) == counts.longest
    assert counts.tokens + counts.tokens_lost == free.counts.tokens
    assert "1 over the maximal length (0 truncated, 1 dropped" in counts.summary()


def test_truncation_truncate_cuts_the_end_and_drops_what_has_no_label_left(tmp_path, tokenizers):
    path = write(tmp_path / "t.jsonl", [long(3), long(200), chat("pod " * 300, "never seen")])
    free = encode_split(path, Encoder(tokenizers["ChatML"]), max_length=None)
    limit = len(free.rows[0].input_ids) + 5
    found = encode_split(path, Encoder(tokenizers["ChatML"]), max_length=limit, truncation="Truncate")
    assert [len(row.input_ids) for row in found.rows] == [limit - 5, limit]
    assert found.rows[1].input_ids == free.rows[1].input_ids[:limit]
    counts = found.counts
    assert (counts.too_long, counts.truncated, counts.without_labels, counts.rows_with_end_of_turn) == (2, 1, 1, 1)
    assert counts.tokens + counts.tokens_lost == free.counts.tokens


def test_truncation_refuse_names_the_row(tmp_path, tokenizers):
    path = write(tmp_path / "t.jsonl", [long(3), long(200)])
    with pytest.raises(DataError, match=r"t\.jsonl, line 2: \d+ tokens, training\.maxLength is 50") as caught:
        encode_split(path, Encoder(tokenizers["ChatML"]), max_length=50, truncation="Refuse")
    assert caught.value.code == "RowTooLong"


def test_refused_rows_are_counted_with_their_lines(tmp_path, tokenizers):
    bad = chat("hi", "hello <|im_end|>")
    found = encode_split(
        write(tmp_path / "t.jsonl", [bad, long(1), bad]), Encoder(tokenizers["ChatML"]), max_length=None
    )
    refused = found.counts.refused["ControlToken"]
    assert (refused.count, refused.lines) == (2, [1, 3])
    assert "2 refused: ControlToken (e.g. line 1:" in found.counts.summary()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ('{"messages": ', "InvalidRow"),
        ('{"question": "a"}\n', "DatasetFormatMismatch"),
        ('{"prompt": "a"}\n', "DatasetFormatMismatch"),
        ("[1]\n", "InvalidRow"),
        ("", "NoTrainableRows"),
        (json.dumps(chat("hi", "<|im_end|>")) + "\n", "NoTrainableRows"),
    ],
)
def test_files_that_cannot_be_trained_on(tmp_path, tokenizers, content, code):
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        encode_split(tmp_path / "t.jsonl", Encoder(tokenizers["ChatML"]), max_length=None)
    assert caught.value.code == code
