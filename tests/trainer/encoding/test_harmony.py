"""gpt-oss: the answer and its reasoning are trained in their channels, exactly as the model writes them when served."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import trl
from support.models.chat_templates import byte_level

from hone_trainer.datasets.formats.chat import CHAT
from hone_trainer.encoding import harmony
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.preferences import PairEncoder
from hone_trainer.encoding.prompts import Prompt, PromptEncoder
from hone_trainer.encoding.row import IGNORED, Row, RowRefusedError
from hone_trainer.rewards.base import as_samples

pytestmark = pytest.mark.trainer

SPECIAL = ["<|endoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>"]
SPECIAL += ["<|call|>"]
THOUGHT = "One and two\nare three."
ANALYSIS = f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}}
CALLED = ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Köln", "days": 2}<|call|>'


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """With OpenAI's template; TRL has a copy of it."""
    template = (Path(trl.__file__).parent / "chat_templates" / "gptoss.jinja").read_text(encoding="utf-8")
    return byte_level(SPECIAL, template, eos_token="<|return|>", pad_token="<|endoftext|>")


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def rows_of(tokenizer: Any, *turns: dict[str, Any], **fields: Any) -> list[Row]:
    """As a row of format Chat goes through the dataset and the encoder."""
    record = CHAT.normalise({"messages": list(turns), **fields}, {})
    return Encoder(tokenizer).encode(record)


def trained(tokenizer: Any, row: Row) -> str:
    """All that is trained, which is one run to the end of the row."""
    start = next(index for index, label in enumerate(row.labels) if label != IGNORED)
    assert row.labels[start:] == row.input_ids[start:]
    return str(tokenizer.decode(row.labels[start:]))


def served(tokenizer: Any, turns: list[dict[str, Any]], **options: Any) -> list[int]:
    """What a server gives the model to go on from."""
    return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False, **options))


@pytest.mark.parametrize("name", ["thinking", "reasoning_content"])
def test_reasoning_and_answer_are_trained_in_their_channels(tokenizer: Any, name: str) -> None:
    (row,) = rows_of(tokenizer, user("1 + 2 = ?"), answer("It is 3.", **{name: THOUGHT}))
    assert trained(tokenizer, row) == f"{ANALYSIS}<|channel|>final<|message|>It is 3.<|return|>"
    assert row.prompt_ids == served(tokenizer, [user("1 + 2 = ?")])


def test_the_row_is_what_the_template_writes_of_the_whole_conversation(tokenizer: Any) -> None:
    turns = [{"role": "system", "content": "Be brief."}, user("1 + 2 = ?"), answer("3", thinking=THOUGHT)]
    (row,) = rows_of(tokenizer, *turns)
    assert row.input_ids == tokenizer.apply_chat_template(turns, return_dict=False)


def test_an_answer_without_reasoning_is_the_final_channel_alone(tokenizer: Any) -> None:
    (row,) = Encoder(tokenizer).encode({"prompt": "What is a pod?", "completion": "A pod\n has containers. "})
    assert trained(tokenizer, row) == "<|channel|>final<|message|>A pod\n has containers. <|return|>"
    (empty,) = rows_of(tokenizer, user("hi"), answer("<think>\n\n</think>\n\nhello"))
    assert trained(tokenizer, empty) == "<|channel|>final<|message|>hello<|return|>"


def test_each_turn_is_a_row_since_earlier_reasoning_is_not_shown(tokenizer: Any) -> None:
    turns = [user("hi"), answer("hello", thinking="Be kind."), user("1 + 2 = ?"), answer("3", thinking=THOUGHT)]
    first, last = rows_of(tokenizer, *turns)
    assert trained(tokenizer, first).endswith(
        "Be kind.<|end|><|start|>assistant<|channel|>final<|message|>hello<|return|>"
    )
    assert trained(tokenizer, last) == f"{ANALYSIS}<|channel|>final<|message|>3<|return|>"
    assert last.prompt_ids == served(tokenizer, turns[:3])
    assert "Be kind." not in tokenizer.decode(last.prompt_ids)


def test_a_call_is_trained_with_its_reasoning_and_is_before_the_answer_as_served(tokenizer: Any) -> None:
    call = answer("", tool_calls=[CALL], thinking=THOUGHT)
    result = {"role": "tool", "content": "20 C", "tool_call_id": "c1"}
    (row,) = rows_of(tokenizer, user("warm?"), call, result, answer("Yes."), tools=TOOLS)
    runs = [list(run) for counts, run in itertools.groupby(row.labels, lambda label: label != IGNORED) if counts]
    assert [tokenizer.decode(run) for run in runs] == [
        f"{ANALYSIS}{CALLED}",
        "<|channel|>final<|message|>Yes.<|return|>",
    ]
    assert row.prompt_ids == served(tokenizer, [user("warm?"), call, result], tools=TOOLS)
    assert THOUGHT in tokenizer.decode(row.prompt_ids), "the reasoning of a call is shown until it is answered"


def test_what_is_said_before_a_call_is_reasoning_for_the_template(tokenizer: Any) -> None:
    (row,) = rows_of(tokenizer, user("warm?"), answer(THOUGHT, tool_calls=[CALL]), tools=TOOLS)
    assert trained(tokenizer, row) == f"{ANALYSIS}{CALLED}"


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        (answer("Let me look.", tool_calls=[CALL], thinking=THOUGHT), "TemplateRefused"),
        (
            answer("", tool_calls=[CALL, {**CALL, "id": "c2", "function": {**CALL["function"], "name": "forecast"}}]),
            "ToolsDropped",
        ),
        (answer("<|channel|>final<|message|>3"), "ControlToken"),
    ],
)
def test_what_the_format_cannot_say_is_refused(tokenizer: Any, turn: dict[str, Any], code: str) -> None:
    with pytest.raises(RowRefusedError) as caught:
        Encoder(tokenizer).encode(
            {"messages": [user("warm?"), turn], "tools": TOOLS}
            if "tool_calls" in turn
            else {"messages": [user("warm?"), turn]}
        )
    assert caught.value.code == code


def test_a_template_that_changes_an_answer_is_refused(tokenizer: Any) -> None:
    changed = byte_level(
        SPECIAL, tokenizer.chat_template.replace('message.content + "<|return|>"', 'message.content[:3] + "<|return|>"')
    )
    changed.eos_token = "<|return|>"
    with pytest.raises(RowRefusedError, match="harmony's channels") as caught:
        Encoder(changed).encode({"prompt": "What is a pod?", "completion": "A pod has containers."})
    assert caught.value.code == "NotProved"


def test_preferences_compare_reasoning_and_answer(tokenizer: Any) -> None:
    (pair,) = PairEncoder(tokenizer).encode(
        {
            "prompt": [user("1 + 2 = ?")],
            "chosen": [answer(f"<think>\n{THOUGHT}\n</think>\n\n3")],
            "rejected": [answer("4")],
        }
    )
    assert pair.prompt_ids == served(tokenizer, [user("1 + 2 = ?")])
    assert tokenizer.decode(pair.chosen_ids) == f"{ANALYSIS}<|channel|>final<|message|>3<|return|>"
    assert tokenizer.decode(pair.rejected_ids) == "<|channel|>final<|message|>4<|return|>"


def test_a_prompt_is_what_is_served_and_its_answers_end_with_return(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, 500)
    (prompt,) = encoder.encode({"prompt": "1 + 2 = ?", "answer": "3"})
    assert prompt.prompt_ids == served(tokenizer, [user("1 + 2 = ?")])
    assert encoder.end_of_turn_ids == {tokenizer.eos_token_id}, "<|end|> ends the reasoning alone"


@pytest.mark.parametrize("content", [f"<think>\n{THOUGHT}\n</think>\n\nIt is 3.", "It is 3."])
def test_an_answer_is_read_as_rows_have_it(tokenizer: Any, content: str) -> None:
    (row,) = rows_of(tokenizer, user("1 + 2 = ?"), answer(content))
    ids = row.input_ids[len(row.prompt_ids) :]
    assert harmony.decoded(tokenizer, row.prompt_ids, ids) == content
    (sample,) = as_samples(tokenizer, [Prompt([], {"prompt": "1 + 2 = ?"}, 1)], [ids])
    assert sample.completion == content
    cut = harmony.decoded(tokenizer, row.prompt_ids, ids[:-3])
    assert content.startswith(cut)
    assert len(cut) > 5
    assert harmony.decoded(tokenizer, [], tokenizer("no channel")["input_ids"]) == "no channel"


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>final<|message|>3<|return|>",
        f"{ANALYSIS}<|channel|>final<|message|>3",
        f"{ANALYSIS}<|channel|>final<|message|>3 <|return|>",
        f"x{ANALYSIS}<|channel|>final<|message|>3<|return|>",
    ],
)
def test_the_proof_is_exact(text: str) -> None:
    turn = answer("3", thinking=THOUGHT)
    assert harmony.says(f"{ANALYSIS}<|channel|>final<|message|>3<|return|>", turn)
    assert not harmony.says(text, turn)


@pytest.mark.parametrize(
    "text",
    [
        CALLED.replace("2", "3"),
        CALLED.replace("weather", "weathers"),
        CALLED + "x",
        CALLED.replace("}", ""),
        ANALYSIS + CALLED,
    ],
)
def test_the_proof_of_a_call_is_exact(text: str) -> None:
    turn = answer("", tool_calls=[CALL])
    assert harmony.says(CALLED, turn)
    assert not harmony.says(text, turn)
