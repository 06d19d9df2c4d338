"""Preferences whose answers have several turns: the assistant's tokens count, what tools and users say is context.

Masks are found here by hand from the texts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.models.tool_templates import CALL, LLAMA, PLAIN, QWEN, TOOLS, asks, call, make_tokenizer

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.encoding.plain_text import as_text
from hone_trainer.encoding.preferences import Judged, JudgedEncoder, Pair, PairEncoder
from hone_trainer.encoding.row import IGNORED, RowRefusedError
from hone_trainer.encoding.split_file import encode_split
from hone_trainer.methods import pairs
from hone_trainer.scoring import probe_suite
from hone_trainer.training.selfcheck import shown

pytestmark = pytest.mark.trainer


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def tool(text: str) -> dict[str, str]:
    return {"role": "tool", "content": text}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


QUESTION = user("Is it warm in Rome?")
TRAJECTORY = [asks(call("weather", city="Rome", days=2)), tool('{"degrees": 31}'), said("Yes, 31 degrees.")]
TALK = [said("Where are you?"), user("In Rome."), said("Then yes.")]


def counted(tokenizer: Any, ids: list[int], mask: list[int] | None) -> list[str]:
    """The texts of the runs of tokens that count."""
    runs: list[list[int]] = [[]]
    for token, counts in zip(ids, mask or [1] * len(ids), strict=True):
        if counts:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run) for run in runs if run]


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (QWEN, [CALL, "Yes, 31 degrees.<|im_end|>"]),
        (
            LLAMA,
            ['{"name": "weather", "parameters": {"city": "Rome", "days": 2}}<|im_end|>', "Yes, 31 degrees.<|im_end|>"],
        ),
    ],
)
def test_calls_and_the_answer_count_and_what_the_tool_says_does_not(
    tokenizer: Any,
    template: str,
    answer: list[str],
) -> None:
    tokenizer.chat_template = template
    record = {"prompt": [QUESTION], "chosen": TRAJECTORY, "rejected": [said("Perhaps.")], "tools": TOOLS}
    (pair,) = PairEncoder(tokenizer).encode(record)
    assert counted(tokenizer, pair.chosen_ids, pair.chosen_mask) == answer
    assert counted(tokenizer, pair.rejected_ids, pair.rejected_mask) == ["Perhaps.<|im_end|>"]
    assert pair.rejected_mask is None
    assert "31}" in tokenizer.decode(pair.chosen_ids).replace('\\"', '"')
    assert tokenizer.decode(pair.prompt_ids).endswith(("assistant\n", "assistant\n\n"))
    assert pair.trained == sum(
        len(tokenizer.encode(text, add_special_tokens=False)) for text in [*answer, "Perhaps.<|im_end|>"]
    )
    good, bad = JudgedEncoder(tokenizer).encode(record, 3)
    assert (good.completion_ids, good.mask, good.label) == (pair.chosen_ids, pair.chosen_mask, True)
    assert (bad.completion_ids, bad.mask, bad.label) == (pair.rejected_ids, None, False)
    pieces = shown(pair, tokenizer)
    assert [piece.text for piece in pieces if piece.trained] == answer


@pytest.mark.parametrize(("name", "mark"), [("ChatML", "<|im_end|>"), ("Llama3", "<|eot_id|>")])
def test_what_the_user_says_in_an_answer_does_not_count(tokenizers: Any, name: str, mark: str) -> None:
    found = PairEncoder(tokenizers[name]).encode({"prompt": [QUESTION], "chosen": TALK, "rejected": [said("No.")]})
    assert counted(tokenizers[name], found[0].chosen_ids, found[0].chosen_mask) == [
        f"Where are you?{mark}",
        f"Then yes.{mark}",
    ]


def test_a_shared_first_turn_of_weight_0_is_context(tokenizers: Any) -> None:
    turns = [{**TALK[0], "weight": 0}, *TALK[1:]]
    record = {"prompt": [QUESTION], "chosen": turns, "rejected": [turns[0], user("In Oslo."), said("Then no.")]}
    (pair,) = PairEncoder(tokenizers["ChatML"]).encode(record)
    decode = tokenizers["ChatML"].decode
    assert decode(pair.prompt_ids).endswith("Rome?<|im_end|>\n<|im_start|>assistant\n")
    assert decode(pair.chosen_ids).startswith("Where are you?<|im_end|>")
    assert counted(tokenizers["ChatML"], pair.chosen_ids, pair.chosen_mask) == ["Then yes.<|im_end|>"]
    assert counted(tokenizers["ChatML"], pair.rejected_ids, pair.rejected_mask) == ["Then no.<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns_is_refused_with_the_way_out(tokenizers: Any) -> None:
    record = {"prompt": [QUESTION], "chosen": TALK, "rejected": [said("No.")]}
    with pytest.raises(RowRefusedError, match="make a row of each assistant turn") as caught:
        PairEncoder(tokenizers["Qwen3"]).encode(record)
    assert caught.value.code == "TurnsRewritten"


def test_calls_that_the_template_drops_are_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN
    with pytest.raises(RowRefusedError) as caught:
        PairEncoder(tokenizer).encode({"prompt": [QUESTION], "chosen": TRAJECTORY, "rejected": [said("No.")]})
    assert caught.value.code == "ToolsDropped"


def test_a_cut_keeps_the_mask_and_needs_a_token_that_counts() -> None:
    whole = Pair([1], [2, 3, 4, 5], [6], 1, [0, 1, 0, 1])
    assert whole.trained == 3
    assert whole.cut(4) == Pair([1], [2, 3, 4], [6], 1, [0, 1, 0])
    assert whole.cut(2) is None
    assert {5, 6}.issuperset(whole.last_tokens)
    assert not {4, 6}.issuperset(Pair([1], [2, 3, 4], [6], 1, [0, 1, 0]).last_tokens)
    assert Judged([1], [2, 3], True, 1, [0, 1]).cut(2) is None
    assert Judged([1], [2, 3, 4], True, 1, [0, 1, 0]).cut(3) == Judged([1], [2, 3], True, 1, [0, 1])


def test_every_row_is_valid_or_rejected_and_the_rest_is_encoded_or_refused(tmp_path: Path, tokenizers: Any) -> None:
    talks = [{"chosen": [user(f"{i}?"), *TALK], "rejected": [user(f"{i}?"), said("No.")]} for i in range(8)]
    tools = [{"prompt": f"{i}?", "chosen": TRAJECTORY, "rejected": [said("No.")], "tools": TOOLS} for i in range(3)]
    open_ended = [{"prompt": f"{i}?", "chosen": TALK[:2], "rejected": [said("No.")]} for i in range(2)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*talks, *tools, *open_ended]))
    plan = {
        "name": "rows",
        "store": str(tmp_path / "store"),
        "source": {"uri": "pvc://c/rows.jsonl"},
        "sourcePath": str(path),
    }
    result = materialize.run(MaterializePlan.model_validate({**plan, "checks": {"maxRejected": "20%"}}))
    assert (result.rows, result.rejected) == (11, 2)
    assert [(error.code, error.count) for error in result.errors] == [("SeveralTurns", 2)]
    files = [tmp_path / "store" / str(result.path) / f"{split.name}.jsonl" for split in result.splits]
    file = tmp_path / "all.jsonl"
    file.write_text("".join(part.read_text() for part in files))
    assert TALK in [json.loads(line)["chosen"] for line in file.read_text().splitlines()]
    counts = encode_split(file, PairEncoder(tokenizers["ChatML"]), max_length=None).counts
    refused = {code: entry.count for code, entry in counts.refused.items()}
    assert (counts.lines, counts.rows, refused) == (11, 8, {"ToolsDropped": 3})


def test_rows_of_single_turns_bring_no_masks() -> None:
    rows = [Pair([1], [2, 3], [4], 1), Pair([1], [5], [6], 2)]
    assert pairs.build_dataset(None, rows, 8).column_names == ["prompt_ids", "chosen_ids", "rejected_ids"]
    masked = pairs.build_dataset(None, [*rows, Pair([1], [2, 3], [4], 3, [0, 1])], 8)
    assert masked["chosen_mask"][:] == [[1, 1], [1], [0, 1]]
    assert masked["rejected_mask"][:] == [[1], [1], [1]]


def test_labels_are_set_by_position() -> None:
    from hone_trainer.encoding.preferences import labels

    assert labels([7], [8, 9, 8], [1, 0, 1]) == [IGNORED, 8, IGNORED, 8]


def test_a_sample_is_the_first_turn_and_a_held_out_answer_all_that_counts() -> None:
    record = {"prompt": [QUESTION], "chosen": TALK, "rejected": [said("No.")]}
    assert as_text(record) == (QUESTION["content"], TALK[0]["content"])
    assert as_text({**record, "chosen": [{**TALK[0], "weight": 0}, *TALK[1:]]})[1] == TALK[2]["content"]
    assert probe_suite._reference(record) == TALK[2]["content"]
    row = probe_suite._as_row(Pair([1], [2, 3, 4], [5], 1, [1, 0, 1]))
    assert (row.input_ids, row.labels, row.prompt_ids) == ([1, 2, 3, 4], [IGNORED, 2, IGNORED, 4], [1, 2, 3])
